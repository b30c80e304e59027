"""LEAN: kernels pruned by the longest chains of operators that they are part of (Schoonhoven et al. 2020)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelGraph
from secateur.coupling.network import Network
from secateur.entry import entry_point
from secateur.errors import BudgetError, NameMatchError, SurgeryError
from secateur.sparsity.constant_output import output_varies
from secateur.sparsity.dead_kernels import Kernels, plan_of, remove_dead_kernels, zero_kernels
from secateur.sparsity.lean_result import LeanResult, Round
from secateur.sparsity.results import RunSettings
from secateur.sparsity.selection import SELECT, name_of
from secateur.surgery.cut import cut
from secateur.surgery.lineage import folded_copy
from secateur.tracing import trace
from secateur.training.masks import held_at_zero
from secateur.training.session import training_session
from secateur.utils.globs import match_globs


@entry_point
def lean(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float] | float,
    *,
    test: Any = None,
    by: str = "lean",
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    tuning_steps: int = 0,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    skip: str | Sequence[str] | None = None,
    variance: float = 1e-10,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LeanResult:
    """Prune the kernels of a network that are on no long chain of operators, and cut the channels that die of it.

    The value of a chain is the product of the operator norms of its kernels, batch norms, and pooling, on images that
    wrap around. The longest chains are kept, one after another, until there are enough kernels; where no chain with a
    product of at least 1 is left, single kernels by their norm. The fraction kept falls geometrically over the rounds,
    each followed by fine-tuning, and norms are computed anew in each.

    Args:
        model: the trained model; it is left as it is.
        data: examples, with or without labels, as `secateur.prune` takes them; a few do where nothing is trained. The
            size of their images counts for the norms.
        keep: the fraction of kernels that stays: `{"kernels": 0.05}`, or the number alone.
        test: other examples to measure on; by default those of `data`, and the report says so.
        by: "lean" for chains; "norm" for single kernels by their operator norm with the batch norm behind, or "l1" by
            the sum of their absolute weights, both with one threshold for the whole network, to compare with.
        rounds: published: 15, with 3 epochs of fine-tuning after each, for 5 % kept.
        fit: fine-tunes a model, in place; it is called after each round, and zeros are kept at zero in it.
        tuning_steps: in place of `fit`: steps of Adam in each round, towards the model's own outputs and labels where
            there are any. 0 for none.
        learning_rate, batch_size: of these steps.
        skip: globs of layers whose kernels all stay. By default those that give the network's output (the published
            networks keep their last 1 x 1 layer).
        variance: channels whose batch norm has a running variance below this are constants, and go. The authors' code
            has 1e-10 for its U-Net and 1e-45 for its ResNet, where only a variance of 0 is below.
        checkpoint: a folder to write states of the training to now and then, and to go on from.
        seed: of the examples drawn.
        progress: whether to show a progress bar.

    Returns:
        The model with its zeros (`result.model`), the counts of what went, and the report. Channels that have no
        kernels left, or that nobody reads, are cut for real, and constants that they leave go into the biases of those
        who read them. At padded borders this is not what they did, and of what a transposed convolution makes of a
        constant it is the mean.

    Raises:
        BudgetError: the fraction or the number of rounds is out of range, or `fit` and `tuning_steps` are both given.
        DataError: the examples can't be used.
        NameMatchError: `by` or a glob matches nothing.
        SurgeryError: no layer is left whose kernels may go, or the output would not depend on the input any more.
        TraceError: the model can't be exported.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 1))
        >>> result = lean(model, torch.randn(8, 1, 16, 16), {"kernels": 0.25})
        >>> result.kernels[0], result.report.pruned.cost.params < result.report.dense.cost.params
        (72, True)
    """
    share = _checked_share(keep, rounds, by)
    if fit is not None and tuning_steps:
        raise BudgetError(f"fit= and tuning_steps={tuning_steps} are both given; give one of them")
    options = (share, by, rounds, tuning_steps, skip, variance)
    session = training_session(
        model, data, test, learning_rate, batch_size, seed, checkpoint, progress, options, trains=tuning_steps > 0
    )  # fmt: skip
    fit = session.training_by_round(tuning_steps) if tuning_steps else fit
    work = folded_copy(model)
    network = trace(work, session.batches)
    result = _pruned_in_rounds(
        work, network, skip, [share ** (k / rounds) for k in range(1, rounds + 1)], by, variance, fit
    )
    note = f"kernels by {by}, {rounds} rounds, {tuning_steps:,} steps in each"
    return result.measured(session, RunSettings("lean", note, {"kernels": share}))


def _pruned_in_rounds(
    work: nn.Module, network: Network, skip: str | Sequence[str] | None, fractions: Sequence[float], by: str,
    variance: float, fit: Callable[[nn.Module], object] | None,
) -> LeanResult:  # fmt: skip
    """Prune a model's kernels to falling fractions, in place, and cut what died.

    Args:
        work: the model.
        network: its trace, which shares its weights.
        skip, by, variance, fit: as of `lean`.
        fractions: of the kernels that stay after each round.
    """
    first = graph_of(network)
    own = _prunable(network, first, skip)
    total = sum(int(block.edges.sum()) for block in first.layers if name_of(block) in own)
    varied = output_varies(network)
    done: list[Round] = []
    for asked in fractions:
        graph = graph_of(network)
        chosen, counts = SELECT[by](graph, own, max(1, round(asked * total)))
        kept = remove_dead_kernels(network, graph, chosen, variance)
        zero_kernels(network, graph, kept)
        if varied and not output_varies(network):
            raise SurgeryError(
                f"by={by!r} leaves {asked:.1%} of the kernels of {network.title} in round {len(done) + 1} of "
                f"{len(fractions)}, and no way from its input to its output: it would give the same for every input; "
                f"{_remedy(by, done)}"
            )
        if fit is not None:
            with held_at_zero(work, _stays(network, graph, kept)):
                fit(work)
        done.append(Round(asked, *counts, sum(int(kept[name].sum()) for name in own)))
    plan = plan_of(network, graph, kept)
    made = torch.cat([kept[name].any(1) for name in own])
    return LeanResult(
        model=cut(work, plan), plan=plan, weights=tuple(sorted(own)), kernels=(total, done[-1].kernels),
        maps=(len(made), int(made.sum())), rounds=tuple(done), breaks=first.breaks,
    )  # fmt: skip


def _checked_share(keep: Mapping[str, float] | float, rounds: int, by: str) -> float:
    """The fraction of kernels that a budget asks for.

    Raises:
        BudgetError: it is of something else, or it or the rounds are out of range.
        NameMatchError: there is no such way to choose.
    """
    if isinstance(keep, Mapping) and list(keep) != ["kernels"]:
        raise BudgetError(f"keep={dict(keep)} is no budget of kernels; give {{'kernels': 0.05}}, or the number alone")
    share = keep["kernels"] if isinstance(keep, Mapping) else keep
    if not 0 < share <= 1 or rounds < 1:
        raise BudgetError(
            f"keep={keep}, rounds={rounds}: give the fraction of kernels that stays, and at least 1 round"
        )
    if by not in SELECT:
        raise NameMatchError(f"by={by!r} is unknown; known are {', '.join(SELECT)}")
    return share


def _remedy(by: str, done: Sequence[Round]) -> str:
    """What to ask for in place of kernels that leave a constant."""
    others = "" if by == "lean" else "choose by='lean', or "
    return f"{others}keep more" + (f" (keep={done[-1].asked:.3g} was possible)" if done else "")


def _prunable(network: Network, graph: ChannelGraph, skip: str | Sequence[str] | None) -> frozenset[str]:
    """The weights whose kernels may go.

    Raises:
        NameMatchError: a glob matches no layer.
        SurgeryError: there are none.
    """
    layers = {name_of(block): block.layer.name for block in graph.layers if block.layer is not None}
    if skip is None:
        last = {name_of(block) for block in graph.layers if graph.needed & set(range(*block.span.indices(graph.size)))}
        own = frozenset(layers) - last
    else:
        whole = match_globs(skip, layers.values(), "layer")
        own = frozenset(weight for weight, name in layers.items() if name not in whole)
    if not own:
        names = ", ".join(layers.values()) or "none"
        raise SurgeryError(f"{network.title} has no kernels that may go, of: {names}; see skip=")
    return own


def _stays(network: Network, graph: ChannelGraph, kept: Kernels) -> dict[str, Tensor]:
    """Which entries of each layer's weight may be other than zero."""
    found = {}
    for block in graph.layers:
        assert block.layer is not None
        name = block.layer.weight
        found[name] = block.layer.weight_of(block.over_entries(kept[name]), network.program.state(name))
    return found
