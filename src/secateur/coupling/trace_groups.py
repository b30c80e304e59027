"""From a model and an example to its groups of units, as label tracing finds them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Node

from secateur.coupling.consumers import ConstantSink, Consumer, UnitAxis
from secateur.coupling.cost import TensorCost, Work
from secateur.coupling.expert_groups import add_experts
from secateur.coupling.grouping import Units, build_groups
from secateur.coupling.label_tracer import LabelTracer
from secateur.coupling.label_walk import trace_experts, trace_labels
from secateur.coupling.labels import entries_along, labelled_axes
from secateur.coupling.network import Network
from secateur.coupling.new_biases import takes_new_bias
from secateur.coupling.operator_results import counted_macs, recorded_shapes
from secateur.coupling.rules.masked_checks import masked_checks, warn_of_unused_masks
from secateur.coupling.rules.registry import rule_of
from secateur.coupling.trace_records import Read
from secateur.data.batch import Batch
from secateur.graph.operators import arguments, module_path
from secateur.graph.program import Program
from secateur.graph.random_draws import Draw

TAKES_CONSTANT = ("linear", "addmm", "convolution")
"""The kinds of layers whose result takes the constant of removed units as a bias."""


def trace_groups(model: nn.Module, example: Batch, program: Program, by_width: bool = False) -> Network:
    """Return the network as label tracing finds it, before any cut was tried.

    Args:
        model: the model.
        example: the example that it was exported with.
        program: its program.
        by_width: units of attention are the same positions of all heads, in place of heads.

    Raises:
        OperatorRuleError: a rule that was registered for an operator fails.
    """
    shapes = recorded_shapes(program, example)
    tracer = trace_labels(program, shapes, by_width)
    _check_masked(program, example, tracer)
    network = _network(model, example, program, tracer)
    experts = trace_experts(program, shapes, tracer)
    return network if experts is None else add_experts(network, tracer, experts)


def _check_masked(program: Program, example: Batch, tracer: LabelTracer) -> None:
    reads = {read.node: (read.argument, read.dim) for read in tracer.notes.reads}
    warn_of_unused_masks(program, reads)
    handlers = masked_checks(reads)
    if handlers:
        with torch.no_grad():
            program.forward(example, handlers)


def _network(model: nn.Module, example: Batch, program: Program, tracer: LabelTracer) -> Network:
    units, notes = build_groups(tracer), tracer.notes
    sinks = _SinkFinder(program, model, units, _use_counts(program))
    sizes = (literal.renumbered(units) for literal in notes.literals)
    return Network(
        title=type(model).__name__,
        program=program,
        example=example,
        groups=units.groups,
        members=units.members,
        consumers=tuple(
            Consumer(read.node, read.argument, read.dim, units(read.labels), sinks.find(read))
            for read in notes.reads
            if bool((units(read.labels) >= 0).any())
        ),
        work=tuple(_work_of_operators(program, example, tracer, units)),
        tensors=_tensor_costs(model),
        frozen=units.frozen,
        reshaping=_reshaping_modules(units, tracer),
        sizes=tuple(size for size in sizes if bool((size.units >= 0).all(1).any())),
        draws=tuple(Draw(node, tuple(map(units, labels))) for node, labels in notes.draws),
        additions=tuple(_additions(tracer, units)),
    )


def _work_of_operators(program: Program, example: Batch, tracer: LabelTracer, units: Units) -> Iterator[Work]:
    """Yield the work of every operator; where its rule counts none, what torch counts, whatever is removed."""
    batch = example.size or 1
    for cost in tracer.notes.costs:
        yield Work(module_path(cost.node), cost.constant / batch, tuple(units(axis) for axis in cost.axes))
    counted_nodes = {cost.node for cost in tracer.notes.costs}
    uncounted_nodes = (node for node in program.nodes if node.op == "call_function" and node not in counted_nodes)
    for node, macs in counted_macs(program, example, uncounted_nodes).items():
        if macs:
            yield Work(module_path(node), macs / batch, ())


def _additions(tracer: LabelTracer, units: Units) -> Iterator[UnitAxis]:
    """Yield the sums of activations whose units lie along one axis."""
    for node, labels in tracer.notes.additions:
        axes = labelled_axes(labels)
        if len(axes) == 1:
            (dim,) = axes
            added_units = units(entries_along(labels, dim))
            if bool((added_units >= 0).any()):
                yield UnitAxis(node, dim, added_units)


@dataclass(frozen=True)
class _SinkFinder:
    """Finds where consumers can take a constant.

    Args:
        program: the program.
        model: the model.
        units: the units of labels.
        uses: how many operators use each parameter or buffer.
    """

    program: Program
    model: nn.Module
    units: Units
    uses: Mapping[str | None, int]

    def find(self, read: Read) -> ConstantSink | None:
        """Return a consumer's bias, the batch norm behind it, or a bias of its own; None where there is none."""
        if read.weight is None or read.outputs is None or rule_of(read.node).layer not in TAKES_CONSTANT:
            return None
        if self.uses[read.weight] > 1 or read.bias == "computed" or self.uses[read.bias] > 1:
            return None
        if self.program.state(read.weight).is_complex():  # means are real numbers
            return None
        groups = int(arguments(read.node).get("groups", 1))
        outputs = self.units(read.outputs)
        if read.bias is not None:
            return ConstantSink(read.weight, read.bias, "bias", read.inner, groups, outputs)
        mean = self._running_mean_behind(read)
        if mean is not None:
            return ConstantSink(read.weight, mean, "running_mean", read.inner, groups, outputs)
        path, _, name = read.weight.rpartition(".")
        modules = dict(self.model.named_modules())
        if name != "weight" or module_path(read.node) != path or not takes_new_bias(modules, path):
            return None
        return ConstantSink(read.weight, f"{path}.bias" if path else "bias", "new", read.inner, groups, outputs)

    def _running_mean_behind(self, read: Read) -> str | None:
        """Return the mean of a batch norm that alone uses the consumer's result, and along the same axis."""
        users = list(read.node.users)
        if len(users) != 1 or rule_of(users[0]).norm != "batch":
            return None
        mean = arguments(users[0]).get("running_mean")
        if not isinstance(mean, Node) or len(mean.users) > 1 or read.dim != 1:
            return None
        return self.program.state_names.get(mean)


def _use_counts(program: Program) -> Counter[str | None]:
    """Count the operators that use each parameter or buffer."""
    uses: Counter[str | None] = Counter()
    for node, name in program.state_names.items():
        uses[name] += len(node.users)
    return uses


def _tensor_costs(model: nn.Module) -> tuple[TensorCost, ...]:
    parameters, buffers = list(model.named_parameters()), list(model.named_buffers())
    return tuple(
        TensorCost(name, tuple(tensor.shape), tensor.element_size(), index < len(parameters))
        for index, (name, tensor) in enumerate((*parameters, *buffers))
    )


def _reshaping_modules(units: Units, tracer: LabelTracer) -> dict[str, tuple[str, ...]]:
    """Return for each group the modules whose own code changes the shape of its activations."""
    module_paths = [
        (module_path(node), torch.unique(units(torch.unique(labels)))) for node, labels in tracer.couplings.rectangles
    ]
    return {
        group.name: tuple(dict.fromkeys(path for path, found_units in module_paths if group.owns(found_units)))
        for group in units.groups
    }
