"""The command ``avalanche-gd-evaluate``: which sampler and how many steps are enough."""
