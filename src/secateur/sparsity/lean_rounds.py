"""Rounds of LEAN: choose kernels, remove useless ones, fine-tune, and cut dead channels at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelGraph
from secateur.coupling.network import Network
from secateur.errors import SurgeryError
from secateur.options.selections import Selection, match_layers
from secateur.sparsity.constant_output import output_varies
from secateur.sparsity.dead_kernels import (
    Kernels,
    kept_entries,
    layer_of,
    plan_of,
    remove_dead_kernels,
    zero_kernels,
)
from secateur.sparsity.lean_result import LeanResult, Round
from secateur.sparsity.selection import SELECT
from secateur.surgery.cut import cut
from secateur.training.masks import held_at_zero
from secateur.utils.progress import track


@dataclass(frozen=True, eq=False)
class LeanRounds:
    """A model whose kernels are pruned, and the options of `lean`.

    Args:
        model: the model, which is changed in place.
        network: its trace, which shares its weights.
        skip: the layers that are not pruned; None for those that produce the network's output.
        by: the choice of kernels, a name of `SELECT`.
        variance: the running variance below which channels are constants.
    """

    model: nn.Module
    network: Network
    skip: Selection | None
    by: str
    variance: float

    def run(self, fractions: Sequence[float], fit: Callable[[nn.Module], object] | None) -> LeanResult:
        """Prune kernels to falling fractions, and cut the channels that are dead at the end.

        Args:
            fractions: the fraction of kernels to keep after each round.
            fit: a function that fine-tunes the model after each round.

        Raises:
            SurgeryError: No kernels may be pruned, or the output would no longer depend on the input.
        """
        does_vary = output_varies(self.network)
        breaks, rounds = self._dense_graph.breaks, list[Round]()
        for fraction in track(fractions, "rounds"):
            graph = graph_of(self.network)
            kept, this_round = self._prune(graph, fraction)
            if does_vary and not output_varies(self.network):
                raise SurgeryError(self._constant_output_message(fraction, rounds, len(fractions)))
            if fit is not None:
                entries = {layer_of(block).weight: kept_entries(self.network, block, kept) for block in graph.layers}
                with held_at_zero(self.model, entries):
                    fit(self.model)
            rounds.append(this_round)
        plan = plan_of(self.network, graph, kept)
        maps = torch.cat([kept[name].any(1) for name in self._prunable])
        return LeanResult(
            model=cut(self.model, plan), plan=plan, weights=tuple(sorted(self._prunable)),
            kernels=(self._kernel_count, rounds[-1].kernels), maps=(len(maps), int(maps.sum())), rounds=tuple(rounds),
            breaks=breaks,
        )  # fmt: skip

    def _prune(self, graph: ChannelGraph, fraction: float) -> tuple[Kernels, Round]:
        """Zero all kernels but a fraction, and those that are useless without them."""
        quota = max(1, round(fraction * self._kernel_count))
        removed_kernels, counts = SELECT[self.by](graph, self._prunable, quota)
        kept = remove_dead_kernels(self.network, graph, removed_kernels, self.variance)
        zero_kernels(self.network, graph, kept)
        return kept, Round(fraction, *counts, sum(int(kept[name].sum()) for name in self._prunable))

    @cached_property
    def _dense_graph(self) -> ChannelGraph:
        """The graph before any kernel is pruned, as `run` first reads it."""
        return graph_of(self.network)

    @cached_property
    def _prunable(self) -> frozenset[str]:
        """The weights whose kernels may be pruned.

        Raises:
            NameMatchError: A glob matches no layer.
            SurgeryError: There are none.
        """
        graph = self._dense_graph
        layers = {layer_of(block).weight: layer_of(block).name for block in graph.layers}
        if self.skip is None:
            outputs = [b for b in graph.layers if graph.needed & set(range(*b.span.indices(graph.size)))]
            prunable = frozenset(layers) - {layer_of(block).weight for block in outputs}
        else:
            skipped_names = match_layers(self.skip, layers.values(), "layer", self.network.modules, self.network.title)
            prunable = frozenset(weight for weight, name in layers.items() if name not in skipped_names)
        if not prunable:
            names = ", ".join(layers.values()) or "none"
            raise SurgeryError(
                f"{self.network.title} has no kernels to prune: its layers ({names}) make the output or are left out "
                "by skip="
            )
        return prunable

    @cached_property
    def _kernel_count(self) -> int:
        """The number of kernels that may be pruned."""
        layers = self._dense_graph.layers
        return sum(int(block.edges.sum()) for block in layers if layer_of(block).weight in self._prunable)

    def _constant_output_message(self, fraction: float, rounds: Sequence[Round], count: int) -> str:
        other_advice = "" if self.by == "lean" else "choose by='lean', or "
        possible = f" (keep={rounds[-1].asked:.3g} was possible)" if rounds else ""
        return (
            f"by={self.by!r} leaves {fraction:.1%} of the kernels of {self.network.title} in round {len(rounds) + 1} "
            f"of {count}, and no way from its input to its output: it would give the same for every input; "
            f"{other_advice}keep more{possible}"
        )
