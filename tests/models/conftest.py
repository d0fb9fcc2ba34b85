"""What tests of samplers share."""

import logging

import pytest


@pytest.fixture
def quiet_schedulers():
    """Some schedulers say at each use what they change in their configuration."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
