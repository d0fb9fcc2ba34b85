"""How much training on one experience helps with earlier and later ones."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from avalanche_gd.data.images import DatasetImages
from avalanche_gd.metrics.feature_metric import FeatureChoice
from avalanche_gd.metrics.fid import FID
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages, generate_samples
from avalanche_gd.metrics.summary import transfer_summary
from avalanche_gd.metrics.trained import (
    Counted,
    ExperienceKey,
    experience_key,
    known_tests_of,
    origin,
    whole_stream,
)
from avalanche_gd.models.conditioning import PassHooks


class FIDTransfer(FID):
    """See :func:`fid_transfer_metrics`."""

    def __init__(self, sampling: Sampling, choice: FeatureChoice):
        super().__init__(
            sampling, choice, experience=True, stream=False, summary=False, afid=False
        )
        self.value_names = frozenset({"FID_BackwardTransfer"})

    def before_training_exp(self, strategy: Any) -> None:
        """Measure the next experience; before any training, the whole test stream."""
        super().before_training_exp(strategy)
        stream = known_tests_of(strategy.experience)
        if stream is None or SharedImages.of(strategy).trained.sharing(stream):
            return
        tests = whole_stream(stream) or ()
        counted = [SharedImages.of(strategy).trained.counted(test) for test in tests]
        number = max((one.number for one in counted if one), default=1) - 1
        if strategy.clock.train_exp_counter == 0:  # also of several experiences at once
            number = 0
        qualities = self._measured.of(stream)
        known = qualities.get(number, {})
        ahead = {
            place: tests[place]
            for place, one in enumerate(counted)
            if place not in known and (number == 0 or (one and one.begins > number))
        }
        if not ahead:  # a further piece, or an experience that was trained on before
            return
        model = strategy.model
        every = range(getattr(model, "num_classes", None) or 0) if number == 0 else None
        hooks: PassHooks = getattr(model, "pass_hooks", None) or PassHooks()
        with hooks.silent():  # training does not cost what a metric does
            images, _ = generate_samples(model, self.sampling, classes=every)
        training = experience_key(origin(strategy.experience)).stream
        unseen = Counted(frozenset(), 0, 0, 0, training)
        extractor = self.choice.extractor_for(strategy, unseen)
        generated = self.features(strategy, extractor, images)
        for place, test in ahead.items():
            real = self._real_of(strategy, extractor, test)
            known[place] = frechet_distance(real, generated)
        qualities[number] = known

    def _real_of(self, strategy: Any, extractor: Any, experience: Any) -> Moments:
        """The moments of an experience that may not have been evaluated yet."""
        key = experience_key(experience), extractor
        if key not in self._real:
            images = DatasetImages([experience.dataset.eval()])
            # As an evaluation reads them, so that a run that goes on has the same bits.
            for part in torch.arange(len(images)).split(strategy.eval_mb_size):
                batch = images[part].to(strategy.device)
                kept = self.kept(self.features(strategy, extractor, batch))
                self._real[key] = self._real[key] + kept if key in self._real else kept
        return self._real[key]

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """The transfer so far."""
        if not (self.tells_apart(strategy, self._whole) and self.compares(strategy)):
            return {}
        distances = self.distances(strategy, experiences)
        qualities, after = self.measured(strategy, distances)
        if not self.has_all(strategy, qualities, after):
            return {}
        summary = transfer_summary(qualities, after)
        names = ("Backward", "Forward")
        return {f"FID_{name}Transfer": summary.get(name, float("nan")) for name in names}


def fid_transfer_metrics(
    *,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """Backward and forward transfer of FID between experiences.

    They are logged as ``FID_BackwardTransfer/eval_phase/test_stream`` and
    ``FID_ForwardTransfer/...``: see :func:`~avalanche_gd.metrics.transfer_summary`; above 0
    is good. They are NaN after the first experience, or if nothing can be compared. FID on
    an experience that was trained on uses the generated images of its classes. On one that
    was not trained on yet, it is with all of them: how close the model comes to it without
    training. That is measured when training begins: before the first experience on the
    whole test stream, later on the next experience. Evaluate after each experience, on all
    that were trained on; of a part there is no value, and a warning. One
    whose classes are trained on in several experiences has no forward transfer. There is no
    value where two experiences of the stream share a class, or once one is trained on
    again, as in ``fid_metrics``.

    Forward transfer is measured on the ``test_stream`` of the benchmark that is trained on,
    if its streams know it, as those of :func:`~avalanche_gd.to_model_space` do. It costs as
    many images again in each experience. A conditioned model is asked before any training
    for all of its classes.

    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: for this and for ``weights_path``, ``oracle`` and ``benchmark`` see
        :func:`~avalanche_gd.metrics.fid_metrics`.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: as in ``fid_metrics``.
    :raises TypeError: as in ``fid_metrics``.
    """
    choice = FeatureChoice.of(features, weights_path, oracle, benchmark)
    return [FIDTransfer(sampling or Sampling(), choice)]
