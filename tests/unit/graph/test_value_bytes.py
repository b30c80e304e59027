"""Bytes of a program's values: counted on tiny networks, and the microbatches that follow from them."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.batch import Batch
from secateur.data.conversion import as_batches
from secateur.graph.value_bytes import example_bytes, examples_within, live_bytes_by_position
from secateur.importance import context
from secateur.importance.context import CriterionContext, network_microbatches


class Doubled(nn.Module):
    """A value that does not depend on the examples, one with two entries for each, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(6, 8), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.relu(self.fc(x)).view(-1, 4)  # two rows for each example
        return (self.head(pairs) + torch.ones(3) * 2).view(-1, 6)


def traced() -> sc.Network:
    return sc.trace(Doubled(), torch.randn(5, 6))


def test_each_result_counts_once_for_an_example() -> None:
    program = traced().program
    by_name = {node.name: example_bytes(program, node) for node in program.nodes if node.op == "call_function"}
    assert by_name["linear"] == by_name["relu"] == 4 * 8
    assert by_name["linear_1"] == by_name["add"] == 4 * 6
    assert example_bytes(program, 3) == by_name["mul"] == 0
    assert sum(by_name.values()) > 4 * 28  # views are results, too
    assert examples_within(program, 4 * 28 * 7) == 4  # and take no memory
    assert examples_within(program, 4 * 28 * 8) == 8
    assert examples_within(program, 1) == 1


def test_microbatches_are_no_larger_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = traced(), torch.randn(32, 6)
    assert [microbatch.size for microbatch in network_microbatches(network, as_batches(x))] == [32]
    monkeypatch.setattr(context, "MICROBATCH_BYTES", 4 * 28 * 11)
    microbatches = network_microbatches(network, as_batches(x))
    assert [microbatch.size for microbatch in microbatches] == [8, 8, 8, 8]
    assert torch.equal(torch.cat([microbatch.args[0] for microbatch in microbatches]), x)
    of_a_batch = [Batch((x,), {}, torch.tensor(1.0))]  # one target for all examples: they can't be divided
    assert [microbatch.size for microbatch in network_microbatches(network, of_a_batch)] == [32]
    assert [microbatch.size for microbatch in network_microbatches(network, as_batches(x), fits_memory=False)] == [32]
    on_meta = network_microbatches(network, as_batches(x), torch.device("meta"))
    assert [microbatch.size for microbatch in on_meta] == [32]  # a device of its own has other limits


def test_criteria_of_minibatches_keep_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of gradients of minibatches depend on the number of examples."""
    network, x, sizes = traced(), torch.randn(32, 6), list[int | None]()

    def reading_losses(context: CriterionContext) -> dict[str, Tensor]:
        sizes.extend(microbatch.size for microbatch in context.microbatches)
        return {group.name: torch.zeros(group.size) for group in context.groups}

    monkeypatch.setattr(context, "MICROBATCH_BYTES", 4 * 28 * 11)
    sc.score(network, x, by=reading_losses, progress=False)
    assert sizes == [32]


class WidthsAtFixedBatch(nn.Module):
    """Layers of different widths; the code names the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.head = nn.Linear(4, 32), nn.Linear(32, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.narrow(self.wide(x.view(2, 4))))


def test_parameters_are_no_values_where_the_size_of_the_batch_is_fixed() -> None:
    program = sc.trace(WidthsAtFixedBatch().eval(), torch.randn(2, 4)).program
    assert program.batched is None
    live_bytes = live_bytes_by_position(program)
    linear = [position for position, node in enumerate(program.nodes) if "linear" in node.name]
    assert [live_bytes[position + 1] for position in linear] == [4 * 32, 4 * 2, 4 * 3]  # float32, of one example
