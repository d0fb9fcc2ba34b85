"""Imports qpsolvers, which Avalanche needs for GEM, without its warning.

It warns of a missing solver whatever the method. What needs one,
:class:`~avalanche_gd.plugins.baselines.GEMPlugin`, says itself what to install.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "no QP solver found")
    import qpsolvers  # noqa: F401
