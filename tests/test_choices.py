"""Names of options: what is none of them is refused by name, also what is no text."""

import pytest

from avalanche_gd import (
    ClassifierGuidance,
    DenoisingLoss,
    DiffusionModel,
    Execution,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    Sampling,
    SplitFMNIST,
)
from avalanche_gd.data.idx_files import FITS
from avalanche_gd.models.classifier import CLASSIFIERS, classifier
from avalanche_gd.models.execution import PRECISIONS
from avalanche_gd.models.sampler import SAMPLERS
from avalanche_gd.models.scheduler import PROCESSES, scheduler_of
from avalanche_gd.models.unet import PRESETS
from avalanche_gd.plugins.guidance import TOWARDS
from avalanche_gd.plugins.lesson import POOLS
from avalanche_gd.plugins.rank1_ewc import CONTROLS
from avalanche_gd.plugins.replay import LABELS
from avalanche_gd.plugins.teacher import WEIGHTINGS

CHOICES = {
    "reduction": (lambda name: DenoisingLoss(name), ["mean", "none"]),
    "precision": (lambda name: Execution(precision=name), PRECISIONS),
    "preset": (lambda name: DiffusionModel.from_preset(name), PRESETS),
    "process": (scheduler_of, PROCESSES),
    "sampler": (lambda name: Sampling(sampler=name), SAMPLERS),
    "solver architecture": (lambda name: classifier(name, (1, 8, 8), 2), CLASSIFIERS),
    "fit": (lambda name: SplitFMNIST(fit=name), FITS),
    "guidance towards": (lambda name: ClassifierGuidance(towards=name), TOWARDS),
    "pool of": (lambda name: GenerativeDistillationPlugin(pool_of=name), POOLS),
    "weighting": (lambda name: GenerativeDistillationPlugin(weighting=name), WEIGHTINGS),
    "labels": (lambda name: GenerativeReplayPlugin(labels=name), LABELS),
    "control": (lambda name: RankOneEWCPlugin(control=name), CONTROLS),
}


@pytest.mark.parametrize("bad", ["", "none of them", ["mean"], 0, True], ids=repr)
@pytest.mark.parametrize("what", CHOICES)
def test_what_is_none_of_the_names_is_refused(what, bad):
    make, known = CHOICES[what]
    with pytest.raises(ValueError) as error:
        make(bad)
    message = str(error.value)
    assert message.startswith(f"no {what} {bad!r}; choose from ") and "\n" not in message
    assert all(name in message for name in known)
