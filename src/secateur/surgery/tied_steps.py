"""The units that are kept when groups that a configuration ties lose some of their steps."""

from collections.abc import Sequence

import torch

from secateur.coupling.config_layout import ConfigLayout, TiedGroups
from secateur.coupling.network import Network


def units_without_steps(network: Network, ties: Sequence[TiedGroups], removed: int) -> dict[str, torch.Tensor]:
    """Return the units that are kept when tied groups lose the first units of some steps."""
    return {
        name: torch.arange(network[name].size)[removed * network[name].size // tie.steps :]
        for tie in ties
        for name in tie.groups
    }


def kept_on_trial(network: Network, layout: ConfigLayout) -> dict[str, torch.Tensor]:
    """Return the units that are kept when every tie loses half of its steps, and every list one block."""
    kept: dict[str, torch.Tensor] = {}
    for tie in layout.ties:
        kept |= units_without_steps(network, (tie,), max(tie.steps // 2, 1))
    for group in network.groups:
        if group.block_paths:
            last_blocks = {path.rpartition(".")[0]: index for index, path in enumerate(group.block_paths)}
            indices = [index for index in range(group.size) if index not in last_blocks.values()]
            kept[group.name] = torch.tensor(indices, dtype=torch.long)
    return kept
