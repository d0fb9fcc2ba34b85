"""Count the experiences of a strategy: n, as all plugins use it in their weights."""

from typing import Any

from avalanche.benchmarks.scenarios.online import OnlineCLExperience


class ExperienceCount:
    """n = 1, 2, ...: how many experiences a strategy has started to learn.

    - An experience that is trained twice counts twice.
    - One that was interrupted does not count: the next training, of the same experience or
      another, has the same n.
    - The pieces of an online stream with the same ``origin_experience`` count once, until
      another experience comes or its first piece comes again.

    All plugins of a strategy share one count with :meth:`of`; the first plugin that begins
    or ends an experience does so for all.
    """

    def __init__(self) -> None:
        self.number = 0
        """n of the experience in training or, between experiences, of the last one."""
        self._is_in_training = False
        self._has_learned = False  # at least one piece of it was trained to its end
        self._origin: Any = None  # of its pieces; None for a whole experience
        self._is_further_piece = False
        self._further_pieces = 0  # counted by Avalanche's clock, but not by n

    @classmethod
    def of(cls, strategy: Any) -> "ExperienceCount":
        """The count of a strategy, which lives as long as the strategy does."""
        if not hasattr(strategy, "_experience_count"):
            strategy._experience_count = cls()
        return strategy._experience_count

    @property
    def is_in_pieces(self) -> bool:
        """Whether more pieces of the last experience may come."""
        return self._origin is not None

    def begin(self, strategy: Any) -> None:
        """Count the experience that begins, unless it continues the one before.

        :raises ValueError: for a piece of an online stream without an origin experience.
        """
        origin, is_first = _origin(strategy.experience)
        is_same = origin is self._origin
        if self._is_in_training:  # another plugin began it, or it was interrupted
            goes_on = is_same or not self._has_learned
        else:
            goes_on = origin is not None and is_same and not is_first
            self._is_further_piece = goes_on
        if not goes_on:
            # The clock knows what was learned while no plugin counted.
            learned = strategy.clock.train_exp_counter - self._further_pieces
            self.number = 1 + max(self.number, learned)
            self._has_learned = self._is_further_piece = False
        self._is_in_training, self._origin = True, origin

    def end(self) -> None:
        """Note that the experience, or a piece of it, was trained to its end."""
        self._further_pieces += self._is_in_training and self._is_further_piece
        self._is_in_training, self._has_learned = False, True


def experience_number(strategy: Any) -> int:
    """n = 1, 2, ... of the experience in training, as :class:`ExperienceCount` counts."""
    return ExperienceCount.of(strategy).number


def whole_experience(experience: Any) -> Any:
    """The experience that a piece of an online stream belongs to; else the experience.

    :raises ValueError: for a piece without an origin experience.
    """
    origin, _ = _origin(experience)
    return experience if origin is None else origin


def _origin(experience: Any) -> tuple[Any, bool]:
    """The origin of a piece and whether it is the first one; None if it is not a piece."""
    if not isinstance(experience, OnlineCLExperience):
        return None, True
    piece = experience.logging()  # here the origin is not hidden
    if piece.origin_experience is None:
        raise ValueError(
            "the experiences of this online stream have no origin_experience, which the "
            "weights of replay need; make the stream with split_online_stream"
        )
    return piece.origin_experience, piece.is_first_subexp
