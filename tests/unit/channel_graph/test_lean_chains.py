"""LEAN's chains on whole networks, against a search through every path that knows only the modules."""

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.channel_graph.build import graph_of
from secateur.channel_graph.longest_chains import Chains
from secateur.errors import SurgeryError
from secateur.sparsity.lean import lean
from secateur.sparsity.selection import by_chains
from transposed_networks import TransposedDecoder

SIDE = 6


Edge = tuple[str, int, int]


def explicit_norm(convolve: nn.Module, kernel: Tensor) -> float:
    """The largest singular value of one kernel's matrix on a torus, one column for each pixel."""
    images = torch.eye(SIDE * SIDE, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
    reach = kernel.shape[-1] // 2
    padded = F.pad(images, (reach,) * 4, mode="circular") if reach else images
    return float(torch.linalg.matrix_norm(F.conv2d(padded, kernel[None, None].double()).flatten(1), 2))


class Plain(nn.Module):
    """Convolutions, each with a batch norm behind; the third layer is skipped by a sum."""

    def __init__(self, seed: int, widths: Sequence[int], skip: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        sizes = list(itertools.pairwise(widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in sizes)
        self.skip = skip
        for norm in self.norms:
            nn.init.uniform_(norm.weight, -5, 5)
            nn.init.uniform_(norm.running_var, 0.1, 2)

    def forward(self, x: Tensor) -> Tensor:
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            result = F.relu(norm(convolution(x)))
            x = result + x if self.skip and number == 2 else result
        return x

    def edges(self) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], Edge]]:
        """The value of every edge, and which kernel it is; nodes are 'layer:channel', `+` behind a sum."""
        values: dict[tuple[str, str], float] = {}
        kernels: dict[tuple[str, str], Edge] = {}
        maps = [f"0:{i}" for i in range(self.convolutions[0].in_channels)]
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            factor = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
            outputs = [f"{number + 1}:{o}" for o in range(convolution.out_channels)]
            for (o, to), (i, source) in itertools.product(enumerate(outputs), enumerate(maps)):
                values[source, to] = explicit_norm(convolution, convolution.weight[o, i].detach()) * float(factor[o])
                kernels[source, to] = (f"convolutions.{number}.weight", o, i)
            if self.skip and number == 2:
                total = [f"+:{o}" for o in range(len(outputs))]
                values |= {(a, t): 1.0 for pair in (outputs, maps) for a, t in zip(pair, total, strict=True)}
                maps = total
            else:
                maps = outputs
        return values, kernels


def best_path(
    values: Mapping[tuple[str, str], float], kernels: Mapping[tuple[str, str], Edge]
) -> tuple[float, list[Edge]]:
    """The path of the largest product among all that have a kernel, by looking at every one."""
    onward: dict[str, list[str]] = {}
    for source, to in values:
        onward.setdefault(source, []).append(to)
    best: tuple[float, list[Edge]] = (0.0, [])

    def follow(node: str, product: float, path: list[Edge]) -> None:
        nonlocal best
        if path and product > best[0]:
            best = (product, path)
        for to in onward.get(node, []):
            more = [kernels[node, to]] if (node, to) in kernels else []
            follow(to, product * values[node, to], path + more)

    for node in list(onward):
        follow(node, 1.0, [])
    return best


@pytest.mark.parametrize("seed", range(20))
def test_chains_of_convolutions_with_batch_norms_are_those_of_a_search_through_every_path(seed: int) -> None:
    widths = [(1, 3, 2, 2, 2), (2, 2, 3, 3), (1, 2, 2, 2), (2, 3, 2)][seed % 4]
    model = Plain(seed, widths, skip=len(widths) > 3 and widths[-1] == widths[-2]).eval()
    values, kernels = model.edges()
    graph = graph_of(sc.trace(model, torch.randn(1, widths[0], SIDE, SIDE)))
    count = 0
    for chain in Chains(graph):
        product, path = best_path(values, kernels)
        layers = {number: block.layer.weight for number, block in enumerate(graph.blocks) if block.layer is not None}
        assert math.exp(chain.value) == pytest.approx(product, rel=1e-5)
        assert [(layers[number], row, edge) for number, row, edge in reversed(chain.kernels)] == path
        values = {edge: value for edge, value in values.items() if edge not in kernels or kernels[edge] not in path}
        count += 1
    assert best_path(values, kernels)[0] < 1 and count > 2


def test_the_scale_between_a_convolution_and_its_batch_norm_is_of_no_account() -> None:
    model, x = Plain(0, (1, 3, 2, 2), skip=False).eval(), torch.randn(1, 1, SIDE, SIDE)
    before = [chain.kernels for chain in Chains(graph_of(sc.trace(model, x)))]
    with torch.no_grad():
        scales = torch.tensor([0.01, 1, 100])
        model.convolutions[0].weight.mul_(scales[:, None, None, None])
        model.norms[0].running_var.mul_(scales.square()).add_((scales.square() - 1) * 1e-5)
        model.norms[0].running_mean.mul_(scales)
    assert [chain.kernels for chain in Chains(graph_of(sc.trace(model, x)))] == before


def test_the_last_chain_is_kept_whole() -> None:
    model, x = Plain(0, (1, 3, 2, 2, 2), skip=False).eval(), torch.randn(1, 1, SIDE, SIDE)
    graph = graph_of(sc.trace(model, x))
    names = frozenset(f"convolutions.{number}.weight" for number in range(4))
    first = next(iter(Chains(graph)))
    assert len(first.kernels) > 1
    kept, counts = by_chains(graph, names, 1)
    assert sum(int(mask.sum()) for mask in kept.values()) == len(first.kernels) and counts == (1, 0)


def test_channels_whose_constant_no_layer_can_take_stay() -> None:
    model, x = TransposedDecoder(bias=False).eval(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        model.first.weight[1] = 0
        model.first.bias[1] = 2
    result = lean(model, x, keep=1.0)
    assert torch.allclose(result.model(x), model(x), atol=1e-5)


def test_a_network_that_would_give_a_constant_is_an_error() -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)),
        torch.randn(2, 1, 8, 8),
    )
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(SurgeryError, match=r"by='norm' leaves 25\.0%.*in round 1 of 1, and no way.*choose by='lean'"):
        lean(model, x, 0.25, by="norm")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_padding_and_flips_leave_maps_what_they_are() -> None:
    class Bordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(F.pad(x, (1, 1, 1, 1)))
            y = torch.cat([y[..., :1].flip(3), y, y[..., -1:].flip(3)], 3)
            result: Tensor = self.last(F.pad(y, (0, 0, 1, 1)))
            return result

    first, last = graph_of(sc.trace(Bordered(), torch.randn(1, 1, 6, 6))).blocks
    assert last.sources.tolist() == [[first.first, first.first + 1, first.first + 2]] * 2
