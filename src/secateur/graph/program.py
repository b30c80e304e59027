"""The exported program of a model: run all of it, up to a cut, or from a cut on."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.data.model_inputs import floating_type, input_error
from secateur.errors import DataError, SecateurError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.input_shapes import InputShapes
from secateur.graph.model_calls import call_model
from secateur.graph.random_draws import is_draw, seeded

OpFn = Callable[..., Any]
OpOverride = Callable[[OpFn, tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode; on leaving, each flag is as it was."""
    flags = {module: module.training for module in model.modules()}
    try:
        for module in flags:
            module.training = False
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


@contextmanager
def preserved(model: nn.Module, parameters: bool = True) -> Iterator[None]:
    """Evaluation mode and no gradients; whatever the model's own code writes to itself is undone on leaving.

    Args:
        model: the model.
        parameters: whether its code may write to parameters, which then are copied for the time being.
    """
    own_parameters = parameters_kept(model) if parameters else nullcontext()
    with evaluation_mode(model), attributes_restored(model), buffers_kept(model), own_parameters, torch.no_grad():
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """What is written to a model's buffers is undone on leaving."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.data.copy_(buffers[name])


@contextmanager
def parameters_kept(model: nn.Module) -> Iterator[None]:
    """On leaving, parameters have the memory and the values that they had."""
    held = [(parameter, parameter.data, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, memory, values in held:
            if parameter.data.data_ptr() != memory.data_ptr() or parameter.shape != memory.shape:
                parameter.data = memory
            if not torch.equal(memory, values):
                with torch.no_grad():
                    memory.copy_(values)


def run_module(model: nn.Module, batch: Batch) -> Any:
    """A model's own output in evaluation mode.

    Raises:
        DataError: it refuses the inputs; its own error is shown.
    """
    try:
        with evaluation_mode(model):
            return call_model(model, batch)
    except SecateurError:
        raise
    except Exception as failure:
        raise input_error(type(model).__name__, batch, failure, floating_type(model)) from failure


class Arguments(Protocol):
    """The arguments of a program's operators for inputs of other sizes than those that it was exported with."""

    def of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One operator's arguments, from the values of the nodes."""
        ...


class OtherSizes(Protocol):
    """Finds the arguments for a batch of other sizes."""

    def arguments_for(self, batch: Batch, leaves: Sequence[Any], reason: str) -> Arguments: ...

    def check_single(self, batch: Batch, leaves: Sequence[Any]) -> None: ...


def run_seeded(model: nn.Module, batch: Batch, seed: int = 0) -> Any:
    """A model's own output, for which random numbers are drawn from a seed: comparable with another model's.

    Raises:
        DataError: it refuses the inputs; its own error is shown.
    """
    with seeded(seed):
        return run_module(model, batch)


@dataclass(frozen=True)
class Program:
    """A model as a list of operators, sharing the model's own parameters.

    Args:
        exported: what `torch.export` made of the model.
        batched: the symbol that stands for the batch size in the shapes, or None where the batch size is fixed.
        names: the model's own name of each parameter and buffer, by its name in the exported program.
        writes: whether the model's code may write to its parameters.
        other_sizes: what makes the program right for batches of other sizes; None: they are refused.
    """

    exported: ExportedProgram
    batched: str | None
    names: Mapping[str, str]
    writes: bool = True
    other_sizes: OtherSizes | None = field(default=None, repr=False, compare=False)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.exported.graph.nodes)

    @cached_property
    def position(self) -> dict[Node, int]:
        return {node: index for index, node in enumerate(self.nodes)}

    @cached_property
    def last_use(self) -> dict[Node, int]:
        """The position of the last operator that reads each value; those of other sizes are read to the end."""
        positions = {node: max((self.position[user] for user in node.users), default=-1) for node in self.nodes}
        return {**positions, self.resized: len(self.nodes)}

    @cached_property
    def state_names(self) -> dict[Node, str]:
        """Placeholders that are parameters or buffers, with their names in the model; tied ones share a name."""
        return {node: self.names[name] for node, name in self._exported_names.items()}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the floating-point parameters."""
        exported = self.exported.graph_signature.inputs_to_parameters.values()
        names = dict.fromkeys(self.names[name] for name in exported)
        return tuple(name for name in names if self.state(name).is_floating_point())

    @cached_property
    def _exported_names(self) -> dict[Node, str]:
        signature = self.exported.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        return {node: names[node.name] for node in self.nodes if node.op == "placeholder" and node.name in names}

    @cached_property
    def constants(self) -> dict[Node, Any]:
        signature = self.exported.graph_signature
        names = {**signature.inputs_to_lifted_tensor_constants, **signature.inputs_to_lifted_custom_objs}
        placeholders = (node for node in self.nodes if node.op == "placeholder" and node.name in names)
        return {node: self.exported.constants[names[node.name]] for node in placeholders}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        fixed = self.state_names.keys() | self.constants.keys()
        return tuple(node for node in self.nodes if node.op == "placeholder" and node not in fixed)

    @cached_property
    def outputs(self) -> tuple[Any, ...]:
        """Nodes (or constants) that the model returns, flat."""
        (made,) = self.nodes[-1].args
        kinds = [spec.kind for spec in self.exported.graph_signature.output_specs]
        assert isinstance(made, tuple | list)
        return tuple(value for value, kind in zip(made, kinds, strict=True) if kind == OutputKind.USER_OUTPUT)

    @cached_property
    def shapes(self) -> InputShapes:
        """For which inputs the program is right as it was exported."""
        return InputShapes.of(self.inputs, self.exported.range_constraints, self.batched)

    @cached_property
    def resized(self) -> Node:
        """The key under which values hold the `Arguments` for a batch of other sizes; no operator reads it."""
        return torch.fx.Graph().placeholder("resized")

    @cached_property
    def state_only(self) -> frozenset[Node]:
        """Nodes whose tensors are computed from parameters, buffers and constants alone."""
        found: set[Node] = {*self.state_names, *self.constants}
        for node in self.nodes:
            used = [value for value in node.all_input_nodes if _is_tensor(value)]
            if node.op == "call_function" and _is_tensor(node) and used and all(value in found for value in used):
                found.add(node)
        return frozenset(found)

    @cached_property
    def first(self) -> int:
        """Position of the first operator."""
        return next(index for index, node in enumerate(self.nodes) if node.op != "placeholder")

    @cached_property
    def _held(self) -> dict[str, Tensor]:
        holders = {**self.exported.constants, **self.exported.state_dict}
        return {self.names[name]: holders[name] for name in self._exported_names.values()}

    def state(self, name: str) -> Tensor:
        """The parameter or buffer of that name in the model, as the model holds it now."""
        return self._held[name]

    def fixed(self) -> dict[Node, Any]:
        """Parameters, buffers and constants by placeholder, outside autograd."""
        state = {node: self.state(name).detach() for node, name in self.state_names.items()}
        return {**state, **self.constants}

    def bind(self, batch: Batch) -> dict[Node, Any]:
        """The program's inputs by placeholder, from one batch of the model's inputs."""
        spec = self.exported.call_spec.in_spec
        kwargs_names = list(spec.child(1).context) if spec.child(1).num_children else []
        unknown = [name for name in batch.kwargs if name not in kwargs_names]
        missing = [name for name in kwargs_names if name not in batch.kwargs]
        if unknown or missing:
            raise DataError(
                f"a batch has inputs {sorted(batch.kwargs)} where the network was traced with {sorted(kwargs_names)}; "
                "give every batch the inputs of the example"
            )
        batch = replace(batch, kwargs={name: batch.kwargs[name] for name in kwargs_names})
        leaves, found = pytree.tree_flatten((batch.args, batch.kwargs))
        if len(leaves) != len(self.inputs):
            raise DataError(f"a batch has {len(leaves)} inputs ({found}) where the network was traced with {spec}")
        return {**dict(zip(self.inputs, leaves, strict=True)), **self._resized(batch, leaves)}

    def _resized(self, batch: Batch, leaves: Sequence[Any]) -> dict[Node, Any]:
        """
        Raises:
            DataError: the program is not right for inputs of these sizes, and can't be made so.
        """
        reason = self.shapes.refusal(leaves)
        if reason is None and self.other_sizes is not None and self.shapes.is_single(leaves):
            self.other_sizes.check_single(batch, leaves)
        if reason is None:
            return {}
        if self.other_sizes is None:
            raise self.wrong_sizes(leaves, f"its program {reason}")
        return {self.resized: self.other_sizes.arguments_for(batch, leaves, reason)}

    def wrong_sizes(self, leaves: Sequence[Any], reason: str) -> DataError:
        """The error for a batch whose inputs have sizes that the program is not right for."""
        shapes = ", ".join(str(tuple(leaf.shape)) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves)
        traced = ", ".join(_hinted(node.meta.get("val")) for node in self.inputs)
        return DataError(
            f"a batch has inputs of shape {shapes} where the network was traced with {traced}, and {reason}; give "
            "batches of the traced size: resize, crop or pad examples, drop_last=True where the last batch is smaller"
        )

    def run(
        self,
        values: dict[Node, Any],
        start: int,
        stop: int,
        handlers: Mapping[Node, OpOverride],
        keep: Sequence[Node] = (),
    ) -> dict[Node, Any]:
        """Run the operators at positions start to stop (exclusive) on `values`, which is used up.

        A handler gets the operator, its arguments and keyword arguments in place of the plain call.
        What no later operator needs is dropped on the way, but for `keep`. Random numbers are drawn from a seed of each
        operator's own, so that two runs draw the same ones, wherever they start.
        """
        kept = set(keep)
        for index in range(start, stop):
            node = self.nodes[index]
            if node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(self.exported.graph_module)
                continue
            args, kwargs = self.call_of(node, values)
            handler = handlers.get(node)
            assert callable(node.target)
            with seeded(index) if node in self.draws else nullcontext():
                values[node] = handler(node.target, args, kwargs) if handler else node.target(*args, **kwargs)
            for used in node.all_input_nodes:
                if self.last_use[used] <= index and used not in kept:
                    values.pop(used, None)
        return values

    def call_of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An operator's arguments, from the values of the nodes."""
        resized = values.get(self.resized)
        if resized is not None:
            called: tuple[tuple[Any, ...], dict[str, Any]] = resized.of(node, values)
            return called
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
        return args, kwargs

    def finish(self, values: Mapping[Node, Any]) -> Any:
        """The model's output, in the model's own structure, from the values of the nodes."""
        leaves = [values[out] if isinstance(out, Node) else out for out in self.outputs]
        spec = self.exported.call_spec.out_spec
        return pytree.tree_unflatten(leaves, spec) if spec is not None else leaves

    def forward(
        self,
        batch: Batch,
        handlers: Mapping[Node, OpOverride] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """The whole program on one batch, with some operators replaced, or some parameters by their names."""
        given = weights or {}
        replaced = {node: given[name] for node, name in self.state_names.items() if name in given}
        values = {**self.fixed(), **replaced, **self.bind(batch)}
        results = self.run(values, self.first, len(self.nodes) - 1, handlers or {}, keep=self.output_nodes)
        return self.finish(results)

    def batch_axis(self, value: Any) -> int | None:
        """The axis of a node's value (as the export recorded it) along which the examples lie."""
        shape = getattr(value, "shape", ())
        found = [axis for axis, length in enumerate(shape) if self.scales(length)]
        return found[0] if found else None

    def scales(self, length: Any) -> bool:
        """Whether a number that the export recorded grows with the batch."""
        return isinstance(length, torch.SymInt) and self.batched in {str(s) for s in length.node.expr.free_symbols}

    @cached_property
    def draws(self) -> frozenset[Node]:
        """The operators that draw random numbers."""
        return frozenset(node for node in self.nodes if node.op == "call_function" and is_draw(node))

    @cached_property
    def lowest_type(self) -> torch.dtype | None:
        """The floating-point type of least precision that an operator gives: half precision inside, if there is any."""
        values = pytree.tree_leaves([node.meta.get("val") for node in self.nodes if node.op == "call_function"])
        types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
        return max(types, key=lambda kind: torch.finfo(kind).eps, default=None)

    @cached_property
    def output_nodes(self) -> tuple[Node, ...]:
        return tuple(out for out in self.outputs if isinstance(out, Node))


def _hinted(value: Any) -> str:
    """The shape of an input as it was in the export, or the input itself where it is no tensor."""
    if not isinstance(value, Tensor):
        return repr(value)
    return str(tuple(int(n.node.hint or 0) if isinstance(n, torch.SymInt) else int(n) for n in value.shape))


def _is_tensor(node: Node) -> bool:
    """Whether an operator gives tensors, and not a size."""
    return not isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool)


def widest(tensor: Tensor) -> torch.dtype:
    """The widest floating-point type that the tensor's device knows: where sums are long, rounding adds up."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in single precision if it has less."""
    return tensor if torch.finfo(tensor.dtype).bits >= 32 else tensor.float()


def wide(tensor: Tensor) -> Tensor:
    """The tensor in the widest floating-point type that its device knows."""
    return tensor.to(widest(tensor))


def module_path(node: Node) -> str:
    """The path of the module whose forward called this operator, "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    return "" if not stack else str(list(stack.values())[-1][0])


def arguments(node: Node) -> dict[str, Any]:
    """An operator's arguments by the names of its schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(index): value for index, value in enumerate(node.args)}
    named = {arg.name: arg.default_value for arg in schema.arguments if arg.has_default_value()}
    named.update({arg.name: value for arg, value in zip(schema.arguments, node.args, strict=False)})
    return {**named, **node.kwargs}


def with_argument(
    node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with one of them, by its name in the schema, replaced."""
    if name in kwargs:
        return args, {**kwargs, name: value}
    schema = node.target._schema  # type: ignore[union-attr]
    index = [arg.name for arg in schema.arguments].index(name)
    return (*args[:index], value, *args[index + 1 :]), kwargs


def operator_name(node: Node) -> str:
    """The operator as people call it: `conv2d`, `scaled_dot_product_attention`."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name.split("::")[1]) if schema is not None else getattr(node.target, "__name__", str(node.target))
