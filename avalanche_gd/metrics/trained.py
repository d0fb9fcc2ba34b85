"""Which experiences a strategy was trained on, and which of a stream count for it."""

from collections import Counter
from collections.abc import Iterable, Sized
from itertools import chain
from typing import Any, NamedTuple

from avalanche.benchmarks.scenarios.generic_scenario import CLScenario

from avalanche_gd.data.model_space import dataset_classes


class StreamKey(NamedTuple):
    """What identifies a stream, across benchmarks."""

    owner: Any
    """Its benchmark; or, if it knows none, the stream itself. Kept alive by this key."""
    name: str

    @property
    def knows_benchmark(self) -> bool:
        """Whether the owner is a benchmark."""
        return isinstance(self.owner, CLScenario)

    def with_owner(self, owner: Any) -> "StreamKey":
        """The stream of this name of another owner."""
        return self._replace(owner=owner)


class ExperienceKey(NamedTuple):
    """What identifies an experience."""

    stream: StreamKey
    place: int
    """Its index in the stream."""

    @property
    def owner(self) -> Any:
        """The owner of its stream."""
        return self.stream.owner

    def with_owner(self, owner: Any) -> "ExperienceKey":
        """The experience at this place of a stream of another owner."""
        return self._replace(stream=self.stream.with_owner(owner))


class Counted(NamedTuple):
    """An evaluated experience that was trained on."""

    classes: frozenset[int]
    """Its classes."""
    begins: int
    """After how many experiences one of its classes was trained on."""
    after: int
    """After how many experiences it started to count."""
    number: int
    """How many experiences of the training stream that belongs to it were trained on."""
    training: StreamKey
    """The training stream that belongs to its stream."""


Layout = tuple[frozenset[int], ...]
"""The classes of each experience of a stream."""


class TrainedExperiences:
    """The experiences that a strategy was trained on, and the evaluated ones that count.

    A piece of an online stream stands for the experience that it was cut from. An evaluated
    stream belongs to a training stream, one to one, if they have the same number of
    experiences, and those at the same place have a class in common (if they have labels).
    Then an evaluated experience counts once the training experience at its place was
    trained on, and all its classes were. This is the case for class-incremental and
    domain-incremental streams with one test experience for each training experience. In all
    other streams, such as a single test experience, only the classes decide.

    Streams of one benchmark belong to each other. If the benchmark of an evaluated stream
    was not trained on, or the stream knows none (as from some of Avalanche's builders), it
    is compared with the training streams that know no benchmark, or if there are none, with
    all of them.

    A copy of a strategy, also by pickle, has copies of its benchmarks. In it, a benchmark
    with a stream of the same name, with the same classes and numbers of images, takes the
    place of its copy.
    """

    def __init__(self) -> None:
        self._classes: dict[ExperienceKey, frozenset[int]] = {}  # in order of training
        self._layouts: dict[StreamKey, Layout | None] = {}
        self._copies: list[Any] = []  # of benchmarks, or of streams that know none
        self._alone: dict[ExperienceKey, None] = {}  # trained on alone, the last one last
        self.repeats = False
        """True if an experience was trained on again after another one."""
        self.begins_late = False
        """True if the strategy was trained on others before the first that is known."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Note in a copy that it has copies of benchmarks."""
        vars(self).update(state)
        self._copies = list({id(key.owner): key.owner for key in self._layouts}.values())

    def add(self, experience: Any, *, alone: bool = False) -> None:
        """Note an experience that is trained on.

        :param alone: True if it is the one that a training is of, and not one of several.
        """
        whole = origin(experience)
        key = experience_key(whole)
        if alone:
            self.repeats |= key in self._alone and key != next(reversed(self._alone))
            self._alone.pop(key, None)
            self._alone[key] = None
        self._layout(key.stream)  # now: a lazy stream may drop its experiences
        self._classes.setdefault(key, dataset_classes(whole.dataset))

    @property
    def tables(self) -> list[dict[Any, Any]]:
        """All that is known of streams and of experiences."""
        return [self._classes, self._layouts, self._alone]

    def copy_of(self, stream: StreamKey) -> Any:
        """The copied owner that is like the owner of a stream, which it replaces; or None.

        :raises ValueError: if there are several.
        """
        if any(key.owner is stream.owner for key in self._layouts):
            return None
        alike = [owner for owner in self._copies if _are_alike(owner, stream)]
        if len(alike) > 1:
            raise ValueError(
                f"this copy of a strategy was trained on {len(alike)} benchmarks like that "
                f"of the stream {stream.name}; copy or pickle the benchmarks together with "
                "the strategy, as in copy.deepcopy((strategy, benchmarks)), and go on with "
                "those"
            )
        self._copies = [owner for owner in self._copies if owner not in alike]
        return alike[0] if alike else None

    def __bool__(self) -> bool:
        return bool(self._classes)

    def counted(self, experience: Any) -> Counted | None:
        """How an evaluated experience counts; None if it does not count.

        :raises ValueError: if its stream fits several training streams that were trained on
            in different parts, and knows no benchmark that would decide.
        """
        whole = origin(experience)
        stream, place = experience_key(whole)
        history, one_to_one = self._history(stream)
        seen: dict[Any, frozenset[int]] = {}  # in order of training
        for key in history:
            one = key.place if one_to_one else key
            seen[one] = seen.get(one, frozenset()) | self._classes[key]
        classes = dataset_classes(whole.dataset)
        after = _all_in_first(classes, list(seen.values()))
        if after is None or (one_to_one and place not in seen):
            return None
        having = [number for number, part in enumerate(seen.values(), 1) if part & classes]
        if one_to_one:
            after = max(after, list(seen).index(place) + 1)
        return Counted(
            dataset_classes(experience.dataset),
            having[0] if having else after,
            after,
            len(seen),
            training=history[0].stream,
        )

    def classes_of(self, stream: StreamKey) -> frozenset[int]:
        """All classes of a stream."""
        return frozenset().union(*(self._layout(stream) or ()))

    def shares_classes(self, stream: StreamKey) -> bool:
        """Whether two experiences of a stream have a class in common."""
        counts = Counter(chain.from_iterable(self._layout(stream) or ()))
        return max(counts.values(), default=0) > 1

    def sharing(self, stream: StreamKey) -> StreamKey | None:
        """The stream two of whose experiences have a class in common; None if none has.

        It is this one, or one that was trained on and belongs to it, but not one to one:
        then an experience of this one may stand for several.
        """
        if self.shares_classes(stream):
            return stream
        history, one_to_one = self._history(stream)
        if one_to_one:
            return None
        return next((k.stream for k in history if self.shares_classes(k.stream)), None)

    def unknown(self, classes: Iterable[int]) -> list[int]:
        """Those of some classes that were not trained on; none where labels lack."""
        parts = self._classes.values()
        if not all(parts):
            return []
        return sorted(frozenset(classes).difference(*parts))

    def learned_of(self, stream: StreamKey) -> frozenset[int]:
        """The classes of a stream that were trained on; none if it has no known end."""
        history, _ = self._history(stream)
        learned = (self._classes[key] for key in history)
        return self.classes_of(stream).intersection(frozenset().union(*learned))

    def _history(self, stream: StreamKey) -> tuple[list[ExperienceKey], bool]:
        """What was trained on that belongs to a stream, and whether it does one to one."""
        own = [key for key in self._classes if key.stream.owner is stream.owner]
        lone = [key for key in self._classes if not key.stream.knows_benchmark]
        pool = own or lone or list(self._classes)
        candidates = list(dict.fromkeys(key.stream for key in pool))
        if stream in candidates:
            partners = [stream]
        else:
            partners = [other for other in candidates if self._go_together(other, stream)]
        if not partners:
            return pool, False
        places = {
            tuple(key.place for key in pool if key.stream == partner)
            for partner in partners
        }
        if not own and len(places) > 1:
            raise ValueError(
                f"{len(partners)} of the streams that were trained on can belong to the "
                f"stream {stream.name}; evaluate one that knows its benchmark, such as one "
                "from to_model_space"
            )
        return [key for key in pool if key.stream in partners], True

    def _go_together(self, one: StreamKey, other: StreamKey) -> bool:
        layouts = self._layout(one), self._layout(other)
        if layouts[0] is None or layouts[1] is None or len(layouts[0]) != len(layouts[1]):
            return False
        pairs = zip(layouts[0], layouts[1], strict=True)
        return all(not a or not b or a & b for a, b in pairs)

    def _layout(self, stream: StreamKey) -> Layout | None:
        if stream not in self._layouts:
            experiences = whole_stream(stream)
            self._layouts[stream] = (
                None
                if experiences is None
                else tuple(dataset_classes(exp.dataset) for exp in experiences)
            )
        return self._layouts[stream]


def rename(table: dict[Any, Any], copy: Any, owner: Any) -> None:
    """Put an owner in the place of its copy in the keys of a table.

    :param table: by :class:`StreamKey` or :class:`ExperienceKey`; changed in place.
    """
    entries = [
        (key.with_owner(owner) if key.owner is copy else key, value)
        for key, value in table.items()
    ]
    table.clear()
    table.update(entries)


def _are_alike(owner: Any, stream: StreamKey) -> bool:
    """True if an owner has a stream of the same name, classes and numbers of images."""
    other = StreamKey(owner, stream.name)
    if other.knows_benchmark != stream.knows_benchmark:
        return False
    names = owner.streams if other.knows_benchmark else [owner.name]
    return stream.name in names and _parts(other) == _parts(stream)


def _parts(stream: StreamKey) -> list[tuple[frozenset[int], int]]:
    """The classes and the number of images of each experience of a stream."""
    datasets = [experience.dataset for experience in whole_stream(stream) or ()]
    return [(dataset_classes(dataset), len(dataset)) for dataset in datasets]


def _all_in_first(classes: frozenset[int], parts: list[frozenset[int]]) -> int | None:
    """The lowest number of parts, from the first on, that have all of the classes."""
    for number, part in enumerate(parts, 1):
        classes -= part
        if not classes:
            return number
    return None


def label_counts(experiences: Iterable[Any]) -> Counter[int]:
    """How many images of each class are in experiences; of those without labels, none."""
    counts: Counter[int] = Counter()
    for experience in experiences:
        counts.update(map(int, getattr(experience.dataset, "targets", ())))
    return counts


def whole_stream(stream: StreamKey) -> Any:
    """All experiences of a stream, also if it is a slice; None if it has no known end."""
    known = stream.knows_benchmark
    found = stream.owner.streams[stream.name] if known else stream.owner
    ends = isinstance(found, Sized) or isinstance(found.exps_iter, Sized)
    return found if ends else None


def experience_key(experience: Any) -> ExperienceKey:
    """The key that identifies an experience.

    :raises ValueError: if it belongs to no stream.
    """
    try:
        stream, place = experience.origin_stream, experience.current_experience
    except AssertionError as error:  # Avalanche's, for an attribute that is not set
        raise ValueError(
            "an experience belongs to no stream; take it from a stream of a benchmark"
        ) from error
    benchmark = getattr(stream, "benchmark", None)
    known = stream.name in getattr(benchmark, "streams", {})
    return ExperienceKey(StreamKey(benchmark if known else stream, stream.name), place)


def known_tests_of(experience: Any) -> StreamKey | None:
    """The test stream of the benchmark that an experience is of; None if it is not known.

    :param experience: one that is trained on, or a piece of one.
    """
    stream = experience_key(origin(experience)).stream
    is_known = stream.knows_benchmark and "test" in stream.owner.streams
    return stream._replace(name="test") if is_known else None


def origin(experience: Any) -> Any:
    """The experience itself; for a piece of an online stream, the one it was cut from.

    :raises ValueError: if it is mixed from several experiences.
    """
    whole = getattr(experience, "origin_experience", experience)
    if whole is None:
        raise ValueError(
            "metrics of generated images need to know which experience a piece was cut "
            "from, but these are mixed from several; use split_online_stream"
        )
    return whole
