"""From a model and an example to its groups of units, as label tracing sees them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from secateur.data import Batch
from secateur.network.assemble import Units, find_units
from secateur.network.cost import TensorCost, Work
from secateur.network.labels import Read, Trace, operator_name
from secateur.network.program import Call, Handler, Program, arguments, module_path
from secateur.network.rules import shapes_of, trace_labels
from secateur.network.sizes import Size
from secateur.network.units import Fold, Network, Reader

FOLDING = {"linear", "addmm", "conv1d", "conv2d", "conv3d"}


def trace_groups(model: nn.Module, example: Batch, program: Program) -> Network:
    """The network as label tracing sees it, before any cut was tried."""
    results = results_of(program, example)
    trace = trace_labels(program, results.shapes)
    units = find_units(trace)
    batch = example.size or 1
    uses = _uses(program)
    readers = tuple(
        Reader(read.node, read.argument, read.dim, units(read.labels), _fold(read, uses, model, program, units))
        for read in trace.reads
        if bool((units(read.labels) >= 0).any())
    )
    work = tuple(
        Work(module_path(count.node), count.constant / batch, tuple(units(axis) for axis in count.axes))
        for count in trace.counts
    )
    rest = (replace(term, constant=term.constant / batch) for term in _uncounted(trace, results))
    return Network(
        title=type(model).__name__,
        program=program,
        example=example,
        groups=units.groups,
        members=units.members,
        readers=readers,
        work=(*work, *rest),
        tensors=_tensor_costs(model),
        frozen=units.frozen,
        reshaping=_reshaping(units, trace),
        sizes=tuple(replace(size, units=units(size.units)) for size in _telling(trace.sizes, units)),
    )


@dataclass(frozen=True)
class Results:
    """What running the program on the example showed of every operator.

    Args:
        shapes: its result, with `torch.Size` in place of tensors.
        macs: how many MACs torch counts in it.
    """

    shapes: dict[Node, Any]
    macs: dict[Node, int]


def results_of(program: Program, example: Batch) -> Results:
    """Run the program on the example and watch every operator."""
    shapes: dict[Node, Any] = {node: shapes_of(value) for node, value in program.bind(example).items()}
    shapes.update({node: shapes_of(value) for node, value in program.fixed().items()})
    macs: dict[Node, int] = {}

    def watch(node: Node) -> Handler:
        def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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


def _telling(sizes: Sequence[Size], units: Units) -> list[Size]:
    """Sizes that some plan changes."""
    return [size for size in sizes if bool((units(size.units) >= 0).all(1).any())]


def _uncounted(trace: Trace, results: Results) -> list[Work]:
    """Work of operators whose rules count none: it stays whatever is cut."""
    counted = {count.node for count in trace.counts}
    return [Work(module_path(node), macs, ()) for node, macs in results.macs.items() if macs and node not in counted]


def _fold(read: Read, uses: Mapping[str | None, int], model: nn.Module, program: Program, units: Units) -> Fold | None:
    """Where a reader can take a constant: its bias, the batch norm behind it, or a bias of its own."""
    if read.weight is None or read.outputs is None or operator_name(read.node) not in FOLDING:
        return None
    if uses[read.weight] > 1 or read.bias == "computed" or uses[read.bias] > 1:
        return None
    groups = int(arguments(read.node).get("groups", 1))
    outputs = units(read.outputs)
    mean = _running_mean_behind(read, program)
    path, _, name = read.weight.rpartition(".")
    if read.bias is not None:
        return Fold(read.weight, read.bias, "bias", read.inner, groups, outputs)
    if mean is not None:
        return Fold(read.weight, mean, "running_mean", read.inner, groups, outputs)
    layer = dict(model.named_modules()).get(path)
    can_grow = isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and name == "weight" and layer.bias is None
    if not can_grow or module_path(read.node) != path:
        return None
    return Fold(read.weight, f"{path}.bias" if path else "bias", "new", read.inner, groups, outputs)


def _uses(program: Program) -> Counter[str | None]:
    """How many operators use each parameter or buffer."""
    uses: Counter[str | None] = Counter()
    for node, name in program.state_names.items():
        uses[name] += len(node.users)
    return uses


def _running_mean_behind(read: Read, program: Program) -> str | None:
    """The mean of a batch norm that alone uses the reader's result, and along the same axis."""
    users = list(read.node.users)
    if len(users) != 1 or operator_name(users[0]) not in ("batch_norm", "_native_batch_norm_legit_no_training"):
        return None
    mean = arguments(users[0]).get("running_mean")
    if not isinstance(mean, Node) or len(mean.users) > 1 or read.dim != 1:
        return None
    return program.state_names.get(mean)


def _tensor_costs(model: nn.Module) -> tuple[TensorCost, ...]:
    parameters, buffers = list(model.named_parameters()), list(model.named_buffers())
    return tuple(
        TensorCost(name, tuple(tensor.shape), tensor.element_size(), index < len(parameters))
        for index, (name, tensor) in enumerate((*parameters, *buffers))
    )


def _reshaping(units: Units, trace: Trace) -> dict[str, tuple[str, ...]]:
    """For each group the modules whose own code changes the shape of its activations."""
    places = [(module_path(node), torch.unique(units(torch.unique(labels)))) for node, labels in trace.reshaped]
    return {
        group.name: tuple(dict.fromkeys(path for path, found in places if group.owns(found))) for group in units.groups
    }
