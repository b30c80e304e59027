"""Whole blocks beside channels in one plan: cost, cut, masked run, repair, saving, and which blocks go."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.allocation.block_order import BlockOrder
from secateur.allocation.block_search import _BlockSearch
from secateur.allocation.block_trials import sufficient_count
from secateur.allocation.config import PruneConfig
from secateur.allocation.latency_bounds import CLOSE
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.block_selection import with_selected_blocks
from secateur.coupling.group_sizes import requested_sizes
from secateur.coupling.kinds import USUAL
from secateur.coupling.prefix_cost import PrefixCost
from secateur.coupling.residual_blocks import blocks_of, without_blocks
from secateur.data.conversion import as_batches
from secateur.errors import BudgetError
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.timing import Stopwatch
from secateur.importance.context import network_microbatches
from secateur.masking.ablation import MeanAblation
from secateur.tracing import is_convolutional
from secateur.training.masks import Masks

pytestmark = untrained_networks

MIXED = (*USUAL, "blocks")


class Block(nn.Module):
    """Two convolutions beside a skip; what its last layer gives is scaled."""

    def __init__(self, channels: int, strength: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 24, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        nn.init.constant_(self.bn2.weight, strength)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


class Residual(nn.Module):
    """A stem, blocks of different strength, a head."""

    def __init__(self, strengths: tuple[float, ...] = (1.0, 0.05, 1.0, 0.5)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.layers = nn.Sequential(*(Block(20, strength) for strength in strengths))
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(torch.relu(self.stem(x)))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def residual(*strengths: float) -> Residual:
    torch.manual_seed(0)
    return (Residual(strengths) if strengths else Residual()).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_blocks_stand_beside_other_units() -> None:
    model, x = residual(), images(2)
    plain, mixed = sc.trace(model, x), sc.trace(model, x, kinds=MIXED)
    group = blocks_of(mixed)
    assert group is not None
    assert group.block_paths == ("layers.0", "layers.1", "layers.2", "layers.3")
    assert [other.name for other in mixed.groups[:-1]] == [other.name for other in plain.groups]
    assert mixed.cost() == plain.cost()
    assert str(without_blocks(mixed)) == str(plain)
    assert list(sc.score(mixed, by="l2")) == list(sc.score(plain, by="l2"))


@pytest.mark.parametrize("removal", ["mean", "zero"])
def test_a_mixed_plan_costs_and_computes_what_it_says(removal: str, tmp_path: Path) -> None:
    model, x = residual(), images(64)
    network = sc.trace(model, x[:2], kinds=MIXED)
    scores = sc.score(network, x, by="apoz", ablation=removal, progress=False)
    plan = sc.plan(network, scores, {"macs": 0.4}, dropped=["layers.1", "layers.3"])
    assert plan.cost.macs <= 0.4 * plan.dense.macs
    assert plan.kept["blocks"].tolist() == [0, 2]
    assert "layers.1.conv1" not in plan.kept
    assert "left out: layers.1, layers.3" in str(plan)
    small = sc.cut(model, plan)
    assert sum(p.numel() for p in small.parameters()) == plan.cost.params
    masked = network.program.forward(
        as_batches(x[:2])[0], MeanAblation(plan.means).handlers(network, network.mask(plan.kept)[None])
    )
    assert torch.allclose(small(x[:2]), masked, atol=1e-5)
    before = (small(x) - model(x)).square().mean()
    sc.repair(small, model, plan, x, progress=False)
    assert (small(x) - model(x)).square().mean() < before
    sc.save(small, tmp_path)
    assert torch.equal(sc.load(residual(), tmp_path)(x), small(x))


def test_costs_by_counts_and_by_masks_agree_where_blocks_are_gone() -> None:
    network = sc.trace(residual(), images(2), kinds=MIXED)
    base = {"blocks": torch.tensor([0, 3])}
    groups = network.groups[:-1]
    costs = PrefixCost(network, groups, mask=network.mask(base))
    for share in (1.0, 0.5, 0.1):
        counts = np.array([max(round(group.size * share), 1) for group in groups])
        kept = {group.name: torch.arange(int(count)) for group, count in zip(groups, counts, strict=True)}
        assert costs.cost(counts) == network.cost({**kept, **base})


def test_the_weak_block_goes_first() -> None:
    model, x = residual(), images(96)
    network = sc.trace(model, x[:2], kinds=MIXED)
    simulator = PlanSimulator(Calibration(network, network_microbatches(network, as_batches(x))))
    names = set(network.by_name)
    order = BlockOrder(simulator, lambda kept: network.cost(kept).macs / network.cost().macs, names).paths
    assert order[0] == "layers.1"
    assert sorted(order) == ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert set(BlockOrder(simulator, lambda kept: 1.0, names, lambda: True).paths) == set(order)
    assert "layers.2" not in BlockOrder(simulator, lambda kept: 1.0, names - {"layers.2.conv1"}, lambda: True).paths


def test_what_earlier_blocks_lose_makes_no_other_block_cheaper() -> None:
    """The first block goes first. Of the others, the last saves twice as much, for ten times the loss."""
    network = sc.trace(residual(), images(2), kinds=MIXED)
    group = blocks_of(network)
    assert group is not None
    saved, losses = (1000.0, 1.0, 1.0, 2.0), (10.0, 0.3, 0.1, 1.0)

    def total_without(kept: Any, values: tuple[float, ...]) -> float:
        return sum(value for index, value in enumerate(values) if index not in kept["blocks"])

    class AddedLosses:
        def __init__(self) -> None:
            self.network, self.layers = network, list[Any]()

        def divergence(self, kept: Any, layers: list[Any]) -> float:
            return total_without(kept, losses)

    simulator: Any = AddedLosses()
    order = BlockOrder(simulator, lambda kept: 2000 - total_without(kept, saved), set(network.by_name)).paths
    assert order == tuple(group.block_paths[number] for number in (0, 2, 1, 3))


def test_an_unknown_dropped_block_is_refused() -> None:
    network = sc.trace(residual(), images(2), kinds=MIXED)
    with pytest.raises(sc.SecateurError, match=r"dropped names no block .*did you mean 'layers.1'"):
        sc.plan(network, sc.score(network, by="l2"), {"macs": 0.5}, dropped=["layer.1"])


def test_prune_mixes_blocks_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = residual(), images(64)
    result = sc.prune(model, x, {"macs": 0.5}, kinds=MIXED, progress=False)
    assert result.plan.cost.macs <= 0.5 * result.plan.dense.macs
    assert any("divergence by how many" in note for note in result.plan.notes)

    def parameters_left(small: nn.Module) -> float:
        """Parameters stand for time: other work on the machine must not decide what a test says."""
        return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())

    monkeypatch.setattr(Stopwatch, "time_ratio", lambda _, small: parameters_left(small))
    result = sc.prune(model, x, {"latency": 0.6}, progress=False, repair=None)
    assert blocks_of(result.plan.network) is not None
    assert parameters_left(result.model) <= 0.6 * CLOSE


@pytest.mark.parametrize(
    ("keep", "options", "has_blocks"),
    [
        ({"macs": 0.5}, {}, True),
        ({"params": 0.5}, {}, False),
        ({"macs": 0.5}, {"allocation": "uniform"}, False),
        ({"macs": 0.5}, {"repair": None}, False),
        ({"macs": 0.5}, {"kinds": "channels"}, False),
        ({"macs": 0.5}, {"as_program": True}, False),
    ],
)
def test_blocks_are_tried_where_plans_are_compared_for_macs(
    keep: dict[str, float], options: dict[str, Any], has_blocks: bool
) -> None:
    result = sc.prune(residual(), images(32), keep, progress=False, **{"by": "l2", "repair": "refit", **options})
    assert (blocks_of(result.plan.network) is not None) is has_blocks
    assert any("divergence by how many" in note for note in result.plan.notes) is has_blocks


class NamedBlocks(nn.Module):
    """A network whose module of blocks has the name of the group of whole blocks."""

    def __init__(self) -> None:
        super().__init__()
        inner = residual()
        self.stem, self.blocks, self.head = inner.stem, inner.layers, inner.head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize("selector", ["*", "blocks"])
def test_numbers_of_units_are_not_of_blocks_beside_others(selector: str) -> None:
    network = sc.trace(NamedBlocks().eval(), images(2), kinds=MIXED)
    widths = {"stem": 10} | {f"blocks.{number}.conv1": 12 for number in range(4)}
    assert requested_sizes(network, {selector: 0.5}) == requested_sizes(network, {selector: "50%"}) == widths
    assert requested_sizes(network, {"blocks": [0, 2]})["blocks"].tolist() == [0, 2]  # type: ignore[union-attr]
    assert requested_sizes(sc.trace(residual(), images(2), kinds=MIXED), {"blocks": 4}) == {"blocks": 4}


def test_a_network_of_linear_layers_keeps_its_blocks() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    assert is_convolutional(residual())
    assert not is_convolutional(
        nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.TransformerEncoder(block, 2, enable_nested_tensor=False))
    )


def test_blocks_that_do_nothing_are_left_out_for_macs() -> None:
    model, x = residual(1, 0, 1, 0), images(64)
    result = sc.prune(model, x, {"macs": 0.5}, repair="refit", progress=False)
    kept = result.model.layers
    assert [type(block) for block in kept] == [Block, nn.Identity, Block, nn.Identity]
    assert not any(type(module).__module__.startswith("secateur") for module in result.model.modules())


def test_no_more_blocks_are_left_out_than_the_budget_asks_for() -> None:
    model, kinds = residual(1, 0, 0, 0), ("residual", "blocks")  # three blocks do nothing, and the width loses much
    result = sc.prune(model, images(64), {"params": 0.8}, kinds=kinds, by="l2", repair=None, progress=False)
    assert [type(block) for block in result.model.layers].count(nn.Identity) == 1


@pytest.mark.parametrize(("keep", "count"), [({"macs": 0.76}, 1), ({"macs": 0.6}, 2), ({"macs": 0.001}, 4)])
def test_blocks_that_suffice_for_a_budget_are_counted(keep: dict[str, float], count: int) -> None:
    network = sc.trace(residual(), images(2), kinds=MIXED)
    order = [f"layers.{index}" for index in (3, 1, 0, 2)]
    assert sufficient_count(network, order, keep) == count


def test_a_budget_that_is_met_without_blocks_alone_is_met_by_widths_that_fill_no_kernels() -> None:
    result = sc.prune(residual(), images(32), {"macs": 0.002}, by="l2", progress=False)
    assert any(type(block) is nn.Identity for block in result.model.layers)
    assert result.plan.cost.macs <= 0.002 * result.plan.dense.macs


def test_a_block_that_is_gone_in_training_is_zero_as_a_whole() -> None:
    model = residual()
    network = sc.trace(model, images(2), kinds=MIXED)
    group = blocks_of(network)
    assert group is not None
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    Masks(model, network).remove(torch.tensor([group.offset + 1]))
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if name.startswith("layers.1.") else before[name]
        assert torch.equal(parameter, expected), name


@pytest.mark.parametrize(
    ("selection", "blocks"),
    [
        ({"skip": "layers.1"}, [0, 2, 3]),
        ({"skip": "layers.1.conv2"}, [0, 2, 3]),
        ({"skip": ["layers.1.*", "layers.3.conv1"]}, [0, 2]),
        ({"skip": nn.Conv2d}, []),
        ({"skip": "stem"}, [0, 1, 2, 3]),
        ({"only": "layers.[02]"}, [0, 2]),
        ({"only": "layers.*", "skip": "layers.0.bn1"}, [1, 2, 3]),
        ({"only": Block}, [0, 1, 2, 3]),
        ({"only": "layers.2.conv1"}, []),
    ],
)
@pytest.mark.parametrize("kinds", [MIXED, "blocks"])
def test_selections_choose_among_blocks(kinds: Any, selection: dict[str, Any], blocks: list[int]) -> None:
    network = sc.trace(residual(), images(2), kinds=kinds)
    if not blocks and kinds == "blocks":
        with pytest.raises(sc.SecateurError, match=r"leave none of the blocks layers\.0, layers\.1"):
            with_selected_blocks(network, **selection)
        return
    selected = with_selected_blocks(network, **selection)
    paths = [group.block_paths for group in selected.groups if group.block_paths]
    assert paths == ([tuple(f"layers.{index}" for index in blocks)] if blocks else [])
    assert selected.units == network.units - 4 + len(blocks)
    assert selected.cost() == network.cost()
    if blocks:
        left_out = {selected.groups[-1].name: torch.arange(len(blocks) - 1)}
        index = torch.tensor([index for index in range(4) if index != blocks[-1]])
        assert selected.cost(left_out) == network.cost({network.groups[-1].name: index})


def test_a_module_of_the_model_selects_blocks() -> None:
    model = residual()
    network = sc.trace(model, images(2), kinds=MIXED)
    assert with_selected_blocks(network, skip=[model.layers[1].bn2]).groups[-1].size == 3
    with pytest.raises(sc.SecateurError, match="no block is named 'layer'"):
        with_selected_blocks(sc.trace(model, images(2), kinds="blocks"), skip="layer")


@pytest.mark.parametrize(
    "options",
    [{"skip": "layers.1"}, {"only": "layers.[023]*"}, {"sizes": {"layers.1.conv1": 24}}],
)
def test_a_budget_in_time_leaves_blocks_as_they_are_that_the_selection_names(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = residual(1, 0, 0, 1), images(64)
    monkeypatch.setattr(Stopwatch, "time_ratio", lambda _, small: _parameters(small) / _parameters(model))
    result = sc.prune(model, x, {"latency": 0.6}, by="l2", repair="refit", progress=False, **options)
    kept = result.model.layers
    assert type(kept[1]) is Block
    assert kept[1].conv1.weight.shape[0] == 24
    assert type(kept[2]) is nn.Identity


def test_blocks_alone_by_a_selection() -> None:
    model, x = residual(), images(64)
    result = sc.prune(
        model, x, {"macs": 0.6}, kinds="blocks", by="leave-one-out", skip="layers.1", rounds=2, progress=False
    )
    assert type(result.model.layers[1]) is Block
    assert sum(type(block) is Block for block in result.model.layers) == 2


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("is_timed", "refused", "tried"), [(True, "", ["avx512"]), (True, "avx512", ["avx512", "any"]),
                                                            (False, "", ["any"])])  # fmt: skip
def test_sizes_fill_kernels_without_some_blocks_where_they_do_not_with_all(
    is_timed: bool, refused: str, tried: list[str]
) -> None:
    targets: list[str] = []

    class Search:
        latency, config = is_timed or None, PruneConfig(target="avx512")

        def plan(self, keep: Any, allocation: Allocation) -> str:
            targets.append(allocation.target)
            if allocation.target == refused:
                raise BudgetError("refused")
            return allocation.target

    search: Any = _BlockSearch.__new__(_BlockSearch)
    search._search, search._keep = Search(), {"latency": 0.5}
    candidate = search._plan(Allocation(("loss",)))
    assert targets == tried
    assert candidate.plan == candidate.allocation.target == tried[-1]


class LinearBlock(nn.Module):
    """Two linear layers beside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.last(torch.relu(self.first(x)))
        return x + change


def test_units_inside_of_dropped_blocks_count_as_removed() -> None:
    model = nn.Sequential(nn.Linear(4, 6), *(LinearBlock() for _ in range(3)), nn.Linear(6, 2))
    network = sc.trace(model, torch.randn(2, 4), kinds=["blocks", "neurons", "residual"])  # 6 + 3 * 10 + 3 units
    scores = sc.score(network, by="l2")
    plan = sc.plan(network, scores, {"units": 0.7}, dropped="2")
    kept = sum(len(units) for units in plan.kept.values())
    assert "2.first" not in plan.kept
    assert kept == int(0.7 * 39)
    filled = sc.plan(network, scores, {"units": 27}, dropped="2", round_to=2)
    assert sum(len(units) for units in filled.kept.values()) <= 27
