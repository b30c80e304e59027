"""Results of a program's operators on the example: their shapes and their MACs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from secateur.coupling.label_walk import shapes_of
from secateur.data.batch import Batch
from secateur.graph.program import OpFn, OpOverride, Program


@dataclass(frozen=True)
class Results:
    """Results of every operator on the example.

    Args:
        shapes: its result, with `torch.Size` in place of tensors.
        macs: the MACs that torch counts in it.
    """

    shapes: dict[Node, Any]
    macs: dict[Node, int]


def results_of(program: Program, example: Batch) -> Results:
    """Run the program on the example and watch every operator."""
    shapes: dict[Node, Any] = {node: shapes_of(value) for node, value in program.bind(example).items()}
    shapes.update({node: shapes_of(value) for node, value in program.fixed().items()})
    macs: dict[Node, int] = {}

    def watch(node: Node) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            before = counter.get_total_flops()
            result = target(*args, **kwargs)
            macs[node] = (counter.get_total_flops() - before) // 2
            shapes[node] = shapes_of(result)
            return result

        return handler

    handlers = {node: watch(node) for node in program.nodes if node.op == "call_function"}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        program.forward(example, handlers)
    return Results(shapes, macs)
