"""Outputs of the dense network, with which smaller networks are compared again and again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.graph.contexts import preserved, run_seeded

MOST_ENTRIES = 10_000_000  # of all outputs that are kept


class DenseOutputs:
    """The dense network's outputs, each kept from its first computation on, as far as there is room.

    Args:
        model: the dense network.
        writes: whether its code may write to its parameters, which are copied for the time being then.
    """

    def __init__(self, model: nn.Module, writes: bool = True) -> None:
        self._model, self._writes, self._room = model, writes, MOST_ENTRIES
        self._known: dict[int, tuple[Batch, Any]] = {}  # by the batch's identity, which is kept for that

    @contextmanager
    def ready_for(self, batches: Sequence[Batch]) -> Iterator[None]:
        """Put the model into evaluation mode, without gradients, unless the outputs for all batches are known."""
        if all(id(batch) in self._known for batch in batches):
            yield
        else:
            with preserved(self._model, self._writes):
                yield

    def of(self, batch: Batch) -> Any:
        """Return the output for a batch, which is to be called within `ready_for`."""
        if id(batch) in self._known:
            return self._known[id(batch)][1]
        output = run_seeded(self._model, batch)
        entries = sum(leaf.numel() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
        if entries <= self._room:
            self._room -= entries
            self._known[id(batch)] = batch, output
        return output
