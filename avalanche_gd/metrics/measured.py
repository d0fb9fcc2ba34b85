"""What a metric remembers of a strategy, from one evaluation to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from avalanche_gd.metrics.summary import Qualities
from avalanche_gd.metrics.trained import Counted, ExperienceKey, StreamKey


@dataclass
class Measured:
    """FID by experience, as it was measured on a strategy so far."""

    qualities: dict[StreamKey, Qualities] = field(default_factory=dict)
    after: dict[StreamKey, dict[int, int]] = field(default_factory=dict)
    """By place: after how many experiences it started to count."""
    models: dict[StreamKey, dict[int, Any]] = field(default_factory=dict)
    """By the number of experiences: what tells its model from others."""
    loaded: dict[str, Qualities] = field(default_factory=dict)
    """From a checkpoint, by the name of a stream that was not evaluated since."""
    is_used: bool = False
    """True if a strategy has it."""

    def of(self, stream: StreamKey) -> Qualities:
        """All that was measured on a stream, to be extended."""
        if stream not in self.qualities:
            self.qualities[stream] = self.loaded.pop(stream.name, {})
        return self.qualities[stream]

    def by_name(self) -> dict[str, Qualities]:
        """All that was measured, by the name of the stream, for a checkpoint.

        :raises ValueError: if two benchmarks have streams of the same name.
        """
        names = [stream.name for stream in self.qualities]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two streams have the same name, {', '.join(sorted(names))}, and cannot "
                "be told apart in a checkpoint; evaluate one benchmark per strategy"
            )
        return self.loaded | {stream.name: q for stream, q in self.qualities.items()}

    def add(
        self,
        counted: Mapping[ExperienceKey, Counted],
        distances: Mapping[int, float],
        model: Any,
    ) -> Qualities:
        """Add the distances of an evaluation; return all that was measured on its stream.

        The experiences may be evaluated one by one, as long as the model is the same.

        :param counted: the evaluated experiences that were trained on, all of one stream.
        :param distances: FID by the place of an experience.
        :param model: what tells the model from others; equal for the same one.
        """
        first, of_first = next(iter(counted.items()))
        stream, number = first.stream, of_first.number
        qualities = self.of(stream)
        models = self.models.setdefault(stream, {})
        if models.setdefault(number, model) != model:  # trained further, or loaded
            qualities[number], models[number] = {}, model
        qualities.setdefault(number, {}).update(distances)
        return qualities

    def counts_after(self, counted: Mapping[ExperienceKey, Counted]) -> dict[int, int]:
        """By place: after how many experiences an evaluated experience started to count.

        Of the evaluated stream, also of experiences from earlier evaluations. Those that a
        checkpoint has and that were not evaluated since stand one after another.

        :param counted: as in :meth:`add`.
        """
        stream = next(iter(counted)).stream
        after = self.after.setdefault(stream, {})
        after |= {key.place: one.after for key, one in counted.items()}
        measured = chain.from_iterable(self.of(stream).values())
        return {place: place + 1 for place in measured} | after
