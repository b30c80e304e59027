"""`plan`: how many units go, and from where, for a budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.budget.curves import Curves, check_curves, curves_of
from secateur.budget.keep import COUNTED, DROPS, TIMES, Keep, fractions, fractions_of, parse_keep, with_latency
from secateur.budget.latency import LatencyTable
from secateur.budget.orders import LOSSES, ORDERS, Asked, between
from secateur.budget.quantities import quantity_text
from secateur.entry import entry_point
from secateur.errors import BudgetError
from secateur.importance.scores import GroupScores, Scores
from secateur.network.cost import Cost
from secateur.network.masked import reader_key
from secateur.network.new_biases import grown_biases
from secateur.network.units import Group, Kept, Network
from secateur.options import check_name, check_option
from secateur.tables import columns


@dataclass(frozen=True, eq=False)
class Plan:
    """What stays of a network.

    Args:
        network: the traced network.
        kept: original indices of the units that stay, by group, ascending.
        means: what stands in the place of removed units: the mean input of each reader, or nothing for zero.
        cost: of the plan, and `dense` of the whole network.
        keep: the budget that was asked for.
    """

    network: Network
    kept: Kept
    means: Mapping[str, Tensor]
    cost: Cost
    dense: Cost
    keep: Keep

    @property
    def new_biases(self) -> tuple[str, ...]:
        """The biases that layers without one get for the means of removed units."""
        return tuple(grown_biases(self.network, self.network.mask(self.kept))) if self.means else ()

    def __str__(self) -> str:
        rows = [["", "dense", "plan", "left"]]
        for unit in ("params", "macs", "bytes"):
            before, after = getattr(self.dense, unit), getattr(self.cost, unit)
            rows.append([unit, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}"])
        rows.append(["", "", "", ""])
        rows += [
            [
                group.name,
                str(group.size),
                str(len(self.kept[group.name])),
                f"{len(self.kept[group.name]) / group.size:.0%}",
            ]
            for group in self.network.groups
            if group.name in self.kept
        ]
        return "\n".join([*columns(rows), *bias_lines(self.new_biases)])


def bias_lines(names: Sequence[str]) -> list[str]:
    """What a reader should know of new biases, in words; nothing where there are none."""
    if not names:
        return []
    return [f"biases that are new, for the means of removed units: {', '.join(names)}"]


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

    Raises:
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
    if set(budget) & set(DROPS):
        raise BudgetError(f"keep={dict(budget)} is a bound on what is lost, which must be tried: use prune()")
    if latency is None and set(budget) & set(TIMES):
        raise BudgetError("a budget in time needs a table of this machine's times: give latency=, or use prune()")
    limits = with_latency(network, budget, 1.0 if latency is None else 1e3 * latency.dense_seconds)
    search = Search.of(network, scores, allocation, round_to, floor, list(limits), curves, latency)
    steps = search.first_within(limits)
    kept = search.kept(steps)
    folds = bool(scores.means)
    return Plan(network, kept, scores.means, network.cost(kept, folds), network.cost(), budget)


@dataclass(frozen=True, eq=False)
class Search:
    """An order in which units go, and what is left after a number of them went.

    Args:
        network: the network.
        groups: the groups that may lose units.
        ranked: for each of them its units in ascending order of their scores.
        order: for each step the number (in `groups`) of the group that loses its next unit.
        fewest: for each group how many must stay.
        round_to: numbers of units are multiples of this.
        folds: whether biases are added for the means of removed units.
        latency: the times of this machine, where the budget is in latency.
    """

    network: Network
    groups: tuple[Group, ...]
    ranked: tuple[Tensor, ...]
    order: np.ndarray
    fewest: tuple[int, ...]
    round_to: int
    folds: bool
    latency: LatencyTable | None = None

    @staticmethod
    def of(
        network: Network,
        scores: Scores,
        allocation: str | Sequence[str],
        round_to: int,
        floor: float,
        units: Sequence[str] = (),
        curves: Curves | None = None,
        latency: LatencyTable | None = None,
    ) -> "Search":
        check_option("round_to", round_to)
        check_option("floor", floor)
        names = [allocation] if isinstance(allocation, str) else list(allocation)
        for name in names:
            check_name(name, ORDERS, f"allocation={name!r} is unknown", shows=False)
            if name == "loss" and curves is None and scores.by not in LOSSES:
                raise BudgetError(
                    f"allocation='loss' needs to know what the loss grows by, which scores by {scores.by!r} "
                    "don't tell; give curves=, or rank by 'obs'"
                )
        groups = tuple(group for group in network.groups if group.name in scores)
        _check_sizes(network, groups, scores)
        if curves is not None:
            check_curves(curves, {group.name: group.size for group in groups})
        _check_numbers(network, groups, scores)
        round_to = int(round_to)
        values = [scores[group.name].values.double() for group in groups]
        ranked = tuple(torch.argsort(value, stable=True) for value in values)
        asked = Asked(units, curves_of(scores) if curves is None else curves, latency)
        orders = [ORDERS[name](network, groups, values, asked) for name in names]
        order = orders[0] if len(orders) == 1 else between(orders)
        fewest = tuple(_fewest(group, round_to, floor) for group in groups)
        return Search(network, groups, ranked, order, fewest, round_to, bool(scores.means), latency)

    def kept(self, steps: int) -> dict[str, Tensor]:
        """What stays after a number of steps."""
        gone = np.bincount(self.order[:steps], minlength=len(self.groups))
        kept = {}
        for group, ranked, lost, fewest in zip(self.groups, self.ranked, gone.tolist(), self.fewest, strict=True):
            step = math.lcm(self.round_to, group.multiple)
            left = max(math.ceil((group.size - lost) / step) * step, fewest)
            kept[group.name] = ranked[max(group.size - left, 0) :].sort().values
        return kept

    def left(self, steps: int, units: Sequence[str]) -> dict[str, float]:
        """The fraction of the dense network that is left after a number of steps, in each of these units."""
        kept = self.kept(steps)
        return fractions(self.network, kept, self.network.cost(kept, self.folds), units, self.latency)

    def first_within(self, budget: Keep) -> int:
        """The fewest steps after which every budget is met."""
        least = self.left(len(self.order), list(budget))
        missed = {unit: least[unit] for unit, limit in budget.items() if least[unit] > limit}
        if missed:
            raise BudgetError(
                f"keep={dict(budget)} can't be met: the smallest reachable is "
                + ", ".join(f"{unit} {math.ceil(value * 1e4) / 1e4:g}" for unit, value in missed.items())
                + self._in_numbers(list(missed))
                + f" with {len(self.groups)} of {len(self.network.groups)} groups, floor and round_to as given; ask "
                "for more, lower the floor, or see what is frozen with print(network)"
            )
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self._meets(middle, budget):
                high = middle
            else:
                low = middle + 1
        return low

    def _in_numbers(self, units: Sequence[str]) -> str:
        """The least that can be reached in these units, in absolute numbers, where they are counted."""
        least = self.network.cost(self.kept(len(self.order)), self.folds)
        numbers = [quantity_text(unit, getattr(least, unit)) for unit in units if unit in ("params", "macs", "bytes")]
        return f" ({', '.join(numbers)})" if numbers else ""

    def _meets(self, steps: int, budget: Keep) -> bool:
        left = self.left(steps, list(budget))
        return all(left[unit] <= limit for unit, limit in budget.items())


def _check_sizes(network: Network, groups: Sequence[Group], scores: Scores) -> None:
    strange = [name for name in scores if name not in network.by_name]
    wrong = [group for group in groups if len(scores[group.name].values) != group.size]
    if strange or wrong:
        name = strange[0] if strange else wrong[0].name
        raise BudgetError(
            f"these are scores of another network: {len(scores[name].values)} units of {name}, where "
            f"{network.title} has {network.by_name[name].size if not strange else 'no such group'}; score this one"
        )


def _check_numbers(network: Network, groups: Sequence[Group], scores: Scores) -> None:
    """
    Raises:
        BudgetError: a score or a mean is NaN or infinite, or a mean is one of another network.
    """
    for group in groups:
        if not bool(torch.isfinite(scores[group.name].values).all()):
            raise BudgetError(f"the scores of {group.name} are NaN or infinite; score the network again")
    readers = {reader_key(reader): reader.units.shape for reader in network.readers}
    for name, mean in scores.means.items():
        if readers.get(name) != mean.shape or not bool(torch.isfinite(mean).all()):
            raise BudgetError(f"the mean of {name} is NaN, infinite, or of another network; score this one")


def _fewest(group: Group, round_to: int, floor: float) -> int:
    wanted = max(group.fewest, math.ceil(group.size * floor) if floor < 1 else int(floor))
    step = math.lcm(round_to, group.multiple)
    return min(group.size, math.ceil(wanted / step) * step)


def _unscored(network: Network, groups: Sequence[Group], round_to: int, floor: float) -> Search:
    """The same share from every one of these groups, whichever units they are."""
    flat = {group.name: GroupScores.exact(torch.arange(group.size)) for group in groups}
    return Search.of(network, Scores(flat, "order", 0, {}, ""), "uniform", round_to, floor)


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
def reachable(network: Network, *, round_to: int = 1, floor: float = 1) -> str:
    """A table of what can be reached when the same share goes from every group, before anything is scored or cut.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> print(sc.reachable(sc.trace(model, torch.randn(2, 4))))
        of units  params    MACs   bytes
          100.0%  100.0%  100.0%  100.0%
           87.5%   87.9%   87.5%   87.9%
        ...
    """
    search = _unscored(network, network.groups, round_to, floor)
    rows = [["of units", "params", "MACs", "bytes"]]
    total = len(search.order)
    for share in (1.0, 0.9, 0.75, 0.5, 0.35, 0.25, 0.1, 0.0):
        left = search.left(round(total * (1 - share)), ["units", "params", "macs", "bytes"])
        rows.append([f"{value:.1%}" for value in left.values()])
    return "\n".join(columns(rows, frozenset()))
