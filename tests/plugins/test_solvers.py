"""Solvers, strategies and generators in which samples cannot be replayed."""

from types import SimpleNamespace

import pytest
import torch
from avalanche.models import MTSimpleMLP
from avalanche.models.generator import MlpVAE
from avalanche.training import Naive, supervised
from avalanche.training.plugins import BiCPlugin, EvaluationPlugin, GDumbPlugin
from avalanche.training.supervised import VAETraining
from avalanche.training.supervised.lamaml import LaMAML
from torch import nn
from torch.utils.data import Dataset

from avalanche_gd import (
    ClassifierGuidance,
    DiffusionModel,
    DiffusionTraining,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    fid_metrics,
)
from avalanche_gd.plugins.compatibility import check_solver
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, ClassDenoiser, TinyDenoiser, seeded, tiny
from tests.helpers.small_streams import FID, SAMPLING, Pixels
from tests.helpers.small_trainings import fake_strategy, solver_in, train_generator
from tests.helpers.stream_builders import by_class

PLUGINS = [GenerativeReplayPlugin, SoftGenerativeReplayPlugin]


@pytest.fixture(scope="module")
def classes():
    """One class an experience."""
    return by_class(4, task_labels=False)


def refused(strategy, stream, message):
    """Its training raises an error of one line before it changes the solver."""
    before = weights(strategy.model)
    with pytest.raises(ValueError, match=message) as caught:
        strategy.train(stream, eval_streams=[])
    assert len(str(caught.value).splitlines()) == 1
    assert same_bits(weights(strategy.model), before)


@pytest.mark.parametrize(
    "options",
    [
        dict(teacher_steps=3),
        dict(look_ahead=2),
        dict(pool_size=9),
        dict(pool_size=9, pool_refresh=3),
        dict(pool_per_class=9),
        dict(teacher_sampler="unipc"),
        dict(teacher_eta=0.5),
        dict(guidance=ClassifierGuidance(nn.Identity().eval())),
        dict(generator=seeded()),
    ],
    ids=lambda given: next(iter(given)),
)
def test_arguments_for_a_diffusion_model_are_refused_with_another_generator(
    classes, options
):
    vae = MlpVAE(SHAPE, nhid=4)
    message = f"{', '.join(options)} cannot be used with a MlpVAE, only with a Diff"
    for plugin in PLUGINS:
        plugin(fake_strategy(vae), lambd=2.0, replay_size=9)
        with pytest.raises(ValueError, match=message):
            plugin(fake_strategy(vae), **options)
    strategy = VAETraining(
        model=vae,
        optimizer=torch.optim.SGD(vae.parameters(), lr=0.1),
        plugins=[GenerativeReplayPlugin(**options)],
        evaluator=None,
    )
    refused(strategy, classes.train_stream[:1], message)


def test_labels_from_the_condition_need_a_diffusion_model():
    vae = MlpVAE(SHAPE, nhid=4)
    vae.num_classes = 4
    with pytest.raises(ValueError, match="needs a generator that is conditioned on"):
        GenerativeReplayPlugin(fake_strategy(vae), labels="condition")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_joint_training_of_a_solver_is_refused_as_its_generator_would_not_see_all(
    classes, plugin
):
    strategy = solver_in(supervised.JointTraining, plugin(train_generator(tiny(), [])))
    message = "JointTraining would train the generator on the first .* of its own"
    refused(strategy, classes.train_stream, message)


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DER", {}),
        ("ER_ACE", {}),
        ("ER_AML", dict(feature_extractor=nn.Identity())),
        ("FeatureReplay", dict(last_layer_name="classifier")),
        ("MER", dict(mem_size=20, batch_size_mem=4)),
    ],
)
def test_a_strategy_whose_loss_is_not_its_criterions_is_refused(
    classes, plugin, name, options
):
    replay = plugin(train_generator(tiny(), []))
    strategy = solver_in(getattr(supervised, name), replay, **options)
    message = f"{name} does not learn by the loss of its criterion, .* use Naive"
    refused(strategy, classes.train_stream[:1], message)


@pytest.mark.parametrize(
    "kind", [supervised.SCR, LaMAML, supervised.ICaRL, supervised.StreamingLDA]
)
def test_a_strategy_that_trains_on_more_than_its_batch_is_refused_too(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} does not learn by the loss of"):
        check_solver(kind.__new__(kind), None)


def test_bias_correction_is_refused_before_replay_as_it_scales_the_loss(classes):
    def replay():
        return GenerativeReplayPlugin(train_generator(tiny(), []))

    stream = classes.train_stream[:1]
    message = "BiCPlugin scales the loss .* put it behind the GenerativeReplayPlugin"
    refused(solver_in(Naive, BiCPlugin(20), replay()), stream, message)
    for plugins in [(replay(), BiCPlugin(20)), (BiCPlugin(20, lamb=1), replay())]:
        solver_in(Naive, *plugins).train(stream, eval_streams=[])


def test_prompts_are_refused_if_they_mask_the_classes_that_are_replayed():
    replay = GenerativeReplayPlugin(train_generator(tiny(), []))
    strategy = supervised.LearningToPrompt.__new__(supervised.LearningToPrompt)
    strategy.plugins, strategy.model, strategy.use_mask = [replay], nn.Identity(), True
    with pytest.raises(ValueError, match="samples have an infinite loss; give use_mask"):
        check_solver(strategy, replay)
    strategy.use_mask = False
    check_solver(strategy, replay)


def test_a_reset_of_the_solver_before_the_copy_that_labels_is_refused(classes):
    def replay():
        return GenerativeReplayPlugin(train_generator(tiny(), []))

    stream = classes.train_stream[:1]
    message = "GDumbPlugin resets the solver .* put it behind the GenerativeReplayPlugin"
    refused(solver_in(Naive, GDumbPlugin(20), replay()), stream, message)
    soft = SoftGenerativeReplay(
        model=(solver := SmallCNN(SHAPE, 4)),
        optimizer=torch.optim.SGD(solver.parameters(), lr=0.1),
        replay=SoftGenerativeReplayPlugin(train_generator(tiny(), [])),
        plugins=[GDumbPlugin(20)],
        train_steps=1,
        evaluator=None,
    )
    refused(soft, stream, "put it behind the SoftGenerativeReplayPlugin")
    solver_in(Naive, replay(), GDumbPlugin(20)).train(stream, eval_streams=[])


def test_two_replays_would_train_their_generator_twice(classes):
    generator = train_generator(tiny(), [])
    plugins = [GenerativeReplayPlugin(generator), SoftGenerativeReplayPlugin(generator)]
    message = "GenerativeReplayPlugin and SoftGenerativeReplayPlugin would both train the s"
    refused(solver_in(Naive, *plugins), classes.train_stream[:1], message)
    assert generator.clock.train_exp_counter == 0
    plugins[1] = SoftGenerativeReplayPlugin(train_generator(tiny(), []))
    solver_in(Naive, *plugins).train(classes.train_stream[:2], eval_streams=[])
    assert generator.clock.train_exp_counter == 2


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_solver_with_a_head_for_each_task_is_refused(plugin):
    stream = by_class(4, task_labels=True).train_stream[:1]
    replay = plugin(train_generator(tiny(), []))
    solver = MTSimpleMLP(input_size=64, hidden_size=4)
    message = "replayed samples have no task; give a solver with one head, not a MTSimple"
    refused(solver_in(Naive, replay, solver=solver), stream, message)


def larger():
    """A generator of larger images."""
    return DiffusionModel(TinyDenoiser(), ddim_scheduler(), (1, 16, 16))


def of_two_classes():
    """A generator that does not know the third class."""
    return DiffusionModel(ClassDenoiser(), ddim_scheduler(), SHAPE, num_classes=2)


@pytest.mark.parametrize(
    ("make", "message", "misfit"),
    [
        (larger, r"shape \(1, 8, 8\), but the generator's samples have \(1, 16, 16\)", 0),
        (of_two_classes, "experience 3 has class 2, but labels must be from 0 to", 2),
    ],
)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_generator_that_cannot_be_trained_on_an_experience_is_refused_before_it(
    classes, plugin, make, message, misfit
):
    stream = classes.train_stream
    budgeted = solver_in(BudgetedTemplate, plugin(train_generator(make(), [])))
    refused(budgeted, stream, message)  # before the experiences that it can be trained on
    plain = solver_in(Naive, plugin(train_generator(make(), [])))
    plain.train(stream[:misfit], eval_streams=[])
    refused(plain, stream[misfit], message)


def test_a_check_of_the_generator_does_not_change_the_random_state():
    class Drawn(Dataset):
        """One image, as by transforms that draw."""

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.rand(SHAPE), 0

    replay = GenerativeReplayPlugin(train_generator(tiny(), []))
    state = torch.get_rng_state()
    replay.check_experience(SimpleNamespace(dataset=Drawn(), current_experience=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("eval_every", [-1, 0])
def test_a_solvers_generator_is_evaluated_when_it_asks_for_it(classes, eval_every):
    evaluator = EvaluationPlugin(fid_metrics(features=Pixels(), sampling=SAMPLING))
    model = tiny()
    generator = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        train_steps=1,
        eval_every=eval_every,
        evaluator=evaluator,
    )
    solver = SmallCNN(SHAPE, 4)
    SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        replay=SoftGenerativeReplayPlugin(generator),
        train_steps=1,
        evaluator=None,
    ).train(classes.train_stream[:2], eval_streams=[classes.test_stream])
    assert (FID in evaluator.get_last_metrics()) is (eval_every == 0)
