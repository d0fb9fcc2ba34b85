"""Hydra's configuration: a folder a group, a file a choice."""
