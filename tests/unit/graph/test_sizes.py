"""Batches of other sizes than those of the example that the network was traced with."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import secateur as sc
from expected_warnings import untrained_networks
from random_plans import drawn, plan_of, run, traced
from secateur.data.batch import Batch
from secateur.graph.program import Program
from secateur.masking.ablation import run_masked
from secateur.surgery.verify import output_difference
from zoo_others import PooledByHand

pytestmark = untrained_networks

RESIZED = (
    "class token", "unet", "group norm", "time first", "cross attention", "shuffles", "routed", "repeats",
)  # fmt: skip


def larger(batch: Batch, by: int) -> Batch:
    """Random inputs whose axes behind the channels, or before the width of sequences, are longer."""

    def change(tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        axes = range(2, tensor.dim()) if tensor.dim() > 3 else range(1, tensor.dim() - 1)
        for axis in axes:
            shape[axis] += by
        return torch.randn(shape, generator=torch.Generator().manual_seed(by)).to(tensor)

    return batch.map(change)


@pytest.mark.parametrize("name", RESIZED)
def test_the_cut_network_equals_the_masked_one_at_other_sizes(name: str) -> None:
    model, _, network = traced(name)
    kept = drawn(network, 1)
    small = sc.cut(model, plan_of(network, kept, {}))
    for by in (4, 2):
        batch = larger(network.example, by)
        assert any(a.shape != b.shape for a, b in zip(batch.tensors, network.example.tensors, strict=True))
        worst, allowed = output_difference(run_masked(network, batch, network.mask(kept), {}), run(small, batch))
        assert worst <= allowed


class CountedExports:
    """Count the exports of models."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        export = torch.export.export

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return export(*args, **kwargs)

        monkeypatch.setattr(torch.export, "export", counted)


def images(*sizes: int, seed: int = 0, examples: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Labelled batches of images of these sizes."""
    draws = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(examples, 3, size, size, generator=draws), torch.randint(0, 4, (examples,), generator=draws))
        for size in sizes
    ]


def test_one_more_export_serves_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PooledByHand().eval()
    network = sc.trace(model, images(8)[0][0])
    exports = CountedExports(monkeypatch)
    for size in (12, 10, 7, 16, 9, 8, 12):
        batch = Batch((images(size)[0][0],), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
    assert exports.count == 1


@pytest.mark.parametrize("by", ["obs", "taylor-gates", "apoz", "shapley", "leave-one-out"])
def test_scores_do_not_depend_on_the_size_of_the_example(by: str) -> None:
    torch.manual_seed(0)
    model, data = PooledByHand().eval(), images(8, 12, 8, 10)
    options = {"coalitions": 40} if by == "shapley" else {}
    here, there = (
        sc.score(sc.trace(model, images(size)[0][0], as_program=True), data, by=by, progress=False, **options)
        for size in (8, 12)
    )
    for name in here:
        assert torch.allclose(here[name].values, there[name].values, rtol=1e-3, atol=1e-6), name


def test_shapley_values_of_mixed_sizes_are_those_of_each_size() -> None:
    """Efficiency: the values of a group sum to what its absence costs, on examples of every size."""
    torch.manual_seed(1)
    model, data = PooledByHand().eval(), images(8, 12)
    network = sc.trace(model, images(8)[0][0], as_program=True)
    scores = sc.score(network, data, by="shapley", only="join", estimator="exact", aggregate="mean", progress=False)
    mask = network.mask({"join": torch.arange(0)})
    costs = []
    for x, y in data:
        batch = Batch((x,), {})
        losses = [
            F.cross_entropy(output, y, reduction="none")
            for output in (run_masked(network, batch, mask, scores.means), run(model, batch))
        ]
        costs.append(losses[0] - losses[1])
    assert float(scores["join"].values.sum()) == pytest.approx(float(torch.cat(costs).mean()), rel=1e-4, abs=1e-6)


def test_a_loader_of_mixed_sizes_is_pruned_as_each_size_says() -> None:
    """The repaired network is near the dense one at both sizes, the report's loss that of the model's own code."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), Mean())
    model, data = nn.Sequential(*model, nn.Linear(8, 4)).eval(), images(8, 12, 9, 16, seed=2, examples=16)
    result = sc.prune(model, data, {"macs": 0.6}, holdout=0, progress=False)
    with torch.no_grad():
        losses = torch.cat([F.cross_entropy(result.model(x), y, reduction="none") for x, y in data])
        gaps = torch.cat([(result.model(x) - model(x)).abs().amax(1) for x, _ in data])
    assert result.report.pruned.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert float(gaps.max()) < 0.2
    comparison = sc.compare(model, data, by=("obs", "l2"), keep={"macs": 0.6}, progress=False)
    assert {trial.by for trial in comparison.trials} == {"obs", "l2"}


def test_a_program_that_is_cut_refuses_mixed_sizes_before_any_work() -> None:
    with pytest.raises(sc.SecateurError, match=r"batch 1 of data.*a program is cut, which fixes axis 2"):
        sc.prune(PooledByHand().eval(), images(8, 12), {"macs": 0.6}, as_program=True, progress=False)


class Mean(nn.Module):
    """The mean over space, by its size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


class Branches(nn.Module):
    """Takes another way for large images, and for single examples."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.single = single
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if not self.single and h.shape[2] > 10:
            h = F.relu(self.b(h))
        if self.single and h.shape[0] != 1:
            h = h * 2
        return self.c(h.mean((2, 3)))


def test_a_size_that_takes_another_way_through_the_code_is_refused() -> None:
    network = sc.trace(Branches(single=False).eval(), images(8)[0][0])
    network.program.forward(Batch((images(9)[0][0],), {}))
    with pytest.raises(sc.SecateurError, match=r"\(8, 3, 12, 12\) where the network was traced with \(2, 3, 8, 8\)"):
        network.program.forward(Batch((images(12)[0][0],), {}))


def test_one_example_that_takes_another_way_is_refused() -> None:
    network = sc.trace(Branches(single=True).eval(), images(8)[0][0])
    with pytest.raises(sc.SecateurError, match=r"\(1, 3, 8, 8\)"):
        network.program.forward(Batch((images(8, examples=1)[0][0],), {}))


def test_an_input_that_is_no_tensor_and_another_is_not_taken_for_the_same() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.b(F.relu(self.a(x)) * scale)

    model, x = Scaled().eval(), torch.randn(6, 4)
    network = sc.trace(model, {"x": x, "scale": 1.0})
    other = Batch((), {"x": x, "scale": 3.0})
    assert output_difference(network.program.forward(other), run(model, other))[0] < 1e-6


def test_a_program_without_a_model_refuses_other_sizes() -> None:
    network = sc.trace(PooledByHand().eval(), images(8)[0][0])
    program = Program(network.program.exported, network.program.batched, network.program.names)
    with pytest.raises(sc.SecateurError, match="fixes axis 2 of that input at 8"):
        program.forward(Batch((images(12)[0][0],), {}))


class FixedViews(nn.Module):
    """A batch size in the code, as recurrent and detection code has it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.embed, self.gru, self.fc = nn.Linear(5, 8), nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)
        self.register_buffer("h0", torch.zeros(1, size, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.embed(x).view(self.size, 4, -1))
        return self.fc(self.gru(h, self.h0)[0][:, -1])


@pytest.mark.parametrize("size", [1, 48])
def test_a_batch_size_in_the_code_works_in_every_stage(size: int) -> None:
    torch.manual_seed(0)
    model = FixedViews(size).eval()
    data = [(torch.randn(size, 4, 5), torch.randint(0, 3, (size,))) for _ in range(8)]
    result = sc.prune(model, data, {"params": 0.7}, repair=("refit", "adapt", "tune"), holdout=0, progress=False)
    assert result.plan.cost.params < result.plan.dense.params
    assert result.report.examples == 8 * size
    for by in ("shapley", "taylor-gates", "leave-one-out", "apoz"):
        options = {"coalitions": 20} if by == "shapley" else {}
        scores = sc.score(result.plan.network, data, by=by, progress=False, **options)
        assert all(torch.isfinite(scores[name].values).all() for name in scores), by


def test_a_data_set_is_batched_as_the_code_asks_and_a_shorter_batch_is_refused() -> None:
    network = sc.trace(FixedViews(48).eval(), torch.randn(48, 4, 5))
    whole = TensorDataset(torch.randn(96, 4, 5), torch.randint(0, 3, (96,)))
    assert sc.score(network, whole, by="apoz", progress=False)
    with pytest.raises(sc.SecateurError, match=r"\(4, 4, 5\).*drop_last"):
        sc.score(network, TensorDataset(torch.randn(100, 4, 5)), by="apoz", progress=False)


class Head(nn.Module):
    """Makes its grid anew only where the features have another shape than the last ones, as detection heads do."""

    def __init__(self, *, by_class: bool = False, whole_shape: bool = True, by_grid: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.whole_shape, self.by_grid = whole_shape, by_grid
        self.grid = torch.empty(0)
        if not by_class:
            self.shape: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(F.relu(self.b(F.relu(self.a(x)))))
        shape = y.shape if self.whole_shape else y.shape[2:]
        if (self.grid.shape if self.by_grid else self.shape) != shape:
            self.shape = shape
            self.grid = torch.arange(y.shape[2] * y.shape[3]).float().view(1, 1, *y.shape[2:])
            self.grid = self.grid.expand(y.shape) if self.by_grid else self.grid
        return (y + self.grid).flatten(2)


class ClassHead(Head):
    shape = None


@pytest.mark.parametrize("seen", [None, 2, 3])
@pytest.mark.parametrize(
    "make",
    [
        Head,
        lambda: Head(whole_shape=False),
        lambda: Head(by_grid=True),
        lambda: ClassHead(by_class=True),
    ],
    ids=["shape", "height and width", "grid", "class"],
)
def test_a_head_that_remembers_the_last_shape_is_exported_as_if_it_had_seen_none(make: Any, seen: int | None) -> None:
    torch.manual_seed(0)
    model = make().eval()
    if seen is not None:
        model(torch.randn(seen, 3, 8, 8))
    before = dict(vars(model))
    network = sc.trace(model, torch.randn(3, 3, 8, 8))
    assert {name: id(value) for name, value in vars(model).items()} == {name: id(v) for name, v in before.items()}
    assert network.program.batched is not None
    assert {group.name: group.size for group in network.groups} == {"a": 8, "b": 8}
    for shape in ((3, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 12, 8)):
        batch = Batch((torch.randn(shape),), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5


class GraphNetwork(nn.Module):
    """Features of nodes and an adjacency matrix; one result for each node, each edge, or the whole graph."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        self.gives = gives
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = F.relu(self.b(adjacency @ F.relu(self.a(adjacency @ x))))
        if self.gives == "graph":
            h = h.mean(0, keepdim=True)
        return self.c(h)


class FeaturesFirst(GraphNetwork):
    """A layer for each node alone before the nodes meet: only the rows of the adjacency matrix vary by themselves."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return self.c(F.relu(self.b(adjacency @ F.relu(self.a(x)))))


class SetNetwork(nn.Module):
    """One result for a set of points, without an axis for examples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))).amax(0))


class MessageNetwork(nn.Module):
    """Nodes and pairs of them; a result for each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.c(torch.cat([h[edges[0]], h[edges[1]]], 1))


def graphs(kind: str, sizes: tuple[int, ...]) -> list[Any]:
    draws = torch.Generator().manual_seed(0)
    pairs = []
    for nodes in sizes:
        x = torch.randn(nodes, 5, generator=draws)
        adjacency = torch.rand(nodes, nodes, generator=draws) / nodes
        edges = torch.randint(0, nodes, (2, 2 * nodes), generator=draws)
        inputs = {"set": (x,), "edge": (x, edges)}.get(kind, (x, adjacency))
        labels = {"node": nodes, "edge": 2 * nodes, "graph": 1, "set": 1}[kind]
        pairs.append((inputs, torch.randint(0, 3, (labels,), generator=draws)))
    return pairs


GRAPHS = {"node": lambda: GraphNetwork("node"), "graph": lambda: GraphNetwork("graph")}
GRAPHS |= {"edge": MessageNetwork, "set": SetNetwork}


@pytest.mark.parametrize("kind", list(GRAPHS))
def test_graphs_of_several_sizes_are_examples(kind: str) -> None:
    """The loss of every unit's removal is that of the model's own code, graph by graph."""
    torch.manual_seed(0)
    model, data = GRAPHS[kind]().eval(), graphs(kind, (40, 33, 7, 40, 21, 35))
    result = sc.prune(model, data, {"params": 0.7}, holdout=0, progress=False)
    network = result.plan.network
    nodes = sum(len(y) for _, y in data) if kind == "node" else len(data)
    assert result.report.examples == nodes
    scores = sc.score(network, data, by="leave-one-out", ablation="zero", only="a", progress=False)
    silent = {"a": torch.tensor([0, 2, 3, 4, 5, 6, 7])}
    small = sc.cut(model, plan_of(network, silent, {}))
    gaps = []
    for inputs, y in data:
        pair = (run(network_of_pair, Batch(inputs, {})) for network_of_pair in (small, model))
        losses = [F.cross_entropy(o.reshape(-1, 3), y.reshape(-1), reduction="none") for o in pair]
        gaps += (losses[0] - losses[1]).tolist() if kind == "node" else [float((losses[0] - losses[1]).mean())]
    assert float(scores["a"].values[1]) == pytest.approx(sum(gaps) / len(gaps), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", list(GRAPHS))
def test_every_criterion_takes_graphs(kind: str) -> None:
    torch.manual_seed(0)
    model, data = GRAPHS[kind]().eval(), graphs(kind, (40, 33, 7, 40))
    network = sc.trace(model, data)
    assert network.example.is_one_example == (kind != "node")
    for by in ("obs", "shapley", "taylor", "taylor-gates", "sensitivity", "apoz", "fpgm"):
        options = {"coalitions": 20} if by == "shapley" else {}
        scores = sc.score(network, data, by=by, progress=False, **options)
        assert all(torch.isfinite(scores[name].values).all() for name in scores), by


def test_nodes_are_no_batch_where_the_rows_of_the_adjacency_matrix_may_vary() -> None:
    torch.manual_seed(0)
    model, data = FeaturesFirst("node").eval(), graphs("node", (40, 33, 7))
    network = sc.trace(model, data)
    assert network.program.batched is None
    for inputs, _ in data:
        batch = Batch(inputs, {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5


def test_an_ordinary_network_has_examples() -> None:
    for model in (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), nn.Sequential(nn.Linear(5, 3))):
        assert not sc.trace(model, torch.randn(6, 5)).example.is_one_example


class Masked(nn.Module):
    """A mean over positions that a mask leaves, by the length of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.b((F.relu(self.a(x)) * mask[..., None]).sum(1) / x.shape[1])


def test_inputs_by_name_may_come_in_any_order_at_any_size() -> None:
    model = Masked().eval()

    def batch(length: int) -> dict[str, Tensor]:
        return {"x": torch.randn(5, length, 4), "mask": (torch.rand(5, length) > 0.3).float()}

    network = sc.trace(model, batch(6))
    other = batch(9)
    turned = Batch((), {"mask": other["mask"], "x": other["x"]})
    assert output_difference(network.program.forward(turned), run(model, turned))[0] < 1e-6


class Windows(nn.Module):
    """Pads images to a multiple of a window, again and again, as windowed attention does."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(blocks))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            height, width = x.shape[2:]
            y = F.pad(x, (0, 3 - width % 3, 0, 3 - height % 3))
            b, c, h, w = y.shape
            y = y.view(b, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 3, 3)
            y = F.relu(block(y - y.mean((2, 3), keepdim=True)))
            y = y.view(b, h // 3, w // 3, c, 3, 3).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
            x = F.avg_pool2d(x + y[:, :, :height, :width], 2)
        return self.fc(x.mean((2, 3)))


def test_sizes_that_are_too_complex_to_vary_take_an_export_each(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Windows(3).eval()
    network = sc.trace(model, images(32)[0][0])
    exports = CountedExports(monkeypatch)
    for size in (44, 50, 44):
        batch = Batch((images(size)[0][0],), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
    assert exports.count == 3


class PaddedToMultiples(nn.Module):
    """Pads images to a multiple of the window and of the stride and crops them: nothing happens at some sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.down, self.fc = nn.Conv2d(8, 6, 2, 2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        h = F.relu(self.stem(x))
        y = F.pad(h, (0, -width % 4, 0, -height % 4))
        b, c, tall, wide = y.shape
        y = y.view(b, c, tall // 4, 4, wide // 4, 4).mean((2, 4), keepdim=True) + y.view(
            b, c, tall // 4, 4, wide // 4, 4
        )
        y = y.reshape(b, c, tall, wide)[:, :, :height, :width].contiguous()
        y = F.relu(self.mix(y + h))
        y = F.relu(self.down(F.pad(y, (0, width % 2, 0, height % 2))))
        return self.fc(y.sum((2, 3)) / (y.shape[2] * y.shape[3]))


@pytest.mark.parametrize("traced", [8, 9, 10])
def test_padding_that_some_sizes_do_without(traced: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = PaddedToMultiples().eval()
    network = sc.trace(model, images(traced)[0][0])
    assert {group.name: group.size for group in network.groups} == {"stem": 6, "mix": 8, "down": 6}
    kept = drawn(network, 2)
    small = sc.cut(model, plan_of(network, kept, {}))
    exports = CountedExports(monkeypatch)
    for size in (12, 8, 9, 10, 11, 16, 13):
        batch = Batch((images(size)[0][0],), {})
        worst, allowed = output_difference(run_masked(network, batch, network.mask(kept), {}), run(small, batch))
        assert worst <= allowed, size
    assert exports.count <= 8
