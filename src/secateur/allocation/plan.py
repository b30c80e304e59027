"""`plan`: how many units go, and from where, for a budget."""

from collections.abc import Mapping, Sequence

import torch

from secateur.allocation.budget import (
    COUNTED,
    QUALITY_BOUNDS,
    TIMES,
    fractions,
    fractions_of,
    parse_keep,
    with_latency,
)
from secateur.allocation.loss_curves import Curves
from secateur.allocation.removal_sequence import RemovalSequence
from secateur.coupling.effective_macs import effective_macs
from secateur.coupling.network import Group, Network
from secateur.coupling.plan import Plan
from secateur.entry import entry_point
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import ANY, AUTO, channel_step
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import GroupScores, Scores
from secateur.utils.text_table import align_columns


@entry_point
def plan(
    network: Network,
    scores: Scores,
    keep: Mapping[str, float | str],
    *,
    allocation: str | Sequence[str] = "uniform",
    curves: Curves | None = None,
    latency: LatencyTable | None = None,
    round_to: int = 1,
    floor: float = 1,
    target: str = ANY,
    dropped: str | Sequence[str] = (),
) -> Plan:
    """Choose the units that stay, so that the budget is met within one unit.

    Units go one after another, in an order that `allocation` makes of the scores, until every budget is met; those of
    one group always in the order of their scores.

    Args:
        network: the traced network.
        scores: what its units are worth; groups without scores stay whole.
        keep: what is left: `{"macs": 0.5}`, "params", "bytes" or "units", as a fraction of the dense network or as an
            absolute number, `{"params": "2M"}`; with a table of times `{"latency": 0.5}`, `{"speedup": 2}` or
            `{"ms": 5}`. Several are all met.
        allocation: "uniform": the same share of every group; "global": one ranking of all units, by their scores
            divided by the root of the mean square of their group's (after Molchanov et al. 2017, section 2.2); "raw":
            one ranking of all units by their scores as they are (Molchanov et al. 2019), for criteria whose scores are
            changes of the loss; "loss": where the loss grows least for what is saved, by `curves`. Several names:
            half-way between them.
        curves: of each group what the loss grows by when so many units are gone, (units + 1,); by default the scores
            themselves where they are such losses, as those by "obs" are.
        latency: the times of this machine, by `measure_latency`, for a budget in "latency".
        round_to: numbers of units are multiples of this, where a group has as many; kernels like 8 or 16.
        floor: the fewest units that a group keeps; below 1 a fraction of the group. 0 lets all blocks go.
        target: the device whose kernels the sizes are to fill: "auto" for the one that the network is on, "cpu",
            "onnxruntime", "cuda", "tensorrt", "mps", or a processor, "avx512", "avx2", "arm". Groups keep multiples of
            as many channels as its kernels work on at once, or stay whole; groups no wider than that keep any number.
            "any": whatever the scores say.
        dropped: blocks that go as a whole, by their paths, where the network was traced with blocks beside other kinds;
            what lies in them counts as gone.

    Raises:
        NameMatchError: there is no such allocation or target.
        BudgetError: a budget is out of range or in an unknown unit, or can't be met; then the smallest reachable value
            is named.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> plan = sc.plan(network, sc.score(network, by="l1"), keep={"macs": 0.5})
        >>> len(plan.kept["0"]), plan.cost.macs / plan.dense.macs
        (4, 0.5)
    """
    budget = parse_keep(keep)
    if set(budget) & set(QUALITY_BOUNDS):
        raise BudgetError(f"keep={dict(budget)} is a bound on what is lost, which must be tried: use prune()")
    if latency is None and set(budget) & set(TIMES):
        raise BudgetError("a budget in time needs a table of this machine's times: give latency=, or use prune()")
    limits = with_latency(network, budget, 1.0 if latency is None else 1e3 * latency.dense_seconds)
    step, gone = channel_step(target, network.device), [dropped] if isinstance(dropped, str) else list(dropped)
    search = RemovalSequence.of(
        network, scores, allocation, round_to, floor, list(limits), curves, latency, step.size, gone
    )
    kept = search.within(limits)
    cost = network.cost(kept, bool(scores.means))
    shown = step if step.size > 1 else channel_step(AUTO, network.device)
    return Plan(network, kept, scores.means, cost, network.cost(), budget, effective_macs(network, kept, shown.size))


def _unscored(network: Network, groups: Sequence[Group], round_to: int, floor: float) -> RemovalSequence:
    """The same share from every one of these groups, whichever units they are."""
    flat = {group.name: GroupScores.exact(torch.arange(group.size)) for group in groups}
    return RemovalSequence.of(network, Scores(flat, "order", 0, {}, ""), "uniform", round_to, floor)


def check_reachable(
    network: Network, groups: Sequence[Group], keep: Mapping[str, float | str], round_to: int, floor: float
) -> None:
    """
    Raises:
        BudgetError: a budget can't be met, whatever the scores will be.
    """
    budget = {unit: value for unit, value in fractions_of(network, parse_keep(keep)).items() if unit in COUNTED}
    _unscored(network, groups, round_to, floor).first_within(budget)


@entry_point
def reachable(network: Network, *, round_to: int = 1, floor: float = 1, target: str = AUTO) -> str:
    """A table of what can be reached when the same share goes from every group, before anything is scored or cut.

    The last column counts channels up to multiples of what the target's kernels work on at once.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> print(sc.reachable(sc.trace(model, torch.randn(2, 4)), target="cuda"))
        of units  params    MACs   bytes  MACs in 8s
          100.0%  100.0%  100.0%  100.0%      100.0%
           87.5%   87.9%   87.5%   87.9%      100.0%
        ...
    """
    search = _unscored(network, network.groups, round_to, floor)
    step = channel_step(target, network.device)
    rows = [["of units", "params", "MACs", "bytes", *([f"MACs in {step.size}s"] if step.size > 1 else [])]]
    total = len(search.order)
    for share in (1.0, 0.9, 0.75, 0.5, 0.35, 0.25, 0.1, 0.0):
        kept = search.kept(round(total * (1 - share)))
        left = fractions(network, kept, network.cost(kept), ["units", "params", "macs", "bytes"], None)
        effective = effective_macs(network, kept, step.size)
        shares = [*left.values(), *([effective.left / max(effective.dense, 1)] if step.size > 1 else [])]
        rows.append([f"{value:.1%}" for value in shares])
    return "\n".join(align_columns(rows, frozenset()))
