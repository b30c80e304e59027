"""Results of operators: recorded by the export, or seen in a run where no export could record them."""

import torch
from torch import Tensor, nn

from secateur.coupling.operator_results import counted_macs, recorded_shapes, results_of
from secateur.data.batch import Batch
from secateur.graph.export import export_program


class Choosing(nn.Module):
    """A network that computes a part of the rows, as many as the values in them say."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x)
        chosen = rows[x[:, 0] > 0]
        return self.last(torch.relu(chosen)).sum(0) + self.last(rows)


def test_lengths_that_depend_on_values_are_seen_in_a_run() -> None:
    model = Choosing()
    example = Batch((torch.tensor([[1.0, 2, 3, 4], [-1, 2, 3, 4], [1, 0, 0, 1]]),), {})
    program = export_program(model, example)
    shapes = recorded_shapes(program, example)
    assert torch.Size([2, 6]) in [value for value in shapes.values() if isinstance(value, torch.Size)]
    nodes = [node for node in program.nodes if node.op == "call_function"]
    seen = {node: macs for node, macs in results_of(program, example).macs.items() if macs}
    counted = {node: macs for node, macs in counted_macs(program, example, nodes).items() if macs}
    assert counted == seen
    assert sum(seen.values()) == 3 * 4 * 6 + (2 + 3) * 6 * 2


def test_an_example_of_another_size_is_run() -> None:
    """Shapes that the export recorded are those of the example that it was made with."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    program, other = export_program(model, Batch((torch.randn(3, 4),), {})), Batch((torch.randn(7, 4),), {})
    assert list(recorded_shapes(program, other).values())[-2:] == [torch.Size([7, 6]), torch.Size([7, 2])]
    assert sum(counted_macs(program, other, program.nodes).values()) == 7 * (4 * 6 + 6 * 2)
