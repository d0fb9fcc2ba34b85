"""Avalanche's metrics, plugins and strategies on a diffusion model: each works or says why.

The tables hold all that Avalanche has; a test of each says so.
"""

import inspect

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation import PluginMetric, metrics
from avalanche.training import plugins, supervised
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.templates import SupervisedTemplate
from torch.optim.lr_scheduler import ExponentialLR

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
)
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, tiny
from tests.helpers.small_trainings import train_generator

MODELS = {"not conditioned": tiny, "conditioned": conditioned}


def strategy_of(model, *beside, template=SupervisedTemplate, metric=(), **options):
    """A strategy of Avalanche's for a diffusion model."""
    options = dict(criterion=DenoisingLoss(), train_mb_size=64, eval_mb_size=64) | options
    return template(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        plugins=list(beside),
        evaluator=EvaluationPlugin(*metric),
        **options,
    )


def all_wishes(make):
    """What a function of metrics makes if it is asked for all of them."""
    wishes = inspect.signature(make).parameters.values()
    return make(**{wish.name: True for wish in wishes if isinstance(wish.default, bool)})


OF_LOGITS = "logits"
OF_PASSES = "pass of a conditioned model"
METRICS = {  # how it is made, and why it is refused; None if it works
    "accuracy_metrics": (None, OF_LOGITS),
    "accuracy_matrix_metrics": (None, OF_LOGITS),
    "amca_metrics": (None, OF_LOGITS),
    "bwt_metrics": (None, OF_LOGITS),
    "class_accuracy_metrics": (None, OF_LOGITS),
    "confusion_matrix_metrics": (
        lambda: metrics.confusion_matrix_metrics(num_classes=10, stream=True),
        OF_LOGITS,
    ),
    "forgetting_metrics": (None, OF_LOGITS),
    "forward_transfer_metrics": (None, OF_LOGITS),
    "mean_scores_metrics": (None, OF_LOGITS),
    "topk_acc_metrics": (
        lambda: metrics.topk_acc_metrics(top_k=2, epoch=True, stream=True),
        OF_LOGITS,
    ),
    "CumulativeAccuracyPluginMetric": (metrics.CumulativeAccuracyPluginMetric, OF_LOGITS),
    "CumulativeForgettingPluginMetric": (
        metrics.CumulativeForgettingPluginMetric,
        OF_LOGITS,
    ),
    "MAC_metrics": (None, OF_PASSES),
    "cpu_usage_metrics": (None, None),
    "disk_usage_metrics": (None, None),
    "gpu_usage_metrics": (lambda: metrics.gpu_usage_metrics(0, experience=True), None),
    "images_samples_metrics": (
        lambda: metrics.images_samples_metrics(n_rows=2, n_cols=2, on_eval=True),
        None,
    ),
    "labels_repartition_metrics": (None, None),
    "loss_metrics": (None, None),
    "ram_usage_metrics": (None, None),
    "timing_metrics": (None, None),
    "WeightCheckpoint": (metrics.WeightCheckpoint, None),
}


def test_the_table_has_all_of_avalanches_metrics():
    functions = {name for name in dir(metrics) if name.endswith("_metrics")}
    assert functions <= set(METRICS)
    made = set()
    for name, (make, _) in METRICS.items():
        found = make() if make else all_wishes(getattr(metrics, name))
        made |= {type(one) for one in (found if isinstance(found, list) else [found])}
    modules = {kind.__module__ for kind in made}
    for kind in vars(metrics).values():
        if isinstance(kind, type) and issubclass(kind, PluginMetric):
            assert kind.__module__ in modules, kind


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", METRICS)
def test_each_metric_works_or_is_refused_by_name(digits, name, kind):
    make, why = METRICS[name]
    metric = make() if make else all_wishes(getattr(metrics, name))
    metric = metric if isinstance(metric, list) else [metric]
    model = MODELS[kind]()
    before = weights(model)
    if why is None or (why is OF_PASSES and kind == "not conditioned"):
        strategy = strategy_of(model, GenerativeDistillationPlugin(), metric=[metric])
        for experience in digits.train_stream[:2]:
            strategy.train(experience, eval_streams=[digits.test_stream[:1]])
            strategy.eval(digits.test_stream[:1])
        values = strategy.evaluator.get_last_metrics()
        assert values
        return
    refused = dict(match=rf"Avalanche's metric \w+ .*{why}.*; (use|remove)")
    with pytest.raises(ValueError, **refused):
        DiffusionTraining(
            model=model,
            optimizer=torch.optim.Adam(model.parameters()),
            evaluator=EvaluationPlugin(metric),
        )
    for criterion in (DenoisingLoss(), lambda output, y: DenoisingLoss()(output, y)):
        for plugin in (GenerativeDistillationPlugin(), GenerativeReplayPlugin()):
            strategy = strategy_of(model, plugin, metric=[metric], criterion=criterion)
            with pytest.raises(ValueError, **refused):
                strategy.train(digits.train_stream[0], eval_streams=[])
    with pytest.raises(ValueError, **refused):
        strategy_of(model, metric=[metric]).eval(digits.test_stream[:1])
    assert same_bits(weights(model), before)


def test_the_default_evaluator_is_refused_with_what_to_use(tiny_model, digits):
    strategy = SupervisedTemplate(
        model=tiny_model,
        optimizer=torch.optim.Adam(tiny_model.parameters()),
        criterion=DenoisingLoss(),
        evaluator=default_evaluator,
    )
    with pytest.raises(ValueError, match=r"EpochAccuracy reads .* use loss_metrics"):
        strategy.train(digits.train_stream[0])


def test_a_solver_keeps_its_metrics_and_plugins(digits):
    """And its generator is looked at when it is trained."""
    solver = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    generator = train_generator(tiny(), [], train_steps=1)
    SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=64,
        plugins=[GenerativeReplayPlugin(generator), plugins.LwFPlugin()],
        evaluator=default_evaluator,
    ).train(digits.train_stream[:2])


class Steps(SupervisedPlugin):
    """Notes what each step trains on and what was added to its loss."""

    def __init__(self):
        super().__init__()
        self.added, self.sizes, self.modes, self.starts = [], [], [], []

    def before_training_iteration(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 0:
            self.starts.append(weights(strategy.model))

    def after_forward(self, strategy, **kwargs):
        self.modes.append(strategy.model.training)

    def before_backward(self, strategy, **kwargs):
        self.added.append((strategy.loss - strategy.criterion()).item())
        self.sizes.append(len(strategy.mb_x))


def penalises(plugin, steps, strategy):
    assert max(steps.added[len(steps.added) // 2 :]) > 1e-6


def replays(plugin, steps, strategy):
    assert max(steps.sizes) > strategy.train_mb_size


def projects(plugin, steps, strategy):
    gradients = plugin.G if isinstance(plugin, plugins.GEMPlugin) else None
    gradients = plugin.reference_gradients if gradients is None else gradients
    assert gradients.abs().sum() > 0


def resets(plugin, steps, strategy):
    assert same_bits(steps.starts[0], steps.starts[1])


def keeps_a_memory_alone(plugin, steps, strategy):
    assert len(strategy.adapted_dataset or plugin.storage_policy.buffer) == plugin.mem_size


def watches_the_loss(plugin, steps, strategy):
    assert plugin.best_val is not None


def lowers_the_rate(plugin, steps, strategy):
    assert strategy.optimizer.param_groups[0]["lr"] < 1e-2


CLASSIFIER = "it is for a classifier; use ReplayPlugin"
CURRENT = r'use GenerativeDistillationPlugin\(source="current"\)'
ADAPTER = "of avalanche_gd.plugins.baselines"
PLUGINS = {  # how it is made for a model, and its effect, or why it is refused
    "AGEMPlugin": (lambda model: plugins.AGEMPlugin(64, 32), projects),
    "EWCPlugin": (lambda model: plugins.EWCPlugin(1e4), penalises),
    "GEMPlugin": (lambda model: plugins.GEMPlugin(40, 0.5), projects),
    "GDumbPlugin": (lambda model: plugins.GDumbPlugin(50), keeps_a_memory_alone),
    "ReplayPlugin": (lambda model: plugins.ReplayPlugin(64), replays),
    "GSS_greedyPlugin": (
        lambda model: plugins.GSS_greedyPlugin(128, 5, list(SHAPE)),
        replays,
    ),
    "RARPlugin without attacks": (
        lambda model: plugins.RARPlugin(64, 64, use_adversarial_replay=False),
        replays,
    ),
    "FromScratchTrainingPlugin": (
        lambda model: plugins.FromScratchTrainingPlugin(),
        resets,
    ),
    "EarlyStoppingPlugin of the loss": (
        lambda model: plugins.EarlyStoppingPlugin(
            5, "test_stream", "Loss_Stream", mode="min"
        ),
        watches_the_loss,
    ),
    "LRSchedulerPlugin": (None, lowers_the_rate),
    "GenerativeReplayPlugin": (lambda model: plugins.GenerativeReplayPlugin(), replays),
    "weighted GenerativeReplayPlugin": (
        lambda model: plugins.GenerativeReplayPlugin(is_weighted_replay=True),
        "use avalanche_gd.GenerativeReplayPlugin",
    ),
    "RARPlugin": (lambda model: plugins.RARPlugin(16), "use_adversarial_replay=False"),
    "EarlyStoppingPlugin": (
        lambda model: plugins.EarlyStoppingPlugin(1, "test_stream"),
        'metric_name="Loss_Stream"',
    ),
    "SynapticIntelligencePlugin": (
        lambda model: plugins.SynapticIntelligencePlugin(1.0),
        ADAPTER,
    ),
    "MASPlugin": (lambda model: plugins.MASPlugin(), ADAPTER),
    "MIRPlugin": (lambda model: plugins.MIRPlugin(16), ADAPTER),
    "RWalkPlugin": (lambda model: plugins.RWalkPlugin(), ADAPTER),
    "LwFPlugin": (lambda model: plugins.LwFPlugin(), CURRENT),
    "LFLPlugin": (lambda model: plugins.LFLPlugin(1.0), CURRENT),
    "FeatureDistillationPlugin": (
        lambda model: plugins.FeatureDistillationPlugin(),
        CURRENT,
    ),
    "TrainGeneratorAfterExpPlugin": (
        lambda model: plugins.TrainGeneratorAfterExpPlugin(),
        "for a solver's strategy",
    ),
    "BiCPlugin": (lambda model: plugins.BiCPlugin(), CLASSIFIER),
    "CWRStarPlugin": (lambda model: plugins.CWRStarPlugin(model), CLASSIFIER),
    "CoPEPlugin": (lambda model: plugins.CoPEPlugin(p_size=64), CLASSIFIER),
    **{
        name: (lambda model, name=name: getattr(plugins, name)(), CLASSIFIER)
        for name in (
            "CurrentDataNCMUpdate",
            "MemoryNCMUpdate",
            "NCMOracle",
            "CurrentDataFeCAMUpdate",
            "MemoryFeCAMUpdate",
            "FeCAMOracle",
        )
    },
}


def test_the_table_has_all_of_avalanches_plugins():
    kinds = {
        name
        for name, kind in vars(plugins).items()
        if isinstance(kind, type) and issubclass(kind, SupervisedPlugin | PluginKind)
    }
    named = {word for name in PLUGINS for word in name.split()}
    assert kinds - {"SupervisedPlugin"} <= named
    assert {"EWCPlugin", "FromScratchTrainingPlugin"} <= kinds


PluginKind = SupervisedPlugin.__mro__[1]  # Avalanche's base of those without labels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", PLUGINS)
def test_each_plugin_has_its_effect_or_is_refused(digits, name, kind):
    make, effect = PLUGINS[name]
    model, steps = MODELS[kind](), Steps()
    if name == "GenerativeReplayPlugin" and kind == "conditioned":
        effect = "use avalanche_gd.GenerativeReplayPlugin"
    loss = metrics.loss_metrics(stream=True)
    if name == "LRSchedulerPlugin":
        strategy = strategy_of(model, steps, metric=[loss])
        rate = ExponentialLR(strategy.optimizer, 0.5)
        strategy.plugins.insert(
            0, plugin := plugins.LRSchedulerPlugin(rate, reset_lr=False)
        )
    else:
        plugin = make(model)
        strategy = strategy_of(model, plugin, steps, metric=[loss], eval_every=1)
    if not callable(effect):
        refused = dict(match=f"{name.split()[-1]} does not.*{effect}")
        before = weights(model)
        for beside in ([GenerativeDistillationPlugin()], []):
            if name == "CoPEPlugin" and not beside:
                continue  # it fails before the criterion is asked
            strategy = strategy_of(model, *beside, plugin)
            with pytest.raises(ValueError, **refused):
                strategy.train(digits.train_stream[0], eval_streams=[])
        assert same_bits(weights(model), before)
        with pytest.raises(ValueError, **refused):
            DiffusionTraining(
                model=model,
                optimizer=torch.optim.Adam(model.parameters()),
                plugins=[plugin],
            )
        return
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[digits.test_stream[:1]])
    assert torch.tensor(steps.added).isfinite().all()
    assert all(steps.modes)  # none leaves the model in evaluation mode
    effect(plugin, steps, strategy)


@pytest.mark.parametrize(
    "resetting", [plugins.GDumbPlugin, plugins.FromScratchTrainingPlugin]
)
def test_a_plugin_that_resets_the_teacher_is_refused(tiny_model, resetting):
    for teaching in (GenerativeDistillationPlugin, GenerativeReplayPlugin):
        with pytest.raises(ValueError, match="which is then a useless teacher"):
            train_generator(tiny_model, [], resetting(), teaching())


def test_a_plugin_that_resets_the_student_alone_is_not(tiny_model, digits):
    reset = plugins.FromScratchTrainingPlugin()
    train_generator(
        tiny_model, digits.train_stream[:2], GenerativeDistillationPlugin(), reset
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AETraining", dict(device="cpu")),
        ("VAETraining", {}),
        ("DER", {}),
        ("ER_ACE", {}),
        ("ER_AML", dict(feature_extractor=torch.nn.Identity())),
        ("MER", dict(mem_size=20, batch_size_mem=4)),
    ],
)
@pytest.mark.parametrize("kind", MODELS)
def test_a_strategy_with_steps_of_its_own_is_refused(digits, name, options, kind):
    strategy = strategy_of(MODELS[kind](), template=getattr(supervised, name), **options)
    with pytest.raises(ValueError, match=f"{name} does not train .* use DiffusionTraining"):
        strategy.train(digits.train_stream[0], eval_streams=[])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Naive", {}),
        ("Cumulative", {}),
        ("JointTraining", {}),
        ("FromScratchTraining", {}),
        ("Replay", dict(mem_size=20)),
        ("EWC", dict(ewc_lambda=1.0)),
        ("AGEM", dict(patterns_per_exp=20, sample_size=20)),
        ("GEM", dict(patterns_per_exp=20, memory_strength=0.5)),
        ("GDumb", dict(mem_size=20)),
    ],
)
@pytest.mark.parametrize("kind", MODELS)
def test_other_strategies_of_avalanches_train_a_diffusion_model(
    digits, name, options, kind
):
    template = getattr(supervised, name)
    strategy = strategy_of(MODELS[kind](), template=template, **options)
    before = weights(strategy.model)
    strategy.train(digits.train_stream[:2], eval_streams=[])
    assert not same_bits(weights(strategy.model), before)


def test_the_criterion_of_a_classifier_is_refused(digits):
    model = DiffusionModel.from_preset("digits")
    strategy = strategy_of(
        model, GenerativeDistillationPlugin(), criterion=torch.nn.CrossEntropyLoss()
    )
    with pytest.raises(
        ValueError, match=r"CrossEntropyLoss .* criterion=DenoisingLoss\(\)"
    ):
        strategy.train(digits.train_stream[0])
