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


class SharedBlock(nn.Module):
    """A residual block of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.down(torch.relu(self.up(x)))
        return result


def shared() -> nn.Sequential:
    """Return a network of three blocks whose first convolutions have one weight, which is named as the first one's."""
    torch.manual_seed(0)
    blocks = [SharedBlock() for _ in range(3)]
    for block in blocks[1:]:
        block.up.weight = blocks[0].up.weight
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


def test_a_block_whose_weight_others_share_stays_beside_units_that_are_cut() -> None:
    model, x = shared(), torch.randn(4, 4, 6, 6)
    network = sc.trace(model, x, kinds=["channels", "blocks"])
    group = next(group for group in network.groups if group.block_paths)
    assert group.block_paths == ("1", "2")
    sizes = {other.name: list(range(other.size // 2)) for other in network.groups if other is not group}
    plan = sc.plan(network, sc.score(network, x, by="l2"), {"units": 0.9}).with_kept({**sizes, group.name: [1]})
    assert sc.cut(model, plan)(x).shape == (4, 2)


@pytest.mark.parametrize("inplace", [False, True])
def test_an_optimizer_keeps_a_weight_that_a_skipped_block_shared(inplace: bool) -> None:
    model, x = shared(), torch.randn(4, 4, 6, 6)
    optimizer = torch.optim.AdamW(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    network = sc.trace(model, x, kinds="blocks")
    plan = sc.plan(network, sc.score(network, x, by="l2"), {"units": 0.7}).with_kept({"blocks": [1, 2]})
    small = sc.cut(model, plan, optimizer=optimizer, inplace=inplace)
    (group,) = optimizer.param_groups
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in small.parameters()}
    assert optimizer.state.keys() == set(small.parameters())
