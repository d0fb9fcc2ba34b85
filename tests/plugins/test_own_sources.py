"""A source of one's own: what it draws is checked when it is drawn."""

import pytest
import torch

from avalanche_gd import GenerativeDistillationPlugin
from avalanche_gd.functional import Taught, draw
from tests.helpers.small_models import SHAPE, conditioned, images, tiny

LAST = torch.full((4,), 999)


class Own:
    """Draws by a function of the request."""

    def __init__(self, how):
        self.draw = how


def by_hand(request, **changes):
    return request.noised(request.current)._replace(**changes)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda r: None, "Own.draw must return what .* a Taught, not a NoneType"),
        (lambda r: tuple(r.noised(r.current)), "a Taught, not a tuple"),
        (lambda r: r.current, "a Taught, not a Tensor"),
    ],
    ids=["nothing", "tuple", "tensor"],
)
def test_what_is_not_taught_is_refused(how, message):
    with pytest.raises(TypeError, match=message):
        draw(Own(how), tiny(), 4, current=images(4))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            lambda r: r.noised(r.current[:3]),
            "must draw 4 float images .*, got .*3",
        ),
        (lambda r: r.retrained(r.current[..., :2]), "must draw 4 float images of shape"),
        (lambda r: r.noised(r.current.long()), "must draw 4 float images .* torch.int64"),
        (lambda r: r.taught(r.current[..., :2], LAST), "must draw 4 float images of shape"),
        (lambda r: r.taught(r.current, LAST + 1), "from 0 to T - 1 = 999, got 1000"),
        (lambda r: r.taught(r.current, LAST - 1000), "from 0 to T - 1 = 999, got -1"),
        (lambda r: r.taught(r.current, LAST[:1]), "timesteps must be 4 integers"),
        (lambda r: r.taught(r.current, LAST / 2), "must be 4 integers, got torch.float32"),
        (lambda r: by_hand(r, timesteps=LAST * 2), "from 0 to T - 1 = 999, got 1998"),
        (lambda r: by_hand(r, target=r.current[:, :0]), "targets of shape .* one for each"),
        (lambda r: by_hand(r, condition=LAST), "drew a condition, but .* is None"),
    ],
    ids=[str(number) for number in range(11)],
)
def test_what_a_student_cannot_be_taught_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        draw(Own(how), tiny(), 4, current=images(4))


def test_a_condition_is_as_the_teacher_has_it():
    teacher = conditioned(seen=(0, 1))
    for condition, message in (
        (None, "drew no condition, but the teacher's num_classes is 10"),
        (LAST[:2], "a condition of shape .* for 4 images"),
    ):
        source = Own(lambda r, c=condition: by_hand(r, condition=c))
        with pytest.raises(ValueError, match=message):
            draw(source, teacher, 4, current=images(4))


def test_what_is_made_by_hand_is_taught():
    taught = Taught(images(4), LAST, images(4), None)
    assert draw(Own(lambda request: taught), tiny(), 4) is taught
    assert taught.x_t.shape[1:] == SHAPE


def test_a_class_in_the_place_of_a_source_is_refused():
    with pytest.raises(TypeError, match=r"not a class; give Own\(\.\.\.\)"):
        GenerativeDistillationPlugin(source=Own)
