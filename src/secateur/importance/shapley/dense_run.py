"""The dense network's values at a group's first consumer, for each microbatch, carried on from group to group.

Groups are scored in the order of their cuts, so each microbatch runs through the dense network once for all of them.
Where the values of all microbatches exceed the memory, those beyond it are computed again from the inputs.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.evaluation.losses import Reference
from secateur.graph.cursor import ProgramCursor, bytes_of_tensors
from secateur.importance.context import CriterionContext, as_fast_layout
from secateur.utils.live_bytes import peak_bytes


@dataclass(frozen=True)
class DenseBaseline:
    """The dense network's losses on a microbatch.

    Args:
        reference: the reference that losses are measured against.
        values: minus the dense network's loss of each example, (examples,).
        examples: the number of examples.
    """

    reference: Reference
    values: Tensor
    examples: int

    @cached_property
    def reference_bytes(self) -> int:
        """The bytes of the reference, which may be the dense network's output."""
        return bytes_of_tensors((self.reference.labels, self.reference.dense))


class DenseRun:
    """The dense network's values at a cut and its losses, for every microbatch.

    Args:
        context: the network and the examples.
        memory: the number of bytes that may be kept.
    """

    def __init__(self, context: CriterionContext, memory: int) -> None:
        self.context, self.memory = context, memory
        self._cursor = ProgramCursor(context.network.program, context.microbatches)
        self._baselines: dict[int, DenseBaseline] = {}

    @property
    def kept_bytes(self) -> int:
        """The number of bytes that are kept now."""
        return self._cursor.kept_bytes + self._reference_bytes

    @property
    def _reference_bytes(self) -> int:
        return sum(baseline.reference_bytes for baseline in self._baselines.values())

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """The microbatches with the most entries and with the largest examples, which are mostly the same."""
        batches = self.context.microbatches
        entries = [sum(tensor.numel() for tensor in batch.tensors) for batch in batches]
        by_example = [count / (batch.size or 1) for count, batch in zip(entries, batches, strict=True)]
        return tuple(dict.fromkeys(max(range(len(counts)), key=counts.__getitem__) for counts in (entries, by_example)))

    @cached_property
    def dense_bytes(self) -> int:
        """The bytes of the dense pass on the largest microbatch, with its losses."""
        return max(peak_bytes(partial(self._dense_baseline, microbatch)) for microbatch in self.largest)

    def keep_within(self, memory: int) -> None:
        """Change the number of bytes that may be kept, and drop the values that are beyond."""
        self.memory = memory
        self._cursor.keep_within(memory - self._reference_bytes)
        if self.kept_bytes > memory:
            self._baselines.clear()

    def bytes_at(self, microbatch: int, cut: int) -> tuple[int, int]:
        """Return the bytes of a microbatch's values at a cut, and of the reference of its losses."""
        return bytes_of_tensors(list(self.live_values(microbatch, cut).values())), self.dense_baseline(
            microbatch
        ).reference_bytes

    def live_values(self, microbatch: int, cut: int) -> dict[Node, Any]:
        """Return the values of a microbatch that operators from position `cut` on need, without constants."""
        (state,) = self._cursor.take(microbatch, (cut,))
        if state.position < cut:
            with torch.no_grad():
                state = self._cursor.advance(state, cut, self.context.network.program.fixed(), consume=True)
            for node in state.values:  # one after the other, so that only one is there twice
                state.values[node] = _in_fast_layout(state.values[node])
        self._cursor.keep(microbatch, (state,), self.memory - self._reference_bytes)
        return state.values

    def dense_baseline(self, microbatch: int) -> DenseBaseline:
        """Return the dense network's losses on a microbatch; kept while there is room, as outputs may be large."""
        if microbatch in self._baselines:
            return self._baselines[microbatch]
        baseline = self._dense_baseline(microbatch)
        if self.kept_bytes + baseline.reference_bytes <= self.memory:
            self._baselines[microbatch] = baseline
        return baseline

    def _dense_baseline(self, microbatch: int) -> DenseBaseline:
        batch = self.context.microbatches[microbatch]
        with torch.no_grad():
            output = self.context.forward(batch)
            is_labelled = batch.target is not None
            dense, scales = (None, None) if is_labelled else (output, self.context.output_scales)
            reference = Reference(batch.target, dense, scales, batch.has_token_scores)
            examples = batch.size or 1
            losses = self.context.losses(output, reference, examples)
        return DenseBaseline(reference, -losses.cpu().double(), examples)


def _in_fast_layout(value: Any) -> Any:
    return as_fast_layout(value) if isinstance(value, Tensor) else value
