"""Which parts of Avalanche do not work with a diffusion model, and what to use instead."""

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

from avalanche.models import MultiTaskModule
from avalanche.training import plugins as avalanche_plugins
from avalanche.training import supervised
from avalanche.training.templates import SupervisedMetaLearningTemplate
from torch.nn.modules.loss import _Loss

from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.plugins.lesson import LessonPlugin

_OF_LOGITS = (
    "acc_matrix",
    "accuracy",
    "amca",
    "class_accuracy",
    "confusion_matrix",
    "cumulative_accuracies",
    "forgetting_bwt",
    "forward_transfer",
    "mean_scores",
    "topk_acc",
)
"""Avalanche's modules with metrics that read a model's output as logits."""

_CURRENT = 'GenerativeDistillationPlugin(source="current")'
_ADAPTERS = "avalanche_gd.plugins.baselines"
_CLASSIFIER = "it is for a classifier; use ReplayPlugin, EWCPlugin or AGEMPlugin"

PLUGINS: dict[type, str] = {
    avalanche_plugins.LwFPlugin: f"it distils logits; use {_CURRENT}",
    avalanche_plugins.LFLPlugin: (
        f"it freezes a layer and leaves the model in evaluation mode; use {_CURRENT}"
    ),
    avalanche_plugins.FeatureDistillationPlugin: (
        f"it needs a classifier's features; use {_CURRENT}"
    ),
    avalanche_plugins.MASPlugin: (
        f"it needs an output that is a tensor; use the MASPlugin of {_ADAPTERS}"
    ),
    avalanche_plugins.RWalkPlugin: (
        f"it leaves the model in evaluation mode; use the RWalkPlugin of {_ADAPTERS}"
    ),
    avalanche_plugins.MIRPlugin: (
        f"it compares losses under different noise; use the MIRPlugin of {_ADAPTERS}"
    ),
    avalanche_plugins.TrainGeneratorAfterExpPlugin: (
        "it is for a solver's strategy; use it there"
    ),
    avalanche_plugins.CWRStarPlugin: _CLASSIFIER,
    avalanche_plugins.BiCPlugin: _CLASSIFIER,
    avalanche_plugins.CoPEPlugin: _CLASSIFIER,
    avalanche_plugins.CurrentDataNCMUpdate: _CLASSIFIER,
    avalanche_plugins.MemoryNCMUpdate: _CLASSIFIER,
    avalanche_plugins.NCMOracle: _CLASSIFIER,
    avalanche_plugins.CurrentDataFeCAMUpdate: _CLASSIFIER,
    avalanche_plugins.MemoryFeCAMUpdate: _CLASSIFIER,
    avalanche_plugins.FeCAMOracle: _CLASSIFIER,
}
"""Avalanche's plugins that are refused with any arguments, and why."""

TEMPLATES: tuple[type, ...] = (
    supervised.AETraining,
    supervised.DER,
    supervised.ER_ACE,
    supervised.ER_AML,
    supervised.ExpertGateStrategy,
    supervised.FeatureReplay,
    supervised.MER,
    supervised.PNNStrategy,
    supervised.PackNet,
    supervised.StreamingLDA,
    supervised.VAETraining,
)
"""Avalanche's strategies whose training steps differ from a ``SupervisedTemplate``'s."""

OF_OWN_LOSS: tuple[type, ...] = (
    supervised.DER,
    supervised.ER_ACE,
    supervised.ER_AML,
    supervised.FeatureReplay,
    supervised.ICaRL,
    supervised.SCR,
    supervised.StreamingLDA,
    SupervisedMetaLearningTemplate,
)
"""Avalanche's strategies that do not train with their criterion of a batch alone."""


_READ_LABELS = (
    avalanche_plugins.EWCPlugin,
    avalanche_plugins.GEMPlugin,
    avalanche_plugins.AGEMPlugin,
    avalanche_plugins.MIRPlugin,
)
"""Plugins, also their subclasses, that need a label beside each image."""


def check_needs_no_labels(plugins: Iterable[Any]) -> None:
    """Raise ValueError if a plugin reads labels, for data that have none."""
    for plugin in plugins:
        if isinstance(plugin, _READ_LABELS):
            raise ValueError(
                f"{type(plugin).__name__} reads labels, but the data have none; give "
                "(image, label), for instance with label 0 for all"
            )


def check_compatible(strategy: Any) -> None:
    """Raise ValueError if a part of a diffusion model's strategy cannot work with it.

    Only Avalanche's own classes are checked; your own classes and subclasses are accepted.

    :raises ValueError: names Avalanche's metric, plugin, strategy or criterion, and what to
        use instead.
    """
    model = strategy.model
    check_once(strategy.plugins)
    if not isinstance(model, DiffusionModel):
        return
    for kind in TEMPLATES:
        if isinstance(strategy, kind):
            raise ValueError(
                f"{kind.__name__} does not train a diffusion model; use DiffusionTraining, "
                "or a SupervisedTemplate with criterion=DenoisingLoss()"
            )
    if isinstance(strategy._criterion, _Loss):
        raise ValueError(
            f"{type(strategy._criterion).__name__} is not a loss for diffusion models; use "
            "criterion=DenoisingLoss()"
        )
    for metric in strategy.evaluator.metrics:
        _check_metric(metric, model)
    for plugin in strategy.plugins:
        why = _why_not(plugin, strategy)
        if why is not None:
            raise ValueError(
                f"Avalanche's {type(plugin).__name__} does not work with a diffusion "
                f"model: {why}"
            )


def check_once(plugins: list[Any]) -> None:
    """Raise ValueError if a plugin that replays or distils is in a strategy twice."""
    for plugin in plugins:
        again = sum(other is plugin for other in plugins)
        if isinstance(plugin, LessonPlugin) and again > 1:
            raise ValueError(
                f"the same {type(plugin).__name__} is in plugins {again} times, and would "
                "add its loss as often; give it once"
            )


def check_solver(strategy: Any, replay: Any) -> None:
    """Raise ValueError if a solver cannot replay samples in its strategy.

    :param replay: the plugin that replays, one of the strategy's.
    :raises ValueError: for ``JointTraining``, which trains the first experience of a stream
        alone, so that the generator does not learn the others; for a strategy in
        :data:`OF_OWN_LOSS`; before ``replay`` for Avalanche's ``BiCPlugin`` if it scales
        the loss, and for its ``GDumbPlugin``, which resets the solver; for another replay
        from the same generator; for Avalanche's ``LearningToPrompt`` with ``use_mask``; or
        for a solver with heads for tasks, which samples do not have.
    """
    if isinstance(strategy, supervised.JointTraining):
        raise ValueError(
            "JointTraining would train the generator on the first experience alone; train "
            "the generator in a strategy of its own, and the solver without replay"
        )
    if isinstance(strategy, OF_OWN_LOSS):
        raise ValueError(
            f"{type(strategy).__name__} does not learn by the loss of its criterion, which "
            "replay weights; use Naive, or another strategy that does"
        )
    if isinstance(strategy, supervised.LearningToPrompt) and strategy.use_mask:
        raise ValueError(
            "LearningToPrompt masks the logits of old classes in training, so that their "
            "samples have an infinite loss; give use_mask=False"
        )
    if any(isinstance(p, avalanche_plugins.CoPEPlugin) for p in strategy.plugins):
        raise ValueError(
            "Avalanche's CoPEPlugin makes its own batches of features, to which samples "
            "cannot be added; remove it"
        )
    for plugin in takewhile(lambda plugin: plugin is not replay, strategy.plugins):
        if isinstance(plugin, avalanche_plugins.BiCPlugin) and plugin.lamb == -1:
            raise ValueError(
                "Avalanche's BiCPlugin scales the loss that replay weights; put it behind "
                f"the {type(replay).__name__}"
            )
        if isinstance(plugin, avalanche_plugins.GDumbPlugin):
            raise ValueError(
                "Avalanche's GDumbPlugin resets the solver before the copy that labels "
                f"replay is made; remove it, or put it behind the {type(replay).__name__}"
            )
        own = getattr(plugin, "generator_strategy", None)
        if isinstance(plugin, LessonPlugin) and own is replay.generator_strategy:
            raise ValueError(
                f"{type(plugin).__name__} and {type(replay).__name__} would both train the "
                "same generator in an experience; give one of the two"
            )
    if isinstance(strategy.model, MultiTaskModule):
        raise ValueError(
            "replayed samples have no task; give a solver with one head, not a "
            f"{type(strategy.model).__name__}"
        )


def _check_metric(metric: Any, model: DiffusionModel) -> None:
    package, _, module = type(metric).__module__.rpartition(".")
    if package != "avalanche.evaluation.metrics":
        return
    name = f"Avalanche's metric {type(metric).__name__}"
    if module in _OF_LOGITS:
        raise ValueError(
            f"{name} reads the model's output as logits, but a diffusion model has none; "
            "use loss_metrics, denoising_loss_metrics, fid_metrics or "
            "class_balance_metrics in evaluator=EvaluationPlugin(...)"
        )
    if module == "mac" and model.num_classes is not None:
        raise ValueError(
            f"{name} cannot see the pass of a conditioned model, which is made in the "
            "criterion; remove it from the evaluator"
        )


def _why_not(plugin: Any, strategy: Any) -> str | None:
    """Why one of Avalanche's plugins does not work, and what to use; None if it works."""
    kind = type(plugin)
    if kind in PLUGINS:
        return PLUGINS[kind]
    fails, why = PLUGINS_AT_TIMES.get(kind, (lambda *_: False, ""))
    return why if fails(plugin, strategy) else None


def _resets_the_teacher(plugin: Any, strategy: Any) -> bool:
    """Whether the plugin resets the model before another plugin takes it as the teacher."""
    at = strategy.plugins.index(plugin)
    return any(isinstance(other, LessonPlugin) for other in strategy.plugins[at:])


_RESETS = (
    "it resets the model, which is then a useless teacher; remove this plugin, or the one "
    "that replays or distils"
)
PLUGINS_AT_TIMES: dict[type, tuple[Callable[[Any, Any], bool], str]] = {
    avalanche_plugins.SynapticIntelligencePlugin: (
        lambda plugin, strategy: strategy.device.type == "cpu",
        f"it has no effect on the CPU; use the SynapticIntelligencePlugin of {_ADAPTERS}",
    ),
    avalanche_plugins.GenerativeReplayPlugin: (
        lambda plugin, strategy: (
            plugin.is_weighted_replay or strategy.model.num_classes is not None
        ),
        "it loses its samples or their classes; use avalanche_gd.GenerativeReplayPlugin",
    ),
    avalanche_plugins.RARPlugin: (
        lambda plugin, strategy: plugin.use_adversarial_replay,
        "it cannot attack a diffusion model; give use_adversarial_replay=False",
    ),
    avalanche_plugins.EarlyStoppingPlugin: (
        lambda plugin, strategy: "Acc" in plugin.metric_name,
        'there is no accuracy to watch; give metric_name="Loss_Stream", mode="min"',
    ),
    avalanche_plugins.FromScratchTrainingPlugin: (_resets_the_teacher, _RESETS),
    avalanche_plugins.GDumbPlugin: (
        lambda plugin, strategy: any(isinstance(p, LessonPlugin) for p in strategy.plugins),
        _RESETS,
    ),
}
"""Plugins that are refused in some strategies: when, and why."""
