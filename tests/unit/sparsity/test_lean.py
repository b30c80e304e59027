"""LEAN: norms against explicit matrices, chains against a plain search, graphs by hand, and what died is cut."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from copied_traces import copies_traced_once
from expected_warnings import unread_targets
from lean_networks import UnpaddedTower
from random_plans import traced_without_options
from secateur.channel_graph.build import graph_of
from secateur.channel_graph.graph import ChannelBlock
from secateur.channel_graph.op_norms import operator_norms
from secateur.errors import SurgeryError
from secateur.sparsity.dead_kernels import used_channels
from secateur.sparsity.lean import LeanResult, lean
from secateur.sparsity.selection import by_norm, name_of
from zoo import ZOO


class Skips(nn.Module):
    """Two branches from one map, a sum, a concatenation, pooling and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.branch, self.side = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.fc = nn.Linear(7 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.stem(x))
        b = F.max_pool2d(torch.cat([a + self.branch(a), self.side(a)], 1), 2)
        return self.fc(b.flatten(1))


def test_the_graph_of_skips_and_concatenations() -> None:
    model = Skips().eval()
    nn.init.uniform_(model.stem[1].weight, -2, 2)
    nn.init.uniform_(model.stem[1].running_var, 0.5, 2)
    graph = graph_of(sc.trace(model, torch.randn(2, 2, 4, 4)))
    stem, norm, branch, total, side, pool, fc = graph.blocks
    assert [b.operator for b in graph.blocks] == [
        "conv2d",
        "batch_norm",
        "conv2d",
        "add",
        "conv2d",
        "max_pool2d",
        "linear",
    ]
    assert stem.sources.tolist() == [[1, 2]] * 4 and not graph.breaks
    factor = model.stem[1].weight.abs() / (model.stem[1].running_var + 1e-5).sqrt()
    plain = operator_norms(model.stem[0].weight, (4, 4), (1, 1), (1, 1))
    assert torch.allclose(stem.values.exp(), plain * factor.detach().double()[:, None])  # the norm is the kernel's own
    assert not bool(norm.values.any())
    maps = list(range(norm.first, norm.first + 4))
    assert branch.sources.tolist() == [maps] * 4 and side.sources.tolist() == [maps] * 3
    assert sorted(map(sorted, total.sources.tolist())) == [[maps[i], branch.first + i] for i in range(4)]
    assert float(total.values.abs().sum()) == 0  # skips are edges of value 1
    assert torch.allclose(pool.values, torch.tensor(0.5).log().double())  # the mean of 2 x 2
    assert fc.sources.shape == (5, 7) and graph.needed == frozenset(range(fc.first, fc.first + 5))
    lengths = model.fc.weight.detach().double().view(5, 7, 4).norm(dim=2)
    order = [fc.sources[0].tolist().index(c) for c in pool_order(pool, total, side)]
    assert torch.allclose(fc.values.exp()[:, order], lengths)


def pool_order(pool: ChannelBlock, total: ChannelBlock, side: ChannelBlock) -> list[int]:
    """Channels behind the pooling in the order of the concatenation."""
    by_source = {int(source): pool.first + row for row, source in enumerate(pool.sources[:, 0])}
    channels = [*range(total.first, total.first + 4), *range(side.first, side.first + 3)]
    return [by_source[channel] for channel in channels]


@pytest.mark.parametrize("name", sorted(ZOO))
@unread_targets
def test_every_network_has_a_graph_and_can_be_pruned(name: str) -> None:
    """Half of the kernels, cut for real: what comes back runs and is no larger."""
    if name in ("experts", "routed", "head width", "bundles as a program", "hard-wired program"):
        return  # traced with options of their own
    model, example, network = traced_without_options(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with copies_traced_once(name):
        keep, pruned = pruned_if_it_can_be(model, example)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    graph = graph_of(network)
    needed = used_channels(graph, {name_of(block): block.edges for block in graph.layers})
    assert all(bool(needed[block.span].all()) for block in graph.layers), "a layer's channels are read by nobody"
    longest = len(graph.layers)  # the last chain is kept whole
    assert pruned.kernels[1] < max(1, round(keep * pruned.kernels[0])) + longest
    assert pruned.plan.cost.params <= network.cost().params
    network.program.bind(network.example)
    with torch.no_grad():
        pruned.model(*network.example.args, **network.example.kwargs)


def pruned_if_it_can_be(model: nn.Module, example: Any) -> tuple[float, LeanResult]:
    """With half of the kernels, or nine of ten where half leave a constant, which is an error."""
    try:
        return 0.5, lean(model, example, keep=0.5, skip=())
    except SurgeryError as failure:
        assert "no way from its input" in str(failure)
    return 0.9, lean(model, example, keep=0.9, skip=())


@pytest.mark.parametrize("norm", [False, True])
def test_channels_that_died_are_cut_and_their_constants_stay(norm: bool) -> None:
    """A channel without kernels is a constant: cut, it goes into the bias of those who read it, or their batch norm."""
    model = UnpaddedTower(norm).eval()
    if norm:
        for module in model.norms:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    with torch.no_grad():
        model.first.weight[2] = 0  # nothing comes in
        model.last.weight[:, 4] = 0  # nobody reads it
    x = torch.randn(3, 1, 10, 10)
    pruned = lean(model, x, keep=1.0)
    assert pruned.model.first.weight.shape[0] == pruned.model.second.weight.shape[0] == 5
    assert torch.allclose(pruned.model(x), model(x), atol=1e-5)
    assert pruned.kernels == (6 + 36, 5 + 25)


def test_channels_that_hardly_vary_are_constants() -> None:
    model = UnpaddedTower(norm=True).eval()
    with torch.no_grad():
        model.norms[0].running_var[3] = 1e-14
        model.norms[0].bias[3] = 2.0
    x = torch.randn(2, 1, 10, 10)
    pruned = lean(model, x, keep=1.0)
    assert pruned.model.first.weight.shape[0] == 5
    still = UnpaddedTower(norm=True).eval()
    still.load_state_dict(model.state_dict())
    with torch.no_grad():
        still.norms[0].weight[3] = 0  # gives its constant, whatever comes in
    assert torch.allclose(pruned.model(x), still(x), atol=1e-5)


def test_rounds_fall_geometrically_and_zeros_stay_at_zero_in_training() -> None:
    model, x = UnpaddedTower(norm=True), torch.randn(4, 1, 10, 10)
    zeros: list[float] = []

    def fit(small: nn.Module) -> None:
        optimizer = torch.optim.Adam(small.parameters(), 0.01, weight_decay=0.1)
        are_zero = {name: p.detach() == 0 for name, p in small.named_parameters() if p.dim() > 1}
        for _ in range(5):
            optimizer.zero_grad()
            small(x).square().mean().backward()
            optimizer.step()
            zeros.append(sum(float(p[are_zero[n]].abs().sum()) for n, p in small.named_parameters() if n in are_zero))

    pruned = lean(model, x, keep=0.25, rounds=3, fit=fit)
    assert [r.asked for r in pruned.rounds] == [pytest.approx(0.25 ** (k / 3)) for k in (1, 2, 3)]
    assert len(zeros) == 15 and sum(zeros) == 0
    assert [r.kernels for r in pruned.rounds] == sorted((r.kernels for r in pruned.rounds), reverse=True)
    assert pruned.kernels[1] <= round(0.25 * 42)


def test_baselines_by_hand() -> None:
    """One threshold for the whole network; by the norm each batch norm's factor counts."""
    model = UnpaddedTower(norm=True).eval()
    nn.init.uniform_(model.norms[0].weight, 0.1, 3)
    x = torch.randn(1, 1, 10, 10)
    sums = torch.cat([w.detach().abs().sum((2, 3)).flatten() for w in (model.first.weight, model.second.weight)])
    pruned = lean(model, x, keep=30 / 42, by="l1")
    dense = sc.trace(model, x)
    kept = [pruned.plan.kept[group.name] for group in dense.groups]
    mask = (sums >= sums.sort(descending=True).values[29]).split([6, 36])
    first = mask[0][kept[0]]
    assert torch.equal((pruned.model.first.weight.abs().sum((1, 2, 3)) > 0), first)
    values = [
        operator_norms(layer.weight, (size, size), (1, 1), (1, 1)) * factor(norm)
        for layer, size, norm in ((model.first, 10, model.norms[0]), (model.second, 8, model.norms[1]))
    ]
    threshold = torch.cat([magnitudes.flatten() for magnitudes in values]).sort(descending=True).values[20]
    graph = graph_of(dense)
    chosen, _ = by_norm(graph, frozenset({"first.weight", "second.weight"}), 21)
    assert torch.equal(chosen["first.weight"], values[0] >= threshold)
    assert torch.equal(chosen["second.weight"], values[1] >= threshold)


def factor(norm: nn.BatchNorm2d) -> Tensor:
    return (norm.weight.abs() / (norm.running_var + norm.eps).sqrt()).detach().double()[:, None]


class NormCalledTwice(nn.Module):
    """Two layers whose biases differ, with the same batch norm behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x)).relu()
        scores: Tensor = self.last(self.norm(self.second(hidden)).relu())
        return scores


def test_constants_of_two_layers_are_not_put_into_the_mean_of_one_norm() -> None:
    """The mean can hold one level alone, so the channels of a norm that is called twice keep their kernels."""
    torch.manual_seed(0)
    model, x = NormCalledTwice().eval(), torch.randn(2, 1, 10, 10)
    with torch.no_grad():
        model.norm.running_var[3] = 1e-14
        for layer, level in ((model.first, 1.0), (model.second, 3.0)):
            layer.weight[3] = 0
            layer.bias[3] = level
        model.norm.running_mean[3] = 1.0 - 1e-3
    pruned = lean(model, x, keep=1.0)
    torch.testing.assert_close(pruned.model(x), model(x), rtol=1e-3, atol=1e-3)
