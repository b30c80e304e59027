"""The memory of a traced network: what it keeps does not grow with positions that have the same units."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc

SHORT = 6  # no other size in the network


class Heads(nn.Module):
    """Linear layers around reshapes by positions and heads, as in attention."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = self.a(x).reshape(batch, length, 4, 8).transpose(1, 2)
        y: Tensor = self.b(heads.transpose(1, 2).reshape(batch, length, 32))
        return y


def kept_bytes(length: int) -> tuple[int, list[tuple[int, ...]]]:
    """Return the bytes of the units of all sizes in the program, and what the sizes become in a cut."""
    torch.manual_seed(0)
    network = sc.trace(Heads().eval(), torch.randn(2, length, 8), new_biases=False)
    mask = network.mask({group.name: torch.arange(group.size // 2) for group in network.groups})
    storages = {
        size.units.untyped_storage().data_ptr(): size.units.untyped_storage().nbytes() for size in network.sizes
    }
    return sum(storages.values()), [tuple(size.values(mask).values()) for size in network.sizes]


@pytest.mark.parametrize("length", [64, 256])
def test_units_of_sizes_are_kept_once_for_all_positions(length: int) -> None:
    short, sizes = kept_bytes(SHORT)
    long, long_sizes = kept_bytes(length)
    assert sizes and long <= short
    assert [[value for value in values if value != length] for values in long_sizes] == [
        [value for value in values if value != SHORT] for values in sizes
    ]
