"""LEAN: kernels pruned by the longest chains of operators that they are part of (Schoonhoven et al. 2020)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.api import trace
from secateur.budget.plan import Plan
from secateur.errors import BudgetError, NameMatchError, SurgeryError
from secateur.importance.lean.graph import ChannelGraph
from secateur.importance.lean.walk import graph_of
from secateur.names import matched
from secateur.network.units import Network
from secateur.network.wrappers import unwrapped
from secateur.sparsity.constant_output import output_varies
from secateur.sparsity.dead import Kernels, hold, needless, plan_of
from secateur.sparsity.selection import SELECT, name_of
from secateur.storage import save
from secateur.surgery.cut import cut
from secateur.surgery.lineage import folded_copy
from secateur.surgery.recipe import Recipe, recipe_of
from secateur.training.masks import held_at_zero


@dataclass(frozen=True)
class Round:
    """One round of pruning.

    Args:
        asked: the fraction of kernels that was to stay.
        chains: how many chains they came from.
        filled: how many kernels were added by their own norms, no chain being left.
        kernels: how many stayed after those that had become useless went, too.
    """

    asked: float
    chains: int
    filled: int
    kernels: int


@dataclass(frozen=True, eq=False)
class LeanResult:
    """What LEAN leaves.

    Args:
        model: the model, its pruned kernels zero and its dead channels cut.
        plan: by which they were cut.
        recipe: for loading the model again.
        kernels: how many there were, and how many are not zero.
        maps: feature maps that these kernels make, and how many of them still have kernels.
        rounds: what each round did.
        breaks: operators through which chains were not followed.
    """

    model: nn.Module
    plan: Plan
    recipe: Recipe
    kernels: tuple[int, int]
    maps: tuple[int, int]
    rounds: tuple[Round, ...]
    breaks: tuple[str, ...]

    @property
    def channels(self) -> tuple[int, int]:
        """Units before and after the cut."""
        return self.plan.network.units, sum(len(units) for units in self.plan.kept.values())

    def __str__(self) -> str:
        (dense, left), (units, stay) = self.kernels, self.channels
        cost, before = self.plan.cost, self.plan.dense
        lines = [
            f"kernels {dense:,} -> {left:,} ({left / max(dense, 1):.1%}), maps {self.maps[0]:,} -> {self.maps[1]:,}",
            f"units {units:,} -> {stay:,}, MACs {before.macs:,} -> {cost.macs:,} "
            f"({cost.macs / max(before.macs, 1):.1%})",
            *(f"  asked {r.asked:.1%}: {r.chains} chains, {r.filled} by norm, {r.kernels:,} left" for r in self.rounds),
        ]
        return "\n".join([*lines, *(f"  chains end at {name}" for name in self.breaks)])

    def save(self, folder: str | Path) -> None:
        """Write recipe.json and weights.safetensors, which `secateur.load` reads.

        Raises:
            StorageError: they can't be written; files that were there before are as they were.
        """
        save(self.model, folder)


def lean(
    model: nn.Module,
    example_inputs: Any,
    keep: float,
    *,
    by: str = "lean",
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    skip: str | Sequence[str] | None = None,
    variance: float = 1e-10,
) -> LeanResult:
    """Prune the kernels of a network that are on no long chain of operators, and cut the channels that die of it.

    The value of a chain is the product of the operator norms of its kernels, batch norms, and pooling, on images that
    wrap around. The longest chains are kept, one after another, until there are enough kernels; where no chain with a
    product of at least 1 is left, single kernels by their norm. The fraction kept falls geometrically over the rounds,
    each followed by fine-tuning, and norms are computed anew in each.

    Args:
        model: the trained model; it is left as it is.
        example_inputs: as `trace` takes them; image sizes count.
        keep: the fraction of kernels that stays.
        by: "lean" for chains; "norm" for single kernels by their operator norm with the batch norm behind, or "l1" by
            the sum of their absolute weights, both with one threshold for the whole network, to compare with.
        rounds: published: 15, with 3 epochs of fine-tuning after each, for 5 % kept.
        fit: fine-tunes a model, in place; it is called after each round, and zeros are kept at zero in it.
        skip: globs of layers whose kernels all stay. By default those that give the network's output (the published
            networks keep their last 1 x 1 layer).
        variance: channels whose batch norm has a running variance below this are constants, and go. The authors' code
            has 1e-10 for its U-Net and 1e-45 for its ResNet, where only a variance of 0 is below.

    Returns:
        The pruned model and the counts of what went. Channels that have no kernels left, or that nobody reads, are cut
        for real, and constants that they leave go into the biases of those who read them (at padded borders this is not
        what they did).

    Raises:
        BudgetError: the fraction or the number of rounds is out of range.
        NameMatchError: `by` or a glob matches nothing.
        SurgeryError: no layer is left whose kernels may go, or the output would not depend on the input any more.
        TraceError: the model can't be exported.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 1))
        >>> found = lean(model, torch.randn(1, 1, 16, 16), keep=0.25)
        >>> found.kernels[0], found.kernels[1] <= 0.25 * 72
        (72, True)
    """
    if not 0 < keep <= 1 or rounds < 1:
        raise BudgetError(
            f"keep={keep}, rounds={rounds}: give the fraction of kernels that stays, and at least 1 round"
        )
    if by not in SELECT:
        raise NameMatchError(f"by={by!r} is unknown; known are {', '.join(SELECT)}")
    work = folded_copy(unwrapped(model))
    network = trace(work, example_inputs)
    first = graph_of(network)
    own = _prunable(first, skip)
    if not own:
        names = [block.layer.name for block in first.layers if block.layer is not None]
        raise SurgeryError(f"{network.title} has no kernels that may go, of: {', '.join(names) or 'none'}; see skip=")
    total = sum(int(block.edges.sum()) for block in first.layers if name_of(block) in own)
    varied = output_varies(network)
    done: list[Round] = []
    for number in range(1, rounds + 1):
        asked, graph = keep ** (number / rounds), graph_of(network)
        chosen, counts = SELECT[by](graph, own, max(1, round(asked * total)))
        kept = needless(network, graph, chosen, variance)
        hold(network, graph, kept)
        if varied and not output_varies(network):
            raise SurgeryError(
                f"by={by!r} leaves {asked:.1%} of the kernels of {network.title} in round {number} of {rounds}, and no "
                f"way from its input to its output: it would give the same for every input; {_remedy(by, done)}"
            )
        if fit is not None:
            with held_at_zero(work, _stays(network, graph, kept)):
                fit(work)
        left = sum(int(kept[name].sum()) for name in own)
        done.append(Round(asked, *counts, left))
    plan = plan_of(network, graph, kept)
    recipe = recipe_of(work, plan)
    made = torch.cat([kept[name].any(1) for name in own])
    maps = (len(made), int(made.sum()))
    return LeanResult(cut(work, plan), plan, recipe, (total, done[-1].kernels), maps, tuple(done), first.breaks)


def _remedy(by: str, done: Sequence[Round]) -> str:
    """What to ask for in place of kernels that leave a constant."""
    others = "" if by == "lean" else "choose by='lean', or "
    return f"{others}keep more" + (f" (keep={done[-1].asked:.3g} was possible)" if done else "")


def _prunable(graph: ChannelGraph, skip: str | Sequence[str] | None) -> frozenset[str]:
    """The weights whose kernels may go.

    Raises:
        NameMatchError: a glob matches no layer.
    """
    layers = {name_of(block): block.layer.name for block in graph.layers if block.layer is not None}
    if skip is None:
        last = {name_of(block) for block in graph.layers if graph.needed & set(range(*block.span.indices(graph.size)))}
        return frozenset(layers) - last
    whole = matched(skip, layers.values(), "layer")
    return frozenset(weight for weight, name in layers.items() if name not in whole)


def _stays(network: Network, graph: ChannelGraph, kept: Kernels) -> dict[str, Tensor]:
    """Which entries of each layer's weight may be other than zero."""
    found = {}
    for block in graph.layers:
        assert block.layer is not None
        name = block.layer.weight
        found[name] = block.layer.weight_of(block.over_entries(kept[name]), network.program.state(name))
    return found
