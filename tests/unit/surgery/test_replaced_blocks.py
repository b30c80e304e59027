"""Modules that stand in place of blocks that are left out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.surgery.replacements import SkippedBlock


class MaskedBlock(nn.Module):
    """A residual block that may be called with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.down(torch.relu(self.up(x)))
        return x + (y if mask is None else y * mask)


class Loop(nn.Module):
    """A network that calls the blocks of a sequence itself.

    Args:
        by_name: whether the mask is given by its name.
    """

    def __init__(self, by_name: bool) -> None:
        super().__init__()
        self.blocks, self.out, self.by_name = (
            nn.Sequential(*(MaskedBlock() for _ in range(4))),
            nn.Linear(6, 3),
            by_name,
        )

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x, mask=torch.full_like(x, 0.5)) if self.by_name else block(x, torch.full_like(x, 0.5))
        return self.out(x)


@pytest.mark.parametrize("by_name", [False, True])
def test_blocks_of_a_sequence_that_get_further_inputs_can_be_left_out(by_name: bool) -> None:
    model, x = Loop(by_name), torch.randn(8, 6)
    network = sc.trace(model, x, kinds="blocks")
    assert [group.size for group in network.groups] == [4]
    small = sc.cut(model, sc.plan(network, sc.score(network, x, by="l2"), {"units": 0.5}))
    assert sum(isinstance(block, SkippedBlock) for block in small.blocks) == 2
    assert small(x).shape == (8, 3)
