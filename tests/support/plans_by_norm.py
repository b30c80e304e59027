"""Plans by the norms of weights, and the microbatches of examples, for tests of repairs."""

from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.importance.context import split_microbatches


def plan_by_norm(model: nn.Module, x: Tensor, keep: dict[str, float]) -> sc.Plan:
    """Return a plan by L2 norms."""
    network = sc.trace(model, x[:2])
    return sc.plan(network, sc.score(network, by="l2"), keep)


def microbatches_of(x: Tensor, size: int) -> Any:
    """Return the microbatches of batches of a size."""
    return split_microbatches(as_batches(list(x.split(size))), torch.device("cpu"))
