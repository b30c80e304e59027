"""The copies of a model's weights that a whole prune holds: counted by how memory grows with the number of blocks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from live_bytes import LiveBytes
from secateur.utils import mapped_tensors

pytestmark = untrained_networks

KEPT = 0.75
BLOCKS = (2, 6)


class Block(nn.Module):
    """A residual block whose weights are large beside its activations and its numbers of units."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(192), nn.Linear(192, 768), nn.Linear(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return y


def live_bytes(blocks: int, **options: Any) -> int:
    """Return the most bytes of tensors beside the user's model and examples, those in files not counted."""
    torch.manual_seed(0)
    model = nn.Sequential(*[Block() for _ in range(blocks)], nn.Linear(192, 5)).eval()
    data = torch.randn(8, 192)
    before = [weight.detach().clone() for weight in model.parameters()]
    with LiveBytes() as live:
        sc.prune(model, data, keep={"params": KEPT}, by="l2", target="any", progress=False, **options)
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
    return live.peak


@pytest.mark.parametrize("options", [{"allocation": "uniform"}, {"repair": None}])
def test_a_prune_holds_the_small_model_and_no_other_copy_of_all_weights(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans that are simulated, trial cuts, and repaired networks that are judged are in files beyond the room."""
    monkeypatch.setattr(mapped_tensors, "ROOM", 0)
    block = sum(weight.nbytes for weight in Block().parameters())
    few, many = (live_bytes(blocks, **options) for blocks in BLOCKS)
    copies = (many - few) / (BLOCKS[1] - BLOCKS[0]) / block
    assert copies < KEPT + 0.15
