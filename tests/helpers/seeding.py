"""That nothing is seeded but generators of one's own."""

import pytest


def forbid_seeding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every function of torch fail that seeds devices, asked for or not."""
    for name in ("manual_seed", "seed"):
        for place in ("torch", "torch.random", "torch.cuda", "torch.cuda.random"):
            monkeypatch.setattr(f"{place}.{name}", None)
    for place in ("torch.cuda", "torch.cuda.random"):
        for name in ("manual_seed_all", "seed_all"):
            monkeypatch.setattr(f"{place}.{name}", None)
