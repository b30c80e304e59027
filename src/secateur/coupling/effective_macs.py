"""Effective MACs: the multiplications of kernels that work on several channels at once, used or not."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.coupling.network import Kept, Network

SINGLE = ("heads", "head width", "experts", "bundles", "blocks")
"""Kinds of units of which some axes hold one entry for each: their number is no width of a kernel."""


@dataclass(frozen=True)
class EffectiveMacs:
    """MACs for one example with channels counted up to multiples of a step.

    Args:
        step: the number of channels that a kernel works on at once.
        dense: the MACs of the whole network.
        kept: the MACs of the kept units.
    """

    step: int
    dense: int
    kept: int


def effective_macs(network: Network, kept: Kept, step: int) -> EffectiveMacs:
    """Return the effective MACs of a network, as it is and with only these units kept.

    Examples:
        >>> import secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> effective_macs(network, {"0": torch.arange(17)}, 16) == EffectiveMacs(16, 192, 192)
        True
        >>> effective_macs(network, {"0": torch.arange(16)}, 16).kept
        96
    """
    flags = iter(channel_axes(network, [units for term in network.work for units in term.axes]))
    rounded_axes = [list(itertools.islice(flags, len(term.axes))) for term in network.work]
    masks = (network.mask({}), network.mask(kept))
    return EffectiveMacs(step, *(_count_macs(network, mask, rounded_axes, step) for mask in masks))


def channel_axes(network: Network, axes: Sequence[Tensor]) -> list[bool]:
    """Return for each axis of an operator whether its entries are channels of a kernel, of which some may be cut.

    Args:
        network: the network.
        axes: the units along each axis, -1 where there is none (entries,).
    """
    is_width = torch.zeros(len(network.mask({})), dtype=torch.bool)  # (units + 1,)
    for group in network.groups:
        is_width[group.span] = group.kind not in SINGLE
    units_by_axis = (axis[axis >= 0] for axis in axes)
    return [bool(is_width[units].any()) or len(torch.unique(units)) < len(units) for units in units_by_axis]


def _count_macs(network: Network, mask: Tensor, rounded_axes: list[list[bool]], step: int) -> int:
    macs = 0.0
    for term, flags in zip(network.work, rounded_axes, strict=True):
        counts = (int(mask[axis].sum()) for axis in term.axes)
        up = (math.ceil(count / step) * step if is_up else count for count, is_up in zip(counts, flags, strict=True))
        macs += term.constant * math.prod(up)
    return round(macs)
