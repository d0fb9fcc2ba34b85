"""The command ``avalanche-gd-evaluate``: find a sampler and the steps that are enough."""
