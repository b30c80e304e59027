"""Examples, a network, and a short run of `prune` on them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc

EXAMPLES = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


CLASSES = torch.arange(40) % 3


class CheckedNetwork(nn.Module):
    """A network with any last step."""

    def __init__(self, last: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 3), last
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(F.relu(self.first(x))))


def prune_quickly(model: nn.Module | None = None, data: Any = EXAMPLES, **options: Any) -> sc.Result:
    options = {"keep": {"units": 0.5}, "by": "l2", "progress": False, **options}
    return sc.prune(CheckedNetwork() if model is None else model, data, **options)
