"""Stacks of linear layers with ReLU between them."""

import itertools

import torch
from torch import nn


def linear_stack(*widths: int, seed: int = 0) -> nn.Sequential:
    """Return linear layers of some widths with ReLU between them, in evaluation mode.

    Args:
        widths: the number of inputs, and the outputs of each layer.
        seed: the seed of the weights.
    """
    torch.manual_seed(seed)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()
