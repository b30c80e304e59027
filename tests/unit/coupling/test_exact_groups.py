"""Single operators that decide which units go together: exact groups of the smallest networks, before any trial cut.

A wrong group that only a trial cut refuses would be frozen in silence, so these look at what label tracing finds.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.coupling.network import Network
from secateur.coupling.rules.rule_checks import _fits
from secateur.coupling.shape_literals import expanded_sizes
from secateur.coupling.trace_groups import trace_groups
from secateur.data.batch import Batch
from secateur.graph.export import export_program
from secateur.graph.operators import operator_name


class Between(nn.Module):
    """Code between a first layer of eight units and what reads them."""

    def __init__(self, code: Callable[["Between", Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 1)
        self.upper, self.lower, self.single = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(1, 2)
        self.matrix, self.offset = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3))
        self.register_buffer("times", torch.tensor([1, 2, 1, 2, 1, 2, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def groups_of(code: Callable[[Between, Tensor], Tensor], *shape: int) -> Network:
    model, example = Between(code).eval(), Batch((torch.randn(*shape, 4),), {})
    return trace_groups(model, example, export_program(model, example))


def sizes(network: Network) -> list[tuple[str, int]]:
    return [(group.name, group.size) for group in network.groups]


def halves(model: Between, x: Tensor) -> Tensor:
    upper, lower = model.first(x).relu().chunk(2, -1)
    return model.upper(upper) + model.lower(lower)


def by_matrix(model: Between, x: Tensor) -> Tensor:
    return F.linear(model.first(x).relu(), model.matrix.t(), model.offset)


def single_head(model: Between, x: Tensor) -> Tensor:
    return torch.matmul(model.first(x), model.second(x).transpose(-1, -2))


def repeated(model: Between, x: Tensor) -> Tensor:
    return F.pad(model.first(x).repeat_interleave(model.times, -1), (0, -11)) @ torch.ones(1, 2)


def flattened(model: Between, x: Tensor) -> Tensor:
    return model.first(x).repeat_interleave(2).sum()


def picked(model: Between, x: Tensor) -> Tensor:
    return model.single(model.first(x).relu().select(-1, 3)[..., None])


def ramp(model: Between, x: Tensor) -> Tensor:
    hidden = model.first(x)
    return model.last(hidden * torch.arange(8)[None].to(x).expand_as(hidden))


def gated(model: Between, x: Tensor) -> Tensor:
    hidden = model.first(x)
    return model.last(hidden * hidden.mean(-1, keepdim=True).expand_as(hidden))


def spread(model: Between, x: Tensor) -> Tensor:
    return model.last(model.first(x) * x.mean(-1, keepdim=True).expand(3, 8).clone())


def by_constant(model: Between, x: Tensor) -> Tensor:
    return F.linear(model.first(x).relu(), torch.ones(3, 8), model.offset)


def single(model: Between, x: Tensor) -> Tensor:
    return model.last(model.first(x).relu())


@pytest.mark.parametrize(
    ("code", "groups", "axes"),
    [
        (halves, [("first", 4)], {"first.weight": 0, "first.bias": 0, "upper.weight": 1, "lower.weight": 1}),
        (by_matrix, [("first", 8)], {"first.weight": 0, "first.bias": 0, "matrix": 0}),
        (gated, [("first", 8)], {"first.weight": 0, "first.bias": 0, "last.weight": 1}),
        (by_constant, [("first", 8)], {"first.weight": 0, "first.bias": 0}),
        (single, [("first", 8)], {"first.weight": 0, "first.bias": 0, "last.weight": 1}),
    ],
)
def test_units_and_the_axes_that_they_lie_on(
    code: Callable[[Between, Tensor], Tensor], groups: list[tuple[str, int]], axes: dict[str, int]
) -> None:
    network = groups_of(code, 3)
    assert sizes(network) == groups
    assert {member.tensor: member.axis for member in network.members} == axes


def test_keys_and_queries_of_a_single_head_go_together() -> None:
    network = groups_of(single_head, 2, 5)
    assert sizes(network) == [("first", 8)]
    assert {member.tensor for member in network.members if member.units.max() >= 0} == {
        "first.weight", "first.bias", "second.weight", "second.bias"
    }  # fmt: skip


@pytest.mark.parametrize("code", [by_matrix, by_constant])
def test_a_constant_input_is_not_folded_through_a_weight_that_is_computed(
    code: Callable[[Between, Tensor], Tensor],
) -> None:
    """The rows of `weight.t()` are not those of the parameter, and a constant is none."""
    (consumer,) = groups_of(code, 3).consumers
    assert consumer.fold is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (repeated, "is repeated by numbers that are computed"),
        (flattened, "is repeated by numbers that are computed"),
        (picked, "is a single unit, and a layer is never emptied"),
        (ramp, "meets %expand_as, of which no axis follows these units"),
    ],
)
def test_what_cannot_lose_units_says_why(code: Callable[[Between, Tensor], Tensor], reason: str) -> None:
    network = groups_of(code, 3)
    assert not network.groups
    assert {frozen.reason for frozen in network.frozen if frozen.name == "first"} == {reason}


def test_the_size_that_an_operand_was_expanded_to_counts_the_units_that_it_meets() -> None:
    network = groups_of(spread, 3)
    assert sizes(network) == [("first", 8)]
    (written,) = [size for size in network.sizes if size.argument == "size"]
    assert (operator_name(written.node), written.position) == ("expand", 1)
    assert written.units.flatten().tolist() == list(range(8))


def test_the_size_of_an_operand_is_found_behind_its_copies() -> None:
    (product,) = [node for node in groups_of(spread, 3).program.nodes if operator_name(node) == "mul"]
    (written,) = expanded_sizes(product, -1, torch.arange(1, 9))
    assert (operator_name(written.node), written.position) == ("expand", 1)
    assert not list(expanded_sizes(product, -1, torch.arange(1, 8)))


def test_a_rule_gives_labels_for_tensors_and_anything_for_other_results() -> None:
    labels = torch.tensor([0, 1, 2])
    shapes = (torch.Size([3]), None)
    assert _fits((labels, 7), shapes, 3)
    assert not _fits((labels, 7), shapes, 2)
    assert not _fits((labels,), shapes, 3)


class Block(nn.Module):
    """Two layers beside a skip, the second of which other blocks may use, too."""

    def __init__(self, down: nn.Linear) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), down

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = x + self.down(self.up(x).relu())
        return summed


class Tower(nn.Module):
    """Three residual blocks, of which the first two share a layer."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(8, 6)
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.layers = nn.Sequential(Block(shared), Block(shared), Block(nn.Linear(8, 6)))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.layers(self.stem(x)))
        return output


def test_a_block_owns_no_tensor_that_another_block_uses() -> None:
    network = sc.trace(Tower().eval(), torch.randn(3, 4), kinds="blocks")
    (group,) = network.groups
    assert group.block_paths == ("layers.0", "layers.1", "layers.2")
    assert {member.tensor: set(member.units.tolist()) for member in group.members} == {
        "layers.0.up.weight": {0}, "layers.0.up.bias": {0}, "layers.1.up.weight": {1}, "layers.1.up.bias": {1},
        "layers.2.up.weight": {2}, "layers.2.up.bias": {2}, "layers.2.down.weight": {2}, "layers.2.down.bias": {2},
    }  # fmt: skip
