"""Single steps of the search for a plan, each on numbers that are written down."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.allocation import latency_bounds
from secateur.allocation.block_order import REFITTED, _BlockPrices, _without_neighbours
from secateur.allocation.block_search import _BlockSearch
from secateur.allocation.block_trials import coarse_counts, doubled_counts, middle_counts
from secateur.allocation.candidate_plans import Candidate
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.latency_bounds import LatencyClock, _cut_and_time_plans
from secateur.allocation.loss_order import _Savings
from secateur.allocation.plan_sizes import ANY, Allocation
from secateur.allocation.removal_sequence import RemovalSequence
from secateur.allocation.search import PlanSearch
from secateur.allocation.strategies import OrderContext
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.evaluation.latency_table import LatencyTable


def perceptron() -> sc.Network:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return sc.trace(model, torch.randn(2, 4))


def test_blocks_next_to_one_before_are_measured_again() -> None:
    group: Any = SimpleNamespace(block_paths=("a", "b", "c", "d", "e"))
    assert _without_neighbours(["c", "b", "a", "d", "e"], group) == ["c", "a", "e"]


def test_the_layers_that_are_refitted_lie_behind_the_block() -> None:
    names = ("stem", "layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "layers.2.up", "head")
    layers = [SimpleNamespace(node=number) for number in range(len(names))]
    position = {number: number for number in range(len(names))}
    simulator: Any = SimpleNamespace(network=SimpleNamespace(program=SimpleNamespace(position=position)), layers=layers)
    prices = _BlockPrices(simulator, None, None, None)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.allocation.block_order.module_path", names.__getitem__)
        behind = [names[layer.node] for layer in prices._layers_behind("layers.0")]  # type: ignore[call-overload]
    assert len(behind) == REFITTED
    assert behind == ["layers.1.up", "layers.1.down", "layers.2.up"]


@dataclass(frozen=True)
class WrittenPlan:
    """A plan as far as the search reads it."""

    kept: Any
    notes: tuple[str, ...] = ()
    effective: EffectiveMacs | None = None


class WrittenSearch(_BlockSearch):
    """A search whose plans have the losses that a test says, by the number of blocks that they leave out."""

    error = 0.0  # by which the roots of the losses of plans without blocks differ between examples
    examples = 2

    def __init__(
        self, losses: Sequence[float], allocations: Sequence[Allocation] = (), steps_kept: Sequence[int] = ()
    ) -> None:
        self.losses, self.tried, self._keep, self.steps_kept = losses, list[int](), {"macs": 0.5}, steps_kept
        self._search: Any = SimpleNamespace(
            allocations=allocations, config=SimpleNamespace(filled_target="cpu"), latency=None,
            simulate=lambda candidate: candidate, best_of_allocations=lambda keep: self.candidate(()),
            prefers_filling=bool(steps_kept),
        )  # fmt: skip
        paths = tuple(str(number) for number in range(len(losses) - 1))
        self._order: Any = SimpleNamespace(paths=paths, by_single_price=paths)
        self._by_dropped = {(): self.candidate(())}

    def candidate(self, dropped: tuple[str, ...], name: str = "uniform") -> Candidate:
        error = self.error if dropped else 0.0
        root = math.sqrt(self.losses[len(dropped)])
        losses = torch.tensor([root + error, root - error]).square().repeat(self.examples // 2)
        effective = EffectiveMacs(16, 100, self.steps_kept[len(dropped)]) if self.steps_kept else None
        kept = {"blocks": self._order.paths[len(dropped) :], name: [0]}
        plan: Any = WrittenPlan(kept, (), effective)
        return Candidate(plan, Allocation((name,), dropped=dropped), losses)

    def _plan(self, allocation: Allocation) -> Candidate | None:
        self.tried.append(len(allocation.dropped))
        return self.candidate(allocation.dropped, allocation.names[0])

    def _is_time_up(self) -> bool:
        return False

    def _most_blocks(self, order: Sequence[str]) -> int:
        """No budget limits the number of blocks here."""
        return len(order)


def test_numbers_of_blocks_are_tried_until_two_in_turn_are_worse() -> None:
    rising = WrittenSearch([0.0, *map(float, range(1, 13))])
    rising._search_counts(Allocation(("uniform",)))
    coarse = coarse_counts(12)
    assert rising.tried[:2] == coarse[1:3]
    assert not {*rising.tried} & {*coarse[3:]}
    falling = WrittenSearch([float(13 - count) for count in range(13)])
    falling._search_counts(Allocation(("uniform",)))
    assert max(falling.tried) > max(rising.tried)
    assert len(falling._best.allocation.dropped) == max(falling.tried)


@pytest.mark.parametrize(
    ("losses", "error", "tried", "left_out"),
    [
        ([2.0, 2.5, 1.0, 0.5], 0.0, [1], 0),  # the first block alone does not gain: no others are tried
        ([2.0, 1.5, 1.0, 3.0], 0.0, [1, 2, 3], 2),
        ([2.0, 1.5, 1.0, 3.0], 0.9, [1, 2, 3], 0),  # within the error
        ([2.0, 1.9, 1.8, 1.7, 1.0, 1.1], 0.0, [1, 2, 4, 5], 4),  # twice as many each time, and all at last
    ],
)
def test_blocks_are_left_out_for_macs_where_that_is_clearly_nearer(
    losses: list[float], error: float, tried: list[int], left_out: int
) -> None:
    search = WrittenSearch(losses)
    search.error, search._by_dropped = error, {}
    search._exchange_blocks = lambda: None  # type: ignore[method-assign]
    assert len(search.best().allocation.dropped) == left_out
    assert sorted({*search.tried}) == tried


@pytest.mark.parametrize(
    ("examples", "error", "steps_kept", "tried", "left_out"),
    [
        # 3.05 for 2.43 * (80 / 63) ** 1.5 = 3.48; the first block alone is not worth it
        (2, 0.0, [80, 68, 65, 64, 63, 62, 61, 60, 59], [1, 2, 4, 8, 1], 4),
        (128, 1.6, [80, 68, 65, 64, 63, 62, 61, 60, 59], [1, 2, 4, 8, 1], 4),  # so many examples decide by their mean
        (126, 1.6, [80, 68, 65, 64, 63, 62, 61, 60, 59], [1, 2, 4, 8, 1], 0),  # within the roots' error of .14
        (2, 0.0, [80] * 9, [1, 2, 1], 0),  # no faster than with all blocks
        (2, 0.0, [], [1], 0),  # no device is planned for
    ],
)
def test_blocks_are_left_out_for_macs_where_the_time_that_they_take_is_worth_it(
    examples: int, error: float, steps_kept: list[int], tried: list[int], left_out: int
) -> None:
    search = WrittenSearch([2.43, 3.13, 3.30, 3.19, 3.05, 3.4, 3.59, 3.7, 3.83], steps_kept=steps_kept)
    search.examples, search.error, search._by_dropped = examples, error, {}
    best = search.best()
    assert len(best.allocation.dropped) == left_out
    assert search.tried == tried
    assert ("3.0500 (63% of the MACs in steps)" in best.plan.notes[-1]) == (steps_kept[4:5] == [63])


@pytest.mark.parametrize(
    ("is_filling", "whole_target", "tried"), [(True, ANY, ["cpu", ANY]), (True, "cpu", ["cpu"]), (False, ANY, [ANY])]
)
def test_without_some_blocks_sizes_fill_kernels_or_are_like_those_of_the_plan_with_all(
    is_filling: bool, whole_target: str, tried: list[str]
) -> None:
    """The better of both is kept, for a number of blocks; those that fill kernels may not meet the budget."""
    losses = {"cpu": 3.0, ANY: 1.0}

    class PlannedSearch(WrittenSearch):
        unmet: str | None = None

        def _plan(self, allocation: Allocation) -> Candidate | None:
            targets.append(allocation.target)
            candidate = self.candidate(allocation.dropped)
            kept = candidate._replace(allocation=allocation, losses=torch.full((2,), losses[allocation.target]))
            return None if allocation.target == self.unmet else kept

    for unmet in (None, "cpu"):
        targets = list[str]()
        search = PlannedSearch([2.0, 2.0], steps_kept=[100, 100])
        search.unmet, search._search.prefers_filling = unmet, is_filling
        whole = search.candidate(())
        search._leave_out_while_better(whole._replace(allocation=whole.allocation._replace(target=whole_target)))
        assert targets == tried
        if ANY in tried:
            assert search._by_dropped[("0",)].allocation.target == ANY


def test_numbers_of_blocks_double() -> None:
    assert [doubled_counts(blocks) for blocks in (0, 1, 2, 3, 4, 11)] == [
        [], [1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 8, 11]
    ]  # fmt: skip


def test_a_budget_in_time_takes_the_nearest_plan() -> None:
    search = WrittenSearch([2.0, 2.5, 1.9])
    search.error, search._by_dropped, search._search.latency = 1.3, {}, "a table"
    search._exchange_blocks = lambda: None  # type: ignore[method-assign]
    assert len(search.best().allocation.dropped) == 2


def test_middles_lie_between_the_best_number_and_its_neighbours() -> None:
    assert middle_counts([0, 4, 8, 16], 4) == [2, 6]
    assert middle_counts([0, 4, 8, 16], 0) == [2]
    assert middle_counts([0, 1, 3], 1) == [2]


def test_where_no_plan_with_all_blocks_fits_the_best_curves_of_single_groups_allocate() -> None:
    estimated, measured = Allocation(("loss",)), Allocation(("loss",), {"a": torch.zeros(2)})
    whole = measured._replace(whole=("residual",))
    search = WrittenSearch(
        [0.0], [Allocation(("uniform",)), estimated, measured, measured._replace(names=("a", "b")), whole]
    )
    assert search._fallback_allocation() == measured
    mixed = [Allocation(("uniform",)), Allocation(("uniform", "loss")), whole]
    assert WrittenSearch([0.0], mixed)._fallback_allocation() == whole


def test_other_allocations_are_tried_with_the_blocks_of_the_best_plan() -> None:
    search = WrittenSearch([3.0, 1.0, 2.0], [Allocation(("uniform",)), Allocation(("loss",))])
    search._by_dropped[("0",)] = search.candidate(("0",))
    simulated: list[Candidate] = []
    search._search.simulate = lambda candidate: (simulated.append(candidate), candidate)[1]
    search._plan = lambda allocation: Candidate(  # type: ignore[method-assign]
        WrittenPlan({"a": range(3 if allocation.names == ("loss",) else 2)}),  # type: ignore[arg-type]
        allocation, torch.tensor([0.5]),
    )  # fmt: skip
    search._by_dropped[("0",)] = search._plan(Allocation(("uniform",), dropped=("0",)))  # type: ignore[assignment]
    search._try_other_allocations()
    assert [(candidate.allocation.names, candidate.allocation.dropped) for candidate in simulated] == [
        (("loss",), ("0",))
    ]


def test_measured_curves_are_those_that_plans_are_mixed_from() -> None:
    """Of a criterion that estimates losses there are two curves; residual widths stay whole beside other kinds."""
    measured = {"a": torch.tensor([0.0, 1.0])}
    config: Any = SimpleNamespace(allocation="auto", dropped=(), refits=True, curves=measured)

    class Scored(dict[str, Any]):
        by = "obs"

    def allocations(**kinds: str) -> list[Allocation]:
        network = {name: SimpleNamespace(kind=kind) for name, kind in kinds.items()}
        simulator: Any = SimpleNamespace(network=network, examples=64)
        return candidate_allocations(simulator, Scored(kinds), config)  # type: ignore[arg-type]

    uniform, estimated, by_loss, mixed, whole = allocations(a="channels", b="residual")
    assert uniform == Allocation(("uniform",))
    assert estimated == Allocation(("loss",), None)
    assert by_loss == Allocation(("loss",), measured)
    assert mixed == Allocation(("uniform", "loss"), measured)
    assert whole == Allocation(("loss",), measured, whole=("residual",))
    assert len(allocations(a="channels")) == 4
    assert len(allocations(a="residual")) == 4


@pytest.mark.parametrize("step", [1, 2, 4])
def test_the_saving_of_a_unit_is_the_mean_of_those_removed_at_once(step: int) -> None:
    """Each of eight units between 4 inputs and 2 outputs has 6 of 48 MACs."""
    network = perceptron()
    context = OrderContext(network, network.groups, ("macs",))
    savings = _Savings(context, [np.arange(0, 9, step)])
    assert savings.next_savings(np.array([0])).tolist() == pytest.approx([1 / 8])
    assert savings.next_savings(np.array([4])).tolist() == pytest.approx([1 / 8])


def test_without_a_model_the_dense_network_takes_the_milliseconds_of_the_table() -> None:
    program = SimpleNamespace(writes=())
    calibration: Any = SimpleNamespace(microbatches=[None], network=SimpleNamespace(program=program))
    assert LatencyClock(calibration, None, "cpu", LatencyTable((), 0.002)).dense_ms == 2.0


@dataclass(frozen=True)
class TimedPlan:
    """A plan by the fraction of the time that it was made for."""

    fraction: float
    keep: Any = None
    notes: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("speed", "tried"),
    [
        (0.8, [0.5, 0.625]),  # it takes less than it was made for: in proportion
        (0.1, [0.5, 1.0]),  # no plan takes longer than the dense network
        (1.25, [0.5, 0.4]),
    ],
)
def test_times_of_plans_lead_to_the_next_one(speed: float, tried: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    fractions: list[float] = []

    def plan(budget: dict[str, float], allocation: Any = None) -> TimedPlan:
        fractions.append(budget["latency"])
        return TimedPlan(budget["latency"])

    search: Any = SimpleNamespace(plan=plan, tied_network=SimpleNamespace(separate=lambda plan: plan))
    best = lambda search, budget: SimpleNamespace(plan=plan(budget), allocation=Allocation(("uniform",)))  # noqa: E731
    monkeypatch.setattr(latency_bounds, "best_plan", best)
    monkeypatch.setattr(latency_bounds, "_time_ratio", lambda stopwatch, model, plan: speed * plan.fraction)
    unused: Any = None
    chosen: Any = _cut_and_time_plans(search, unused, unused, {"latency": 0.5}, {"latency": 0.5})
    assert fractions == pytest.approx(tried)
    assert chosen.fraction == pytest.approx(tried[-1])


class FilledSearch(PlanSearch):
    """A search whose plans of any sizes and of filling sizes differ."""

    def plan(self, keep: Any, allocation: Allocation) -> Any:
        return SimpleNamespace(kept={"a": range(5)}, notes=())

    def _filling_candidates(self, keep: Any, allocations: Sequence[Allocation]) -> Iterator[Candidate]:
        plan: Any = SimpleNamespace(kept={"a": range(4)}, notes=())
        yield from (Candidate(plan, allocation._replace(target="cpu")) for allocation in allocations)

    def _with_filled_kernels(self, keep: Any, ranking: Sequence[Candidate]) -> Candidate:
        return ranking[0]


@pytest.mark.parametrize(("latency", "target"), [(None, ANY), (LatencyTable((), 1.0), "cpu")])
def test_sizes_that_fill_kernels_come_first_for_a_budget_in_time_alone(latency: Any, target: str) -> None:
    missing: Any = None
    search = FilledSearch(missing, missing, missing, latency, [Allocation(("uniform",))])
    assert search.best_of_allocations({}).allocation.target == target


@pytest.mark.parametrize(("sizes", "is_coarse"), [(range(1, 9), False), (range(3, 9), False), ((2, 4, 6, 8), True)])
def test_a_group_is_coarse_where_it_has_no_size_in_between(sizes: Sequence[int], is_coarse: bool) -> None:
    sequence: Any = SimpleNamespace(context=SimpleNamespace(sizes=[np.array(sizes)], groups=[SimpleNamespace(size=8)]))
    assert RemovalSequence._is_coarse(sequence, 0) is is_coarse
