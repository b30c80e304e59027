"""Marks of tests whose networks or examples make Secateur warn; any other warning is an error (pyproject.toml)."""

import pytest

unread_targets = pytest.mark.filterwarnings("ignore:targets are left out, as no criterion needs them:UserWarning")
"""A network of the zoo, with targets for another loss than the default one."""

untrained_networks = pytest.mark.filterwarnings(
    r"ignore:\w+ was left out. it did not bring the cut network nearer:UserWarning",
    r"ignore:\w+ fits the examples used much better:UserWarning",
    "ignore:adapt was left out. the examples give:UserWarning",
    "ignore:.* is refitted with care only:UserWarning",
)
"""Networks with random weights that are repaired, most of them by few examples.

A repair of such a network may fit nothing that holds for other examples. Rounding decides whether it does, and so the
machine. A module whose tests repair such networks therefore carries the mark as a whole (`pytestmark`).
"""
