"""From a model to its exported program: functional, with a batch size that may vary."""

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError, SecateurError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.export_errors import export_error
from secateur.graph.export_kernels import (
    EinsumsTakenApart,
    recurrent_layers_whole,
    shapes_not_cached,
    short_size_expressions,
    without_stack_traces,
)
from secateur.graph.functionalize import functional, is_mutable, without_dropouts, writes_where_seen
from secateur.graph.model_calls import plain_forward
from secateur.graph.program import Program, evaluation_mode, preserved, run_module
from secateur.graph.random_draws import drawing_by_size, replayed
from secateur.graph.remembered_state import forgotten, remembered
from secateur.graph.shape_kernels import shapes_at_once
from secateur.graph.torch_logs import torch_logs_silenced
from secateur.graph.wrappers import uncompiled
from secateur.utils.process_lock import exclusive


def export_first(model: nn.Module, examples: Sequence[Batch]) -> tuple[Program, Batch]:
    """Export a model with the first of several examples that it takes.

    Raises:
        TraceError, DataError: as `export_program`, for the last of them.
    """
    for example in examples[:-1]:
        try:
            return export_fresh(model, example), example
        except SecateurError:
            continue
    return export_fresh(model, examples[-1]), examples[-1]


Axes = Sequence[Collection[int]]


def export_program(model: nn.Module, batch: Batch, axes: Axes = ()) -> Program:
    """Export a model with a batch size that may vary; where that fails, with the batch size of the example.

    Args:
        model: the model.
        batch: the example.
        axes: of each input, in the order of the batch's leaves, further axes that may vary if torch can keep them so.

    Raises:
        TraceError: the model can't be exported; the message holds torch's own reason and the line.
        DataError: the model refuses the example, or returns no tensors.
    """
    with (
        exclusive(), evaluation_mode(model), attributes_restored(model), every_step_seen(), torch_logs_silenced(),
        uncompiled(), torch.no_grad(),
    ):  # fmt: skip
        program = _exported(model, batch, axes)
        if not program.output_nodes:
            raise DataError(f"{type(model).__name__} returns {_described(model, batch)}; {OUTPUTS}")
        return program


OUTPUTS = "let forward return tensors: one, or several in tuples, lists, dicts or dataclasses"


def _described(model: nn.Module, batch: Batch) -> str:
    """What a model returns, in words."""
    output = model(*batch.args, **batch.kwargs)
    return "None" if output is None else f"a {type(output).__name__} without a tensor that depends on its inputs"


def _exported(model: nn.Module, batch: Batch, axes: Axes) -> Program:
    failures = []
    for varying in [axes, (), None] if any(axes) else [(), None]:
        try:
            with plain_forward(model, batch):
                shapes = None if varying is None else dynamic_shapes(model, batch, varying)
                with (
                    recurrent_layers_whole(),
                    shapes_not_cached(shapes is not None),
                    shapes_at_once(shapes is not None),
                    without_stack_traces(),
                    short_size_expressions(bool(varying)),
                    drawing_by_size(),
                    EinsumsTakenApart(),
                ):
                    exported = torch.export.export(
                        model, batch.args, dict(batch.kwargs), dynamic_shapes=shapes, strict=False
                    )
                    return _as_program(exported, model, batch)
        except Exception as failure:  # noqa: BLE001 torch.export raises any type, the user's own included
            failures.append(failure)
    _check_example(model, batch)
    raise export_error(model, failures[-1]) from failures[-1]


def export_fresh(model: nn.Module, batch: Batch, axes: Axes = ()) -> Program:
    """As `export_program`, without what the model's own code keeps from the last batch, where it can do without.

    Raises:
        TraceError, DataError: as `export_program`.
    """
    attributes = remembered(model, batch)
    if attributes:
        try:
            with forgotten(model, attributes):
                program = export_program(model, batch, axes)
            if _agrees(program, model, batch):
                return program
        except SecateurError:  # the model's code can't do without
            pass
    return export_program(model, batch, axes)


def _agrees(program: Program, model: nn.Module, batch: Batch) -> bool:
    """Whether a program gives what the model gives in the state in which it is."""
    with preserved(model), replayed(program.draws, partial(program.forward, batch)):
        expected = pytree.tree_leaves(run_module(model, batch))
    with torch.no_grad():
        found = pytree.tree_leaves(program.forward(batch))
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if isinstance(b, Tensor) and b.is_floating_point()]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-2, atol=1e-3) for a, b in pairs)


@contextmanager
def every_step_seen() -> Iterator[None]:
    """Without torch's fused kernels for whole transformer layers, which hide what happens inside.

    Nor does `nn.Transformer` look whether a mask happens to be causal, which only serves to choose a kernel: what
    depends on the values in a tensor can't be exported.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with patch.object(transformer, "_detect_is_causal_mask", lambda mask, is_causal, size: bool(is_causal)):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _check_example(model: nn.Module, batch: Batch) -> None:
    """
    Raises:
        DataError: the model itself refuses the example.
    """
    with preserved(model):
        run_module(model, batch)


def _addbmm(added: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`torch.addbmm`, for which torch has no decomposition."""
    return beta * added + alpha * torch.bmm(batch1, batch2).sum(0)


ATEN: Any = torch.ops.aten
TAKEN_APART: tuple[Any, ...] = (
    ATEN.einsum.default,
    ATEN.tensordot.default,
    ATEN.cosine_similarity.default,
    ATEN.baddbmm.default,
    ATEN.addbmm.default,
)
OWN_DECOMPOSITIONS: dict[Any, Any] = {ATEN.addbmm.default: _addbmm}


def _as_program(exported: ExportedProgram, model: nn.Module, batch: Batch) -> Program:
    """The program without operators that write to their inputs or insist on a memory layout."""
    writes = any(map(writes_where_seen, exported.graph.nodes))
    if writes or any(node.target in TAKEN_APART for node in exported.graph.nodes):
        without_dropouts(exported)
        known = {**torch.export.default_decompositions(), **OWN_DECOMPOSITIONS}
        exported = exported.run_decompositions({target: known[target] for target in TAKEN_APART})
    for node in exported.graph.nodes:
        if is_mutable(node):
            node.target = functional(node)
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    own = {id(tensor): name for name, tensor in (*model.named_buffers(), *model.named_parameters())}
    holders = {**exported.constants, **exported.state_dict}
    names = {name: own.get(id(tensor), name) for name, tensor in holders.items()}
    return Program(exported, _batch_symbol(exported, batch), names, writes)


def dynamic_shapes(model: nn.Module, batch: Batch, axes: Axes = ()) -> Any:
    """Dim.AUTO for the batch of every tensor, for the length of integer inputs, and for the axes asked for."""
    further = iter(axes)

    def dims(leaf: Any) -> Any:
        asked = next(further, ())
        if not isinstance(leaf, Tensor) or leaf.dim() == 0:
            return None
        dynamic = {0, 1} if not leaf.is_floating_point() and leaf.dim() == 2 else {0}
        return {dim: Dim.AUTO if leaf.shape[dim] > 1 else None for dim in sorted(dynamic | set(asked))}

    args, kwargs = pytree.tree_map(dims, (tuple(batch.args), dict(batch.kwargs)))
    return _by_parameter(inspect.signature(model.forward), args, kwargs)


def _by_parameter(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Values under the names of a signature's parameters; what `*args` and `**kwargs` take lies under theirs."""
    found: dict[str, Any] = {}
    rest, others = list(args), dict(kwargs)
    for name, parameter in signature.parameters.items():
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            found |= {name: tuple(rest)} if rest else {}
            rest = []
        elif parameter.kind == inspect.Parameter.VAR_KEYWORD:
            found |= {name: others} if others else {}
        elif name in others:
            found[name] = others.pop(name)
        elif rest:
            found[name] = rest.pop(0)
    return found


def _batch_symbol(exported: ExportedProgram, batch: Batch) -> str | None:
    size = batch.size
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in exported.graph_signature.user_inputs:
            dim = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
            if not isinstance(dim, torch.SymInt) or dim.node.expr.is_number:
                continue
            if size is None or dim.node.hint in (size, None):
                return str(dim.node.expr)
    return None
