"""Count the experiences of a strategy: n, as all plugins use it in their weights."""

from typing import Any

from avalanche.benchmarks.scenarios.online import OnlineCLExperience

_ENDLESS = "the pieces of a stream without ends of experiences"


class ExperienceCount:
    """n = 1, 2, ...: how many experiences a strategy has started to learn.

    - An experience that is trained twice counts twice.
    - One that was interrupted does not count: the next training, of the same experience or
      another, has the same n.
    - The pieces of an online stream with the same ``origin_experience`` count once, until
      another experience comes or its first piece comes again. The origin is known by its
      index, its stream's name and its number of images, so that a copy of a strategy goes
      on with the next piece as the strategy itself does.
    - Pieces without an ``origin_experience`` are refused, except in a plugin that says that
      it needs no ends of experiences. For it, the first thing that a strategy learns is the
      first experience, and the pieces after it are the second.

    All plugins of a strategy share one count with :meth:`of`; the first plugin that begins
    or ends an experience does so for all.
    """

    def __init__(self) -> None:
        self.number = 0
        """n of the experience in training or, between experiences, of the last one."""
        self._is_in_training = False
        self._has_learned = False  # at least one piece of it was trained to its end
        self._origin: Any = None  # names that of its pieces; None for a whole experience
        self._is_further_piece = False
        self.known: Any = None
        """What a guidance knows of the classes that the strategy has learned."""
        self.further_pieces = 0
        """Pieces that Avalanche's clock counts as experiences, but n does not."""

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

    def begin(self, strategy: Any, *, endless: bool = False) -> None:
        """Count the experience that begins, unless it continues the one before.

        :param endless: True if a piece of an online stream without an origin experience is
            allowed.
        :raises ValueError: for such a piece, unless it is allowed.
        """
        if endless and is_endless(strategy.experience):
            is_first = strategy.clock.train_exp_counter == 0
            origin: Any = None if is_first else _ENDLESS
        else:
            whole, is_first = _origin(strategy.experience)
            origin = None if whole is None else _name(whole)
        is_same = origin == self._origin
        if self._is_in_training:  # another plugin began it, or it was interrupted
            goes_on = is_same or not self._has_learned
        else:
            goes_on = origin is not None and is_same and not is_first
            self._is_further_piece = goes_on
        if not goes_on:
            # The clock knows what was learned while no plugin counted.
            learned = strategy.clock.train_exp_counter - self.further_pieces
            self.number = 1 + max(self.number, learned)
            self._has_learned = self._is_further_piece = False
        self._is_in_training, self._origin = True, origin

    def end(self) -> None:
        """Note that the experience, or a piece of it, was trained to its end."""
        self.further_pieces += self._is_in_training and self._is_further_piece
        self._is_in_training, self._has_learned = False, True


def experience_number(strategy: Any) -> int:
    """n = 1, 2, ... of the experience in training, as :class:`ExperienceCount` counts."""
    return ExperienceCount.of(strategy).number


def is_endless(experience: Any) -> bool:
    """True for a piece of an online stream without an origin experience."""
    is_piece = isinstance(experience, OnlineCLExperience)
    return is_piece and experience.logging().origin_experience is None


def whole_experience(experience: Any) -> Any:
    """The experience that a piece of an online stream belongs to; else the experience.

    :raises ValueError: for a piece without an origin experience.
    """
    origin, _ = _origin(experience)
    return experience if origin is None else origin


def _name(experience: Any) -> tuple[Any, Any, int]:
    """What an experience has in common with its copies, and with no other of its stream."""
    known = experience.logging()  # it may be of no stream, and then has no index
    stream = getattr(known._origin_stream, "name", None)
    return stream, known._current_experience, len(known.dataset)


def _origin(experience: Any) -> tuple[Any, bool]:
    """The origin of a piece and whether it is the first one; None if it is not a piece."""
    if not isinstance(experience, OnlineCLExperience):
        return None, True
    piece = experience.logging()  # here the origin is not hidden
    if piece.origin_experience is None:
        raise ValueError(
            "the experiences of this online stream have no origin_experience, by which "
            "experiences are counted; make the stream with split_online_stream, or distil "
            'with teacher_ema_decay= and weighting="constant"'
        )
    return piece.origin_experience, piece.is_first_subexp
