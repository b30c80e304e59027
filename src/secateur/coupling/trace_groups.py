"""From a model and an example to its groups of units, as label tracing sees them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from secateur.coupling.cost import TensorCost, Work
from secateur.coupling.grouping import Units, build_groups
from secateur.coupling.label_tracer import LabelTracer, Read, entries_along, labelled_axes
from secateur.coupling.network import Addition, ConstantSink, Consumer, Network
from secateur.coupling.new_biases import takes_new_bias
from secateur.coupling.rules.registry import shapes_of, trace_experts, trace_labels
from secateur.coupling.shape_literals import ShapeLiteral
from secateur.data.batch import Batch
from secateur.graph.operators import arguments, module_path, operator_name
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.graph.random_draws import Draw

FOLDING = {"linear", "addmm", "conv1d", "conv2d", "conv3d"}


def trace_groups(model: nn.Module, example: Batch, program: Program, by_width: bool = False) -> Network:
    """The network as label tracing sees it, before any cut was tried."""
    results = results_of(program, example)
    trace = trace_labels(program, results.shapes, by_width)
    network = _network(model, example, program, trace, results)
    experts = trace_experts(program, results.shapes, trace)
    return network if experts is None else _with_experts(network, trace, experts)


def _network(model: nn.Module, example: Batch, program: Program, trace: LabelTracer, results: "Results") -> Network:
    units = build_groups(trace)
    batch = example.size or 1
    uses = _uses(program)
    consumers = tuple(
        Consumer(read.node, read.argument, read.dim, units(read.labels), _fold(read, uses, model, program, units))
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
        consumers=consumers,
        work=(*work, *rest),
        tensors=_tensor_costs(model),
        frozen=units.frozen,
        reshaping=_reshaping(units, trace),
        sizes=tuple(size.renumbered(units) for size in _telling(trace.sizes, units)),
        draws=tuple(Draw(node, tuple(map(units, layers))) for node, layers in trace.draws),
        additions=tuple(_additions(trace, units)),
    )


def _additions(trace: LabelTracer, units: Units) -> Iterator[Addition]:
    """Sums of activations whose units lie along one axis."""
    for node, labels in trace.additions:
        axes = labelled_axes(labels)
        if len(axes) == 1:
            (dim,) = axes
            along = units(entries_along(labels, dim))
            if bool((along >= 0).any()):
                yield Addition(node, dim, along)


def _with_experts(network: Network, first: LabelTracer, trace: LabelTracer) -> Network:
    """The network with what a second walk found: experts, which lie on other axes of the same parameters."""
    found = build_groups(trace)
    stacked = {key for _, weight, _ in first.stacks for key in weight.keys}
    held = {(member.tensor, member.axis) for member in network.members}
    groups = [
        group for group in found.groups
        if (keys := {(member.tensor, member.axis) for member in group.members}) & stacked and not keys & held
    ]  # fmt: skip
    number = torch.full((sum(group.size for group in found.groups) + 1,), -1)
    placed, offset = [], network.units
    for group in groups:
        number[group.span] = torch.arange(offset, offset + group.size)
        members = tuple(replace(member, units=number[member.units]) for member in group.members)
        chosen = [k for _, labels, k in trace.choices if group.owns(found(labels))]
        placed.append(replace(group, offset=offset, members=members, fewest=max([1, *chosen])))
        offset += group.size

    def units(labels: Tensor) -> Tensor:
        return number[found(labels)]

    consumers = (Consumer(read.node, read.argument, read.dim, units(read.labels), None) for read in trace.reads)
    sizes = (size.renumbered(units) for size in trace.sizes)
    own = {member.tensor for group in placed for member in group.members}
    return replace(
        network,
        groups=(*network.groups, *placed),
        members=(*network.members, *(member for group in placed for member in group.members)),
        consumers=(*network.consumers, *(consumer for consumer in consumers if bool((consumer.units >= 0).any()))),
        work=tuple(_shared_work(network, first, trace, units)),
        frozen=tuple(held for held in network.frozen if f"{held.name}.weight" not in own),
        reshaping={**network.reshaping, **{group.name: () for group in placed}},
        sizes=(*network.sizes, *(size for size in sizes if bool((size.units >= 0).all(1).any()))),
    )


def _shared_work(
    network: Network, first: LabelTracer, trace: LabelTracer, units: Callable[[Tensor], Tensor]
) -> Iterator[Work]:
    """The work of every operator, which is less where experts are gone; that of the first walk comes in its order."""
    shared = {
        count.node: axis
        for count in trace.counts
        for axis in map(units, count.axes)
        if bool((axis >= 0).all()) and len(axis)
    }
    for place, term in enumerate(network.work):
        axis = shared.get(first.counts[place].node) if place < len(first.counts) else None
        yield term if axis is None else replace(term, constant=term.constant / len(axis), axes=(*term.axes, axis))


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


def _telling(sizes: Sequence[ShapeLiteral], units: Units) -> list[ShapeLiteral]:
    """Sizes that some plan changes."""
    return [size for size in sizes if bool((units(size.units) >= 0).all(1).any())]


def _uncounted(trace: LabelTracer, results: Results) -> list[Work]:
    """Work of operators whose rules count none: it stays whatever is cut."""
    counted = {count.node for count in trace.counts}
    return [Work(module_path(node), macs, ()) for node, macs in results.macs.items() if macs and node not in counted]


def _fold(
    read: Read, uses: Mapping[str | None, int], model: nn.Module, program: Program, units: Units
) -> ConstantSink | None:
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
        return ConstantSink(read.weight, read.bias, "bias", read.inner, groups, outputs)
    if mean is not None:
        return ConstantSink(read.weight, mean, "running_mean", read.inner, groups, outputs)
    if name != "weight" or module_path(read.node) != path or not takes_new_bias(dict(model.named_modules()), path):
        return None
    return ConstantSink(read.weight, f"{path}.bias" if path else "bias", "new", read.inner, groups, outputs)


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


def _reshaping(units: Units, trace: LabelTracer) -> dict[str, tuple[str, ...]]:
    """For each group the modules whose own code changes the shape of its activations."""
    places = [(module_path(node), torch.unique(units(torch.unique(labels)))) for node, labels in trace.reshaped]
    return {
        group.name: tuple(dict.fromkeys(path for path, found in places if group.owns(found))) for group in units.groups
    }
