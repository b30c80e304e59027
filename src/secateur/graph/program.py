"""The exported program of a model: run completely, up to a cut, or from a cut on."""

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.input_shapes import InputShapes
from secateur.graph.program_graph import ProgramGraph
from secateur.graph.random_draws import seeded_generators

OpFn = Callable[..., Any]
OpOverride = Callable[[OpFn, tuple[Any, ...], dict[str, Any]], Any]


class Arguments(Protocol):
    """The arguments of a program's operators for inputs of other sizes than the export's."""

    def of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return an operator's arguments, given the values of the nodes."""
        ...


class OtherSizes(Protocol):
    """A function that gives the arguments for a batch of other sizes."""

    def arguments_for(self, batch: Batch, leaves: Sequence[Any], reason: str) -> Arguments:
        """Return the arguments for the inputs of a batch."""
        ...

    def check_single(self, batch: Batch, leaves: Sequence[Any]) -> None:
        """Check that the program is right for a batch of one example."""
        ...


@dataclass(frozen=True)
class Program(ProgramGraph):
    """A model as a list of operators that can be run, sharing the model's own parameters.

    Args:
        exported: what `torch.export` made of the model.
        batched: the symbol that stands for the batch size in the shapes, or None where the batch size is fixed.
        names: the model's own name of each parameter and buffer, by its name in the exported program.
        writes: whether the model's code may write to its parameters.
        other_sizes: what makes the program right for batches of other sizes; None: they are refused.
        caches: the dicts of tensors that the model's own code fills in evaluation mode: paths of modules, and names.
    """

    writes: bool = True
    other_sizes: OtherSizes | None = field(default=None, repr=False, compare=False)
    caches: tuple[tuple[str, str], ...] = ()

    @cached_property
    def last_use(self) -> dict[Node, int]:
        """The position of the last operator that reads each value; those of other sizes are read to the end."""
        positions = {node: max((self.position[user] for user in node.users), default=-1) for node in self.nodes}
        return {**positions, self.resized: len(self.nodes)}

    @cached_property
    def shapes(self) -> InputShapes:
        """The inputs that the program accepts as it was exported."""
        return InputShapes.of(self.inputs, self.exported.range_constraints, self.batched)

    @cached_property
    def resized(self) -> Node:
        """The key under which values hold the `Arguments` for a batch of other sizes; no operator reads it."""
        return torch.fx.Graph().placeholder("resized")

    def bind(self, batch: Batch) -> dict[Node, Any]:
        """Bind the inputs of a batch to the program's placeholders."""
        spec = self.call_spec.in_spec
        kwargs_names = list(spec.child(1).context) if spec.child(1).num_children else []
        unknown = [name for name in batch.kwargs if name not in kwargs_names]
        missing = [name for name in kwargs_names if name not in batch.kwargs]
        if unknown or missing:
            raise DataError(
                f"a batch has inputs {sorted(batch.kwargs)} where the network was traced with {sorted(kwargs_names)}; "
                "give every batch the inputs of the example"
            )
        batch = replace(batch, kwargs={name: batch.kwargs[name] for name in kwargs_names})
        leaves, structure = pytree.tree_flatten((batch.args, batch.kwargs))
        if len(leaves) != len(self.inputs):
            raise DataError(f"a batch has {len(leaves)} inputs ({structure}) where the network was traced with {spec}")
        return {**dict(zip(self.inputs, leaves, strict=True)), **self._resized(batch, leaves)}

    def _resized(self, batch: Batch, leaves: Sequence[Any]) -> dict[Node, Any]:
        """Return the arguments for a batch of other sizes.

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
        """Build the error for a batch whose inputs have sizes that the program does not accept."""
        shapes = ", ".join(str(tuple(leaf.shape)) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves)
        traced_inputs = ", ".join(_recorded_input(node.meta.get("val")) for node in self.inputs)
        return DataError(
            f"a batch has inputs of shape {shapes} where the network was traced with {traced_inputs}, and {reason}; "
            "give batches of the traced size: resize, crop or pad examples, drop_last=True where the last batch is "
            "smaller"
        )

    def run(
        self,
        values: dict[Node, Any],
        start: int,
        stop: int,
        handlers: Mapping[Node, OpOverride],
        keep: Sequence[Node] = (),
    ) -> dict[Node, Any]:
        """Run the operators at positions start to stop (exclusive) on `values`, which is consumed.

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
            with seeded_generators(index) if node in self.draws else nullcontext():
                values[node] = handler(node.target, args, kwargs) if handler else node.target(*args, **kwargs)
            for source in node.all_input_nodes:
                if self.last_use[source] <= index and source not in kept:
                    values.pop(source, None)
        return values

    def call_of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return an operator's arguments, given the values of the nodes."""
        resized = values.get(self.resized)
        if resized is not None:
            call: tuple[tuple[Any, ...], dict[str, Any]] = resized.of(node, values)
            return call
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
        return args, kwargs

    def finish(self, values: Mapping[Node, Any]) -> Any:
        """Return the model's output, in the model's own structure, given the values of the nodes."""
        leaves = [values[out] if isinstance(out, Node) else out for out in self.outputs]
        spec = self.call_spec.out_spec
        return pytree.tree_unflatten(leaves, spec) if spec is not None else leaves

    def forward(
        self,
        batch: Batch,
        handlers: Mapping[Node, OpOverride] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """Run the program on one batch, with some operators replaced, or some parameters by name."""
        new_weights = weights or {}
        new_values = {node: new_weights[name] for node, name in self.state_names.items() if name in new_weights}
        values = {**self.fixed(), **new_values, **self.bind(batch)}
        results = self.run(values, self.first, len(self.nodes) - 1, handlers or {}, keep=self.output_nodes)
        return self.finish(results)


def _recorded_input(value: Any) -> str:
    """Return the shape of an input as it was in the export, or the input itself if it is no tensor."""
    if not isinstance(value, Tensor):
        return repr(value)
    return str(tuple(int(n.node.hint or 0) if isinstance(n, torch.SymInt) else int(n) for n in value.shape))
