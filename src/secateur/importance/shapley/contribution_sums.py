"""The consumer of the players for tiles of coalitions, as a sum of the contributions of its input's channels."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.graph.program import OpFn, OpOverride, Program
from secateur.importance.shapley.additive_layer import AdditiveLayer
from secateur.masking.constants import sum_over_kernel


class ContributionSums:
    """A layer's results for tiles of coalitions.

    Args:
        layer: the layer.
        mean: the mean that replaces each entry of an absent unit, (entries,), or None for zero.
        program: the program that holds the layer's weights.
    """

    def __init__(self, layer: AdditiveLayer, mean: Tensor | None, program: Program) -> None:
        self.layer = layer
        self.bias, self._constants = layer.bias, None
        self._latest: tuple[tuple[int, int], Tensor] | None = None
        if mean is not None and layer.consumer.fold is not None:
            sink = layer.consumer.fold
            weight = program.state(sink.weight).detach()
            means = torch.where(layer.consumer.units >= 0, mean, torch.zeros((), dtype=mean.dtype)).to(weight.device)
            constants = layer.sum_by_channel(sum_over_kernel(weight, sink).T * means[:, None])
            self._constants = constants.to(weight.dtype)
            total = constants.sum(0).to(weight.dtype)
            self.bias = total if layer.bias is None else layer.bias + total

    def handler(self, x: Tensor, microbatch: int, positions: list[int], masks: Tensor) -> OpOverride:
        """Return the operator for one tile.

        Args:
            x: its input for the whole microbatch (examples, ...).
            microbatch: the microbatch's number.
            positions: the example of each row; rows of one example lie together.
            masks: the presence of each unit (rows, units + 1).
        """
        members = masks[:, self.layer.units].to(x)

        def sum_contributions(target: OpFn, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
            lengths = [len(list(run)) for _, run in itertools.groupby(positions)]
            examples = list(dict.fromkeys(positions))
            pieces = zip(members.split(lengths), examples, strict=True)
            products = [_sum_of_members(rows, self._contributions(x, microbatch, example)) for rows, example in pieces]
            result = self.layer.unflatten(products[0] if len(products) == 1 else torch.cat(products), x)
            return self.layer.layer_result(result if self.bias is None else result.add_(self.bias))

        return sum_contributions

    def _contributions(self, x: Tensor, microbatch: int, example: int) -> Tensor:
        """Return each channel's contribution beyond its mean's, the latest kept, (channels, positions x outputs)."""
        if self._latest is None or self._latest[0] != (microbatch, example):
            contributions = self.layer.contributions(x[example : example + 1])
            if self._constants is not None:
                constants = self._constants.view(len(contributions), 1, -1)
                by_position = contributions.view(len(contributions), -1, constants.shape[2])
                contributions = (by_position - constants).flatten(1)
            self._latest = (microbatch, example), contributions
        return self._latest[1]


def _sum_of_members(members: Tensor, contributions: Tensor) -> Tensor:
    """Sum the contributions of the channels that are present, (rows, positions x outputs).

    Args:
        members: the presence of each channel, (rows, channels).
        contributions: (channels, positions x outputs).
    """
    sums = members @ contributions
    if members.requires_grad or not bool(sums.isnan().any()):
        return sums
    present = [contributions[row != 0] * row[row != 0, None] for row in members]  # 0 times an infinite one is NaN
    return torch.stack([contributions_of_row.sum(0) for contributions_of_row in present])
