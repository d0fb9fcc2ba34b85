"""What a metric remembers of a strategy, from one evaluation to the next."""

from dataclasses import dataclass, field

from avalanche_gd.metrics.summary import Qualities
from avalanche_gd.metrics.trained import StreamKey


@dataclass
class Measured:
    """FID by experience, as it was measured on a strategy so far."""

    qualities: dict[StreamKey, Qualities] = field(default_factory=dict)
    after: dict[StreamKey, dict[int, int]] = field(default_factory=dict)
    """By place: after how many experiences it started to count."""
    loaded: dict[str, Qualities] = field(default_factory=dict)
    """From a checkpoint, by the name of a stream that was not evaluated since."""
    is_used: bool = False
    """True if a strategy has it."""
