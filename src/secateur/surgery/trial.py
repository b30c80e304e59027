"""Find out, before anything is planned, which groups a model's own code can't bear to lose units from."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.network.masked import reader_key
from secateur.network.units import Group, Kept, Network, without
from secateur.surgery.cut import cut_copy
from secateur.surgery.verify import verify

Share = Callable[[Group], Tensor]


def settle(model: nn.Module, network: Network, seed: int = 0) -> Network:
    """The network without the groups that can't be cut for real.

    Units are cut from all groups of a copy at once, a different share from each, and the copy is run beside the
    masked run. Where that fails, halves are tried until the groups are found that make it fail; they are frozen, with
    what the model said as the reason. Groups that fail only when one unit is left keep two.
    """
    generator = np.random.default_rng(seed)
    some = {group.name: _some(group, generator) for group in network.groups}
    while network.groups:
        failing = _failing(model, network, network.groups, lambda group: some[group.name])
        if not failing:
            break
        network = without(network, failing)
    alone = _failing(model, network, network.groups, lambda group: torch.tensor([group.size // 2]))
    groups = tuple(replace(group, fewest=2) if group.name in alone else group for group in network.groups)
    return replace(network, groups=groups)


def _some(group: Group, generator: np.random.Generator) -> Tensor:
    """A random half of a group or more, but not all of it."""
    left = int(generator.integers(max(1, group.size // 2), group.size))
    return torch.from_numpy(np.sort(generator.permutation(group.size)[:left]))


def _failing(model: nn.Module, network: Network, groups: Sequence[Group], share: Share) -> dict[str, str]:
    reason = trial(model, network, {group.name: share(group) for group in groups}) if groups else None
    if reason is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: reason}
    half = len(groups) // 2
    found = _failing(model, network, groups[:half], share) | _failing(model, network, groups[half:], share)
    return found or {group.name: reason for group in groups}


def trial(model: nn.Module, network: Network, kept: Kept) -> str | None:
    """Cut a copy, with means folded, and verify it; what went wrong, or None."""
    generator = np.random.default_rng(0)
    means = {
        reader_key(reader): torch.from_numpy(generator.normal(size=len(reader.units)))
        for reader in network.readers
        if reader.fold is not None
    }
    try:
        small, _ = cut_copy(model, network, kept, means)
        verify(small, network, kept, means)
    except SecateurError as failure:
        return str(failure)
    return None
