"""Plans tried without cutting: units are silent, their readers are refitted if need be, and outputs are compared."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.coupling.network import Kept, Network
from secateur.data.batch import Batch
from secateur.evaluation.holdout import output_spread, split_holdout
from secateur.evaluation.losses import divergence
from secateur.masking.ablation import Means
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import MEMORY, PairedExecution
from secateur.recovery.refit import pruned_layer_or_reason, refit_layer
from secateur.recovery.ridge import Choice

COMPARING, MEASURING = Choice(1e-1, 0), Choice(1e-2, 0)
MOST_HELD = 64
MOST_OUTPUTS = 10_000_000
SAMPLE_SHARES = (
    0.375,
    0.125,
)  # of the memory, for the examples to refit with and those to judge by; forks take as much again


class PlanSimulator:
    """A network and examples to try plans on: three quarters to refit with, the others to judge by.

    Args:
        network: the traced network.
        cells: the examples.
        means: what stands in the place of absent units if nothing is refitted; None where layers are.
    """

    def __init__(self, network: Network, cells: Sequence[Batch], means: Means | None = None) -> None:
        self.network, self._cells, self._means = network, cells, means
        parts = split_holdout(cells, network.program.batched is not None)
        self.fitted, self.held = (
            PairedExecution(EmbeddedPrunedNetwork.whole(network, {}), part, int(MEMORY * share))
            for part, share in zip(parts, SAMPLE_SHARES, strict=True)
        )
        self.choice: Choice | None = None  # how layers are solved for: by default as rows held out say
        self._layers = layers_of(network) if means is None else []
        self._dense_outputs: list[Any] | None = None

    def quick(self, examples: int) -> "PlanSimulator":
        """The same on at most so many examples, to tell plans apart: layers get one ridge, and all examples serve for
        both the refit and the judgement.

        What is told is nearer to the dense network than other examples would say, by about as much for all plans. Which
        few examples are held out would decide between them otherwise: outputs differ far more between examples.
        """
        other = self._on(output_spread(self._cells, examples), COMPARING)
        other.fitted = other.held = PairedExecution(self.fitted.within, other._cells, int(MEMORY * sum(SAMPLE_SHARES)))
        return other

    def quick_held_out(self, examples: int) -> "PlanSimulator":
        """The same on at most so many examples, a third of them held out of the refit, with one ridge for every layer.

        It tells what groups cost that differ in how many layers read them: where many are refitted, they fit the
        examples that they see best.
        """
        held = min(examples // 3, MOST_HELD)
        fitted, judged = output_spread(self.fitted.cells, examples - held), output_spread(self.held.cells, held)
        other = self._on([*fitted, *judged], MEASURING)
        other.fitted = PairedExecution(self.fitted.within, fitted, self.fitted.memory)
        other.held = PairedExecution(self.held.within, judged, self.held.memory)
        return other

    def _on(self, cells: Sequence[Batch], choice: Choice) -> "PlanSimulator":
        """On some of the examples, taken from all over them: they may be in an order of their own."""
        other = copy(self)
        other._cells, other.choice, other._dense_outputs = cells, choice, None
        return other

    def reach(self, node: Node) -> None:
        """Run the dense network up to an operator; plans that change nothing before it start there."""
        for lockstep in {id(each): each for each in (self.fitted, self.held)}.values():
            lockstep.reach(node)

    @property
    def layers(self) -> list[LinearLayer]:
        """The layers that can be refitted, in the order in which they run."""
        return self._layers

    def consumers(self, name: str) -> list[LinearLayer]:
        """The layers that read a group's units and can be refitted."""
        return [layer for layer in self._layers if self.network[name].owns(layer.inputs)]

    @torch.no_grad()
    def outputs(self, kept: Kept, layers: Sequence[LinearLayer] | None = None) -> Iterator[tuple[Batch, Any, Any]]:
        """Each cell held out, and what the dense and the cut, refitted network make of it.

        Args:
            kept: the units that stay, by group.
            layers: those to refit; all by default.
        """
        within = EmbeddedPrunedNetwork.whole(self.network, kept, self._means)
        fitted = self.fitted.forked(within)
        held = fitted if self.held is self.fitted else self.held.forked(within)
        for layer in self._layers if layers is None else layers:
            part, _ = pruned_layer_or_reason(layer, within)
            if part is not None:
                refit_layer(fitted, part, self.choice, part.few_rows if self.choice else None)
        known = self._known_outputs()
        if known is not None:
            yield from zip(self.held.cells, known, held.cut_outputs(), strict=True)
        else:
            for cell, (dense, cut) in zip(self.held.cells, held.outputs(), strict=True):
                yield cell, dense, cut

    def _known_outputs(self) -> Sequence[Any] | None:
        """What the dense network makes of each cell held out, the same for all plans; None where that is large."""
        if self._dense_outputs is None:
            self._dense_outputs = self._collected_outputs()
        return self._dense_outputs or None

    def _collected_outputs(self) -> list[Any]:
        """Empty where they are large."""
        outputs, entries = list[Any](), 0
        for dense, _ in PairedExecution(
            EmbeddedPrunedNetwork.whole(self.network, {}), self.held.cells, memory=0
        ).outputs():
            outputs.append(dense)
            entries += sum(leaf.numel() for leaf in pytree.tree_leaves(dense) if isinstance(leaf, Tensor))
            if entries > MOST_OUTPUTS:
                return []
        return outputs

    @property
    def examples(self) -> int:
        """How many examples there are, to refit with and to judge by."""
        return sum(cell.size or 1 for cell in self._cells)

    def divergences(self, kept: Kept, layers: Sequence[LinearLayer] | None = None) -> Tensor:
        """The divergence of each example held out. (examples,)"""
        return torch.cat([divergence(cut, dense).double() for _, dense, cut in self.outputs(kept, layers)])

    def divergence(self, kept: Kept, layers: Sequence[LinearLayer] | None = None) -> float:
        """The mean divergence on the examples held out."""
        return float(self.divergences(kept, layers).mean())
