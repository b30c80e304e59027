"""From a model and an example to its groups of units, as label tracing sees them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from secateur.data import Batch
from secateur.network.assemble import Units, find_units
from secateur.network.cost import TensorCost, Work
from secateur.network.labels import Read, Trace, operator_name
from secateur.network.program import Call, Handler, Program, arguments, module_path
from secateur.network.rules import shapes_of, trace_labels
from secateur.network.units import Fold, Network, Reader

FOLDING = {"linear", "addmm", "conv1d", "conv2d", "conv3d"}


def trace_groups(model: nn.Module, example: Batch, program: Program) -> Network:
    """The network as label tracing sees it, before any cut was tried."""
    trace = trace_labels(program, result_shapes(program, example))
    units = find_units(trace)
    batch = example.size or 1
    uses = Counter(read.weight for read in trace.reads)
    readers = tuple(
        Reader(read.node, read.argument, read.dim, units(read.labels), _fold(read, uses, model, program))
        for read in trace.reads
        if bool((units(read.labels) >= 0).any())
    )
    work = tuple(
        Work(module_path(count.node), count.constant / batch, tuple(units(axis) for axis in count.axes))
        for count in trace.counts
    )
    return Network(
        title=type(model).__name__,
        program=program,
        example=example,
        groups=units.groups,
        members=units.members,
        readers=readers,
        work=work,
        tensors=_tensor_costs(model),
        frozen=units.frozen,
        reshaping=_reshaping(units, trace),
    )


def result_shapes(program: Program, example: Batch) -> dict[Node, Any]:
    """Every operator's result on the example, with `torch.Size` in place of tensors."""
    shapes: dict[Node, Any] = {node: shapes_of(value) for node, value in program.bind(example).items()}
    shapes.update({node: shapes_of(value) for node, value in program.fixed().items()})

    def watch(node: Node) -> Handler:
        def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = target(*args, **kwargs)
            shapes[node] = shapes_of(result)
            return result

        return handler

    with torch.no_grad():
        program.forward(example, {node: watch(node) for node in program.nodes if node.op == "call_function"})
    return shapes


def _fold(read: Read, uses: Mapping[str | None, int], model: nn.Module, program: Program) -> Fold | None:
    """Where a reader can take a constant: its bias, the batch norm behind it, or a bias of its own."""
    if read.weight is None or operator_name(read.node) not in FOLDING or uses[read.weight] > 1:
        return None
    groups = int(arguments(read.node).get("groups", 1))
    mean = _running_mean_behind(read.node, program)
    if read.bias is not None:
        return Fold(read.weight, read.bias, "bias", read.inner, groups) if read.bias != "computed" else None
    if mean is not None:
        return Fold(read.weight, mean, "running_mean", read.inner, groups)
    path, _, name = read.weight.rpartition(".")
    layer = dict(model.named_modules()).get(path)
    can_grow = isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and name == "weight" and layer.bias is None
    return Fold(read.weight, f"{path}.bias" if path else "bias", "new", read.inner, groups) if can_grow else None


def _running_mean_behind(node: Node, program: Program) -> str | None:
    users = list(node.users)
    if len(users) != 1 or operator_name(users[0]) not in ("batch_norm", "_native_batch_norm_legit_no_training"):
        return None
    mean = arguments(users[0]).get("running_mean")
    return program.state_names.get(mean) if isinstance(mean, Node) and len(mean.users) == 1 else None


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
