import copy
import io
from collections import Counter

import pytest
import torch

from avalanche_gd.distributed.shares import sharing
from avalanche_gd.runs.passes import PassCounter, images_passed
from tests.helpers.small_models import images

BATCH = 4


@pytest.fixture
def counter(tiny_model):
    return PassCounter(tiny_model, BATCH)


def begin(counter, name):
    """What an experience of a model's training begins with."""
    counter.plugin(name).before_training_exp(None)


def test_passes_are_counted_by_their_size_and_the_backward_passes_that_follow(
    counter, tiny_model
):
    begin(counter, "generator")
    loss = tiny_model(images(5)).prediction.square().mean()
    tiny_model.generate(3, steps=2)
    torch.autograd.grad(loss, list(tiny_model.parameters()), retain_graph=True)
    loss.backward()
    copy.deepcopy(tiny_model)(images(4))
    (passes,) = counter.passes["generator"]
    assert passes == Counter({(5, 2): 1, (3, 0): 2, (4, 0): 1})
    assert images_passed(passes) == 5 * (1 + 2 + 2) + 2 * 3 + 4
    cost = {"F_per_step": 35 / 4 / 7, "F_total": 35 / 4, "F_total_solver": 0}
    assert counter.summary(7) == cost


def test_passes_belong_to_the_training_and_the_experience_they_were_made_in(
    counter, tiny_model
):
    begin(counter, "solver")
    late = tiny_model(images(1)).prediction.mean()
    begin(counter, "generator")
    tiny_model(images(2))
    begin(counter, "generator")
    tiny_model(images(3))
    late.backward()
    counter.training = None
    tiny_model(images(4)).prediction.mean().backward()
    assert counter.passes["solver"] == [Counter({(1, 1): 1})]
    assert counter.passes["generator"] == [Counter({(2, 0): 1}), Counter({(3, 0): 1})]


def test_the_passes_of_processes_that_share_a_batch_are_those_of_all(counter, tiny_model):
    begin(counter, "generator")
    with sharing(1, 2):
        tiny_model(images(2)).prediction.mean().backward()
    assert counter.summary(1)["F_total"] == 3


def test_the_passes_can_be_kept_in_a_checkpoint(counter, tiny_model):
    begin(counter, "generator")
    tiny_model(images(4)).prediction.mean().backward()
    file = io.BytesIO()
    torch.save(counter.passes, file)
    other = PassCounter(tiny_model, BATCH)
    other.passes = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    begin(other, "generator")
    tiny_model(images(4))
    assert other.summary(1) == {"F_per_step": 1, "F_total": 4, "F_total_solver": 0}
