"""The graph of an exported program: its nodes, and what the export recorded of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.graph.process_bound import ProcessBound
from secateur.graph.random_draws import is_draw


@dataclass(frozen=True)
class ProgramGraph(ProcessBound):
    """The operators of a model, with its own parameters, inputs and outputs among their nodes.

    Args:
        exported: what `torch.export` made of the model.
        batched: the symbol that stands for the batch size in the shapes, or None where the batch size is fixed.
        names: the model's own name of each parameter and buffer, by its name in the exported program.
    """

    exported: ExportedProgram
    batched: str | None
    names: Mapping[str, str]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the graph, in order."""
        return tuple(self.exported.graph.nodes)

    @cached_property
    def position(self) -> dict[Node, int]:
        """The position of each node."""
        return {node: index for index, node in enumerate(self.nodes)}

    @cached_property
    def state_names(self) -> dict[Node, str]:
        """Placeholders that are parameters or buffers, with their names in the model; tied ones share a name."""
        return {node: self.names[name] for node, name in self._exported_names.items()}

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """The names of the floating-point and complex parameters."""
        parameter_names = self.exported.graph_signature.inputs_to_parameters.values()
        states = {name: self.state(name) for name in dict.fromkeys(self.names[name] for name in parameter_names)}
        return tuple(name for name, state in states.items() if state.is_floating_point() or state.is_complex())

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the floating-point parameters."""
        return tuple(name for name in self.differentiable if not self.state(name).is_complex())

    @cached_property
    def _exported_names(self) -> dict[Node, str]:
        signature = self.exported.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        return {node: names[node.name] for node in self.nodes if node.op == "placeholder" and node.name in names}

    @cached_property
    def constants(self) -> dict[Node, Any]:
        """The placeholders of constants, with their values."""
        signature = self.exported.graph_signature
        names = {**signature.inputs_to_lifted_tensor_constants, **signature.inputs_to_lifted_custom_objs}
        placeholders = (node for node in self.nodes if node.op == "placeholder" and node.name in names)
        return {node: self.exported.constants[names[node.name]] for node in placeholders}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The placeholders of the model's inputs."""
        fixed_nodes = self.state_names.keys() | self.constants.keys()
        return tuple(node for node in self.nodes if node.op == "placeholder" and node not in fixed_nodes)

    @cached_property
    def outputs(self) -> tuple[Any, ...]:
        """Nodes (or constants) that the model returns, flattened."""
        (results,) = self.nodes[-1].args
        kinds = [spec.kind for spec in self.exported.graph_signature.output_specs]
        assert isinstance(results, tuple | list)
        return tuple(value for value, kind in zip(results, kinds, strict=True) if kind == OutputKind.USER_OUTPUT)

    @cached_property
    def output_names(self) -> dict[Node, str]:
        """The keys of nodes among the outputs, where the model returns several under keys, as in a dict."""
        spec = self.call_spec.out_spec
        keys = getattr(spec, "context", None)
        if not isinstance(keys, list) or len(keys) < 2 or len(keys) != spec.num_children:
            return {}
        names = [str(key) for at, key in enumerate(keys) for _ in range(spec.child(at).num_leaves)]
        return {node: name for node, name in zip(self.outputs, names, strict=True) if isinstance(node, Node)}

    @cached_property
    def call_spec(self) -> Any:
        """The structures of the inputs and the output; torch makes a class of them at each access."""
        return self.exported.call_spec

    @cached_property
    def state_only(self) -> frozenset[Node]:
        """Nodes whose tensors are computed from parameters, buffers and constants alone."""
        state_nodes: set[Node] = {*self.state_names, *self.constants}
        for node in self.nodes:
            tensor_sources = [value for value in node.all_input_nodes if _is_tensor(value)]
            if (
                node.op == "call_function"
                and _is_tensor(node)
                and tensor_sources
                and all(value in state_nodes for value in tensor_sources)
            ):
                state_nodes.add(node)
        return frozenset(state_nodes)

    @cached_property
    def first(self) -> int:
        """Position of the first operator."""
        return next(index for index, node in enumerate(self.nodes) if node.op != "placeholder")

    @cached_property
    def _held(self) -> dict[str, Tensor]:
        holders = {**self.exported.constants, **self.exported.state_dict}
        return {self.names[name]: holders[name] for name in self._exported_names.values()}

    def state(self, name: str) -> Tensor:
        """Return the parameter or buffer with that name in the model, as it is now."""
        return self._held[name]

    def fixed(self) -> dict[Node, Any]:
        """Return parameters, buffers and constants by placeholder, detached from autograd."""
        state = {node: self.state(name).detach() for node, name in self.state_names.items()}
        return {**state, **self.constants}

    def batch_axis(self, value: Any) -> int | None:
        """Return the axis of a node's value (as the export recorded it) along which the examples are."""
        shape = getattr(value, "shape", ())
        batch_axes = [axis for axis, length in enumerate(shape) if self.scales(length)]
        return batch_axes[0] if batch_axes else None

    def scales(self, length: Any) -> bool:
        """Return whether a number that the export recorded grows with the batch size."""
        return isinstance(length, torch.SymInt) and self.batched in {str(s) for s in length.node.expr.free_symbols}

    def has_entry_per_example(self, value: Any) -> bool:
        """Return whether the batch axis of a node's value has one entry per example, and no other axis is in it.

        Positions or heads that share the axis with the examples may lie behind each example, or in front of all.
        """
        axis = self.batch_axis(value)
        return axis is not None and str(value.shape[axis]) == self.batched

    @cached_property
    def draws(self) -> frozenset[Node]:
        """The operators that draw random numbers."""
        return frozenset(node for node in self.nodes if node.op == "call_function" and is_draw(node))

    @cached_property
    def lowest_type(self) -> torch.dtype | None:
        """The floating-point type of least precision among the operators' results."""
        values = pytree.tree_leaves([node.meta.get("val") for node in self.nodes if node.op == "call_function"])
        types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
        return max(types, key=lambda kind: torch.finfo(kind).eps, default=None)

    @cached_property
    def output_nodes(self) -> tuple[Node, ...]:
        """The nodes among the outputs."""
        return tuple(out for out in self.outputs if isinstance(out, Node))


def _is_tensor(node: Node) -> bool:
    """Return whether an operator gives tensors, not a size."""
    return not isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool)
