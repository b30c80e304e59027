"""Find out, before anything is planned, which groups a model's own code can't bear to lose units from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.network.masked import reader_key
from secateur.network.units import Group, Network, without
from secateur.surgery.cut import cut_copy
from secateur.surgery.verify import verify


def settle(model: nn.Module, network: Network, seed: int = 0) -> Network:
    """The network without the groups that can't be cut for real.

    Units are cut from all groups of a copy at once, a different share from each, and the copy is run beside the
    masked run. Where that fails, halves are tried until the groups are found that make it fail; they are frozen, with
    what the model said as the reason.
    """
    while network.groups:
        failing = _failing(model, network, network.groups, seed)
        if not failing:
            return network
        network = without(network, failing)
    return network


def _failing(model: nn.Module, network: Network, groups: Sequence[Group], seed: int) -> dict[str, str]:
    reason = trial(model, network, groups, seed)
    if reason is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: reason}
    half = len(groups) // 2
    found = _failing(model, network, groups[:half], seed) | _failing(model, network, groups[half:], seed)
    return found or {group.name: reason for group in groups}


def trial(model: nn.Module, network: Network, groups: Sequence[Group], seed: int) -> str | None:
    """Cut some units of each of these groups in a copy and verify it; what went wrong, or None."""
    generator = np.random.default_rng(seed)
    kept: dict[str, Tensor] = {}
    for group in groups:
        left = int(generator.integers(max(1, group.size // 2), group.size))
        kept[group.name] = torch.from_numpy(np.sort(generator.permutation(group.size)[:left]))
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
