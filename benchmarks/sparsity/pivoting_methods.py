"""Methods that prune a task's layers to a density: pivoting, and masks of blocks or of any weights."""

from collections.abc import Callable
from statistics import mean

import torch
from torch import Tensor, nn

from secateur.graph.parametrizations import copy_model
from secateur.sparsity.pivoting.block_sums import Matrix
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.search import align_orders, pivot_obliviously
from secateur.training.masks import held_at_zero
from sparsity.tasks import TrainingTask

SHAPE, ROUNDS, FADE = (4, 4), 3, 0.99
RATE = 5e-4
Mask = Callable[[Tensor, float], tuple[Tensor, float]]


def prune_by_pivoting(
    dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int
) -> tuple[nn.Module, float]:
    """Pivot in rounds, each with so many epochs of training.

    Returns:
        The pruned network, and the part of the weight that blocks hold where the dense network is pivoted in one round.
    """
    images = task.split.images[:2]
    blocks = pivot(
        dense, images, density, shape=SHAPE, rounds=ROUNDS, skip=task.whole_layers,
        fit=lambda model: task.train(model, epochs, seed, RATE),
    )  # fmt: skip
    once = pivot(dense, images, density, shape=SHAPE, skip=task.whole_layers)
    return blocks.model, mean(once.layers[name].retained for name in task.weights)


def prune_by_fading(
    dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int
) -> tuple[nn.Module, float]:
    """Pivot in one round of as many epochs, half of which fade the weights before the cut.

    Returns:
        The pruned network, and the part of the faded weights that blocks hold.
    """
    halves = iter((ROUNDS * epochs // 2, ROUNDS * epochs - ROUNDS * epochs // 2))
    blocks = pivot(
        dense, task.split.images[:2], density, shape=SHAPE, skip=task.whole_layers, fade=FADE,
        fit=lambda model: task.train(model, next(halves), seed, RATE),
    )  # fmt: skip
    return blocks.model, mean(blocks.layers[name].retained for name in task.weights)


def prune_blocks(
    dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int
) -> tuple[nn.Module, float]:
    """Keep the heaviest blocks of the matrix in its original order."""

    def mask(weight: Tensor, density: float) -> tuple[Tensor, float]:
        kernels = weight.abs().double().flatten(2).sum(2) if weight.dim() > 2 else weight.abs().double()
        orders = align_orders([Matrix("a", kernels.numpy(), "r", "c")], density, SHAPE)
        blocks = torch.from_numpy(orders.blocks["a"]).repeat_interleave(SHAPE[0], 0).repeat_interleave(SHAPE[1], 1)
        blocks = blocks[: weight.shape[0], : weight.shape[1]]
        return blocks.view(*blocks.shape, *[1] * (weight.dim() - 2)).expand(weight.shape), orders.retained["a"]

    return _prune_by_mask(dense, task, density, seed, epochs, mask)


def prune_weights(
    dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int
) -> tuple[nn.Module, float]:
    """Keep the largest weights."""

    def mask(weight: Tensor, density: float) -> tuple[Tensor, float]:
        count = round(density * weight.numel())
        threshold = weight.abs().flatten().sort(descending=True).values[count - 1]
        return weight.abs() >= threshold, pivot_obliviously(weight.abs().double().numpy(), density)

    return _prune_by_mask(dense, task, density, seed, epochs, mask)


def _prune_by_mask(
    dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int, mask: Mask
) -> tuple[nn.Module, float]:
    """Prune in rounds, each with so many epochs of training; also return the part of the dense weight that is kept."""
    model = copy_model(dense, {})
    retained = mean(mask(model.get_parameter(name).detach(), density)[1] for name in task.weights)
    for number in range(1, ROUNDS + 1):
        kept = {
            name: mask(model.get_parameter(name).detach(), density ** (number / ROUNDS))[0] for name in task.weights
        }
        with held_at_zero(model, kept):
            pass  # pruned entries are zero from here on
        with held_at_zero(model, kept):
            task.train(model, epochs, seed, RATE)
    return model, retained


METHODS = {
    "any weights": prune_weights,
    "blocks as they lie": prune_blocks,
    "pivoted": prune_by_pivoting,
    "pivoted, faded": prune_by_fading,
}
