"""A network whose activations need most of the memory, and the options of each criterion that takes a limit."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc

OPTIONS: dict[str, dict[str, Any]] = {
    "shapley": {"coalitions": 40},
    "permutation": {"by": "shapley", "estimator": "permutation", "coalitions": 40},
    "controlled": {"by": "shapley", "estimator": "controlled", "coalitions": 80},
    "banzhaf": {"coalitions": 40},
    "owen": {"coalitions": 100},
    "expected-gradients": {"coalitions": 100},
    "leave-one-out": {},
    "oracle": {},
    "oracle-absolute": {},
    "greedy": {"only": "2"},
    "obs": {},
}


@functools.cache
def convolutions() -> tuple[sc.Network, tuple[Tensor, Tensor]]:
    """Two groups whose activations are large against the weights and the examples."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    model = nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    x, y = torch.randn(48, 1, 16, 16), torch.randint(0, 5, (48,))
    return sc.trace(model, x[:2]), (x, y)
