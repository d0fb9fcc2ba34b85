"""Which experience a strategy is in: n, as the weights of all plugins count it."""

from typing import Any

from avalanche.benchmarks.scenarios.online import OnlineCLExperience


class ExperienceCount:
    """n = 1, 2, ...: the experiences that a strategy has begun to learn.

    - An experience that is trained twice counts twice.
    - One that was interrupted does not count: what is trained next, be it the same
      experience or another, has the same n.
    - The pieces of an online stream with the same ``origin_experience`` count once, until
      another experience comes or the first of them comes again.

    All plugins of a strategy share one count with :meth:`of`; the first that begins or
    ends an experience does so for all.
    """

    def __init__(self) -> None:
        self.number = 0
        """n of the experience in training or, between experiences, of the last one."""
        self._is_in_training = False
        self._has_learned = False  # at least one piece of it to its end
        self._origin: Any = None  # of its pieces; None of a whole experience
        self._is_further_piece = False
        self._further_pieces = 0  # that Avalanche's clock counts, and n does not

    @classmethod
    def of(cls, strategy: Any) -> "ExperienceCount":
        """The count of a strategy, which lives as long as the strategy does."""
        if not hasattr(strategy, "_experience_count"):
            strategy._experience_count = cls()
        return strategy._experience_count

    @property
    def is_in_pieces(self) -> bool:
        """Whether more of the last experience may come."""
        return self._origin is not None

    def begin(self, strategy: Any) -> None:
        """Count the experience that begins, unless it goes on with the one before.

        :raises ValueError: for a piece of an online stream without an origin experience.
        """
        origin, is_first = _origin(strategy.experience)
        is_same = origin is self._origin
        if self._is_in_training:  # for another plugin, or it was interrupted
            goes_on = is_same or not self._has_learned
        else:
            goes_on = origin is not None and is_same and not is_first
            self._is_further_piece = goes_on
        if not goes_on:
            # The clock knows what was learned while there was no plugin to count.
            learned = strategy.clock.train_exp_counter - self._further_pieces
            self.number = 1 + max(self.number, learned)
            self._has_learned = self._is_further_piece = False
        self._is_in_training, self._origin = True, origin

    def end(self) -> None:
        """Note that the experience, or a piece of it, is trained to its end."""
        self._further_pieces += self._is_in_training and self._is_further_piece
        self._is_in_training, self._has_learned = False, True


def experience_number(strategy: Any) -> int:
    """n = 1, 2, ... of the experience in training, as :class:`ExperienceCount` counts."""
    return ExperienceCount.of(strategy).number


def whole_experience(experience: Any) -> Any:
    """What a piece of an online stream is a piece of; another experience itself.

    :raises ValueError: for a piece without an origin experience.
    """
    origin, _ = _origin(experience)
    return experience if origin is None else origin


def _origin(experience: Any) -> tuple[Any, bool]:
    """What a piece is a piece of, and whether it is the first; None for no piece."""
    if not isinstance(experience, OnlineCLExperience):
        return None, True
    piece = experience.logging()  # in which the origin is not hidden
    if piece.origin_experience is None:
        raise ValueError(
            "the experiences of this online stream have no origin_experience, by which "
            "replay is weighted; make it with split_online_stream"
        )
    return piece.origin_experience, piece.is_first_subexp
