"""An operator that torch does not have, with a rule for it."""

from typing import Any

import torch
from torch import Tensor, nn


@torch.library.custom_op("secateur_tests::power_norm", mutates_args=())
def power_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root of the mean square over the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


power_norm.register_fake(lambda x, weight, eps: torch.empty_like(x))

NAME = "secateur_tests::power_norm"


class PowerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.weight = width, nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == self.width
        return power_norm(x, self.weight, 1e-5)


def normed_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 10), PowerNorm(10), nn.ReLU(), nn.Linear(10, 3)).eval()


def label_rule(op: Any) -> Tensor:
    units = op.axis_labels(op.activation("x"), -1)
    op.couple(units, op.axis_labels("weight", 0))
    op.read("x", len(op.shape) - 1, units)
    return op.broadcast(units, -1)


def masked_norm(present: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    kept = x * present
    mean_square = kept.square().sum(-1, keepdim=True) / present.expand(x.shape).sum(-1, keepdim=True).clamp_min(1)
    return kept * torch.rsqrt(mean_square + eps) * weight


def attribute_rule(module: nn.Module, shapes: Any) -> dict[str, int]:
    return {"width": shapes["weight"][0]}


EVERYTHING: dict[str, Any] = {"masked": masked_norm, "attributes": {PowerNorm: attribute_rule}}
