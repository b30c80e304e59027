"""Graphs, sets and other inputs of which a batch is one example."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from random_plans import plan_of, run
from secateur.data.batch import Batch
from secateur.surgery.verify import output_difference

pytestmark = untrained_networks


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


GRAPHS = {"node": lambda: GraphNetwork("node"), "graph": lambda: GraphNetwork("graph")} | {
    "edge": MessageNetwork,
    "set": SetNetwork,
}


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
