"""A learner: a generator and a solver that learn a stream together."""

import time
from itertools import chain
from typing import Any

import torch

from avalanche_gd.data.augmentation import HorizontalFlipPlugin
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.models import DiffusionModel
from avalanche_gd.plugins import GuidingSolverPlugin
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.passes import PassCounter
from avalanche_gd.runs.progress import Progress
from avalanche_gd.runs.run_files import JUDGES
from avalanche_gd.runs.seeds import SeedPlugin
from avalanche_gd.runs.strategies import (
    CumulativePlugin,
    NewOptimizerStatePlugin,
    generator_strategy,
    make_generator,
    solver_replay,
    solver_strategy,
)
from avalanche_gd.storage import content_digest
from avalanche_gd.training.plugin_state import remembers
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state

_NUMBERS = {"generator": 1, "solver": 2}  # which tell their random states apart


class Learner:
    """A generator, or none, and a classifier under one method.

    :param config: the settings of the run.
    :param labeller: labels generated images; None for the oracle.
    """

    def __init__(self, config: RunConfig, labeller: torch.nn.Module | None = None):
        self.config, self.labeller = config, labeller
        self.model = make_generator(config)
        self.counter = PassCounter(self.model, config.generator.batch_size)
        self.strategies: dict[str, Any] = {}
        """The strategies by the name of their model: generator, solver."""
        self.method_plugins: dict[str, list[Any]] = {}
        """The method's plugins by the same names, whose state a checkpoint saves."""
        self.seconds = {"evaluation": 0.0}
        """The seconds of each phase so far."""
        replay = []
        if self.model is not None:
            plugins = self._plugins("generator")
            generator = generator_strategy(config, self.model, plugins, labeller)
            self.strategies["generator"] = generator
            if config.method.solver_replays:
                replay = solver_replay(config.solver, generator)
        plugins = [*self._plugins("solver"), *replay]
        if config.method.solver:
            self.strategies["solver"] = solver_strategy(config, plugins)
            self.method_plugins["solver"] += filter(remembers, replay)
            solver = self.strategies["solver"]
            for plugin in self.method_plugins.get("generator", ()):
                if guidance := getattr(plugin, "guidance", None):
                    solver.plugins.insert(0, GuidingSolverPlugin(guidance, solver.model))

    def train(self, experience: Any) -> None:
        """Train the solver on an experience, then the generator."""
        if "solver" in self.strategies:
            self.strategies["solver"].train(experience, eval_streams=[])
        if "generator" in self.strategies and not self.config.method.solver_replays:
            self.strategies["generator"].train(experience, eval_streams=[])

    def evaluate(self, stream: Any) -> dict[str, float]:
        """The metrics of both models, as ``generator/NAME`` and ``solver/NAME``."""
        started = time.perf_counter()
        values = {}
        for prefix, strategy in self.strategies.items():
            strategy.evaluator.reset_last_metrics()
            for name, value in strategy.eval(stream).items():
                if isinstance(value, float):  # images are for the loggers
                    values[f"{prefix}/{name}"] = value
        self.seconds["evaluation"] += time.perf_counter() - started
        return values

    def generated_images(self) -> torch.Tensor | None:
        """The images of the last evaluation, ``(N, C, H, W)``, in model space."""
        if self.model is None:
            return None
        sampling = self.config.evaluation.sampling()
        return SharedImages.of(self.strategies["generator"]).images(self.model, sampling)

    def cost(self) -> dict[str, float]:
        """The cost in passes of the denoiser; empty without a diffusion model."""
        if not isinstance(self.model, DiffusionModel):
            return {}
        trained = self.strategies["generator"].clock.train_exp_iterations
        steps = self.config.budget("generator").steps
        return self.counter.summary(steps or max(1, trained))

    def judges(self) -> dict[str, list[str]]:
        """The SHA-256 of the weights of the oracles and labellers that were used so far."""
        if "generator" not in self.strategies:
            return {kind: [] for kind in JUDGES}
        oracles = SharedImages.of(self.strategies["generator"]).oracle_digests()
        used = self.labeller
        labellers = [] if used is None else [content_digest(used.state_dict())]
        return dict(zip(JUDGES, (oracles, labellers), strict=True))

    def close(self) -> None:
        """Write the end of TensorBoard's files."""
        for strategy in self.strategies.values():
            for logger in strategy.evaluator.loggers:
                logger.writer.close()

    def can_go_on(self) -> bool:
        """True if a checkpoint can save all that the method's plugins remember."""
        return all(map(remembers, chain(*self.method_plugins.values())))

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience depends on, in tensors and plain containers."""
        return {
            "strategies": {
                name: strategy_state(strategy, self.method_plugins[name])
                for name, strategy in self.strategies.items()
            },
            "seconds": self.seconds,
            "passes": self.counter.passes,
        }

    def load_state_dict(self, state: dict[str, Any], seen: Any) -> None:
        """Restore a state.

        :param state: from :meth:`state_dict`.
        :param seen: the training experiences that led to it.
        """
        for name, strategy in self.strategies.items():
            plugins = self.method_plugins[name]
            load_strategy_state(strategy, plugins, state["strategies"][name])
        self.seconds.update(state["seconds"])
        self.counter.passes = state["passes"]
        if "generator" in self.strategies:
            for experience in seen:
                SharedImages.of(self.strategies["generator"]).observe(experience)

    def _plugins(self, name: str) -> list[Any]:
        """The plugins of a model's strategy."""
        config = self.config
        self.method_plugins[name] = config.make_plugins(name)
        self.seconds[name] = 0.0
        return [
            SeedPlugin(config.seed, _NUMBERS[name]),
            self.counter.plugin(name),
            *([NewOptimizerStatePlugin()] if getattr(config, name).reset_optimizer else []),
            *([CumulativePlugin()] if config.method.cumulative else []),
            *([HorizontalFlipPlugin()] if config.benchmark.horizontal_flips else []),
            *self.method_plugins[name],
            Progress(name, config.benchmark.n_experiences, self.seconds),
        ]
