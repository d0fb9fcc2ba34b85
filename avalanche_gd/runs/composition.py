"""Compose the settings of a run with Hydra."""

import copy
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from avalanche_gd.runs.checking import check_config, check_kinds, check_used
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import several_choices
from avalanche_gd.runs.identity import flatten
from avalanche_gd.runs.overrides import folder_as_typed


def method_names() -> list[str]:
    """All methods in ``conf/method``, except those that need a setting."""
    paths = files("avalanche_gd.conf").joinpath("method").iterdir()
    own = [path for path in paths if path.name.endswith(".yaml")]
    return sorted(p.name.removesuffix(".yaml") for p in own if "???" not in p.read_text())


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """Compose and check the settings of a run, from overrides of the defaults.

    :param overrides: Hydra's, such as ``["benchmark=split_digits", "seed=1"]``.
    :raises ValueError: for a value that is not allowed; the message says what is.
    """
    typed = [folder_as_typed(override) for override in overrides]
    with initialize_config_module("avalanche_gd.conf", version_base="1.3"):
        return read_config(compose("config", typed, return_hydra_config=True))


def read_config(composed: DictConfig) -> RunConfig:
    """Check the settings that Hydra composed.

    :raises ValueError: for a value that is not allowed; the message says what is.
    """
    content: Any = OmegaConf.to_container(composed)
    hydra: Any = content.pop("hydra", None) or HydraConfig.get()
    for group in ("model", "benchmark", "method", "experiment"):
        if group not in hydra["runtime"]["choices"]:  # several were merged into one
            raise ValueError(several_choices(group))
    check_kinds(RunConfig, content)
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), content)
    check_used(content, hydra["overrides"]["task"])
    resolved = copy.deepcopy(merged)  # twice would resolve what an escape left, \${NAME}
    OmegaConf.resolve(resolved)
    open_keys = {name for name, value in flatten(content).items() if value == "???"}
    if missing := sorted(OmegaConf.missing_keys(resolved) | open_keys):
        given = " ".join(f"{name}=VALUE" for name in missing)
        raise ValueError(f"no value for {' and '.join(missing)}; give {given}")
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    check_config(config)
    return config
