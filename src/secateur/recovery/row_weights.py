"""Weights of rows in a regression on a residual stream: few tokens of large values must not outweigh all others.

Transformers have tokens, most often the first of a sequence, whose values in the residual stream are hundreds of times
larger than those of the others (Sun et al. 2024, Massive Activations in Large Language Models). What reads the stream
normalises every token by itself, so that an error matters relative to the size of its token. Without weights, the error
of such a token makes up nearly all of a sum of squares.
"""

import torch
from torch import Tensor

from secateur.coupling.rules.registry import rule_of
from secateur.recovery.targets import OutputContext

LARGEST = 4.0
"""How many times the median size a row counts with at most; our choice."""


class RowWeights:
    """The factors by which rows of a layer's regression are multiplied.

    Args:
        context: the operators behind the layer's output.

    Attributes:
        may_differ: whether rows may have other factors than one.
    """

    def __init__(self, context: OutputContext) -> None:
        is_linear = rule_of(context.layer).layer in ("linear", "addmm")
        # (examples, positions, ..., outputs), added to a stream
        self.may_differ = context.other is not None and is_linear and context.layer.meta["val"].dim() > 2
        self._median: Tensor | None = None  # of the sizes of the first microbatch's rows

    def factors(self, stream: Tensor) -> Tensor | None:
        """Return the factor of each row, (rows,), at most one; None where all rows count alike.

        Args:
            stream: the dense network's stream behind the layer, (rows, outputs).
        """
        if not self.may_differ:
            return None
        sizes = torch.linalg.vector_norm(stream, dim=-1)
        self._median = sizes.median() if self._median is None else self._median
        largest = LARGEST * self._median
        is_large = sizes > largest
        return torch.where(is_large, largest / sizes, 1.0) if bool(is_large.any()) and bool(largest > 0) else None
