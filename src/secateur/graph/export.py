"""Export of a model as a functional program, with a dynamic batch size."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError, SecateurError, TraceError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.contexts import evaluation_mode, fused_layers_disabled, isolated_evaluation, run_module
from secateur.graph.decomposed_operators import (
    decompose_program,
    has_operators_to_decompose,
    operators_taken_apart,
)
from secateur.graph.draw_replay import draws_replayed
from secateur.graph.dynamic_shapes import Axes, _batch_symbol, dynamic_shapes
from secateur.graph.export_errors import export_error
from secateur.graph.export_kernels import (
    recurrent_layers_whole,
    short_size_expressions,
    without_shape_cache,
    without_stack_traces,
)
from secateur.graph.functionalize import functional, is_mutable, writes_where_seen
from secateur.graph.model_calls import plain_forward
from secateur.graph.program import Program
from secateur.graph.random_draws import drawing_by_size
from secateur.graph.remembered_state import (
    attributes_forgotten,
    cached_tensors,
    remembered_attributes,
    replaced_buffers,
)
from secateur.graph.shape_kernels import shapes_at_once
from secateur.graph.torch_logs import torch_logs_silenced
from secateur.graph.wrappers import without_compilation
from secateur.options import kind_text
from secateur.utils.default_device import on_callers_device
from secateur.utils.process_lock import exclusive


def export_first(model: nn.Module, examples: Sequence[Batch]) -> tuple[Program, Batch]:
    """Export a model with the first example that it accepts.

    Raises:
        TraceError, DataError: as `export_program`, for the last of them.
    """
    for example in examples[:-1]:
        try:
            return export_fresh(model, example), example
        except SecateurError:
            continue
    return export_fresh(model, examples[-1]), examples[-1]


def export_program(model: nn.Module, batch: Batch, axes: Axes = ()) -> Program:
    """Export a model with a dynamic batch size, or with the example's batch size if that fails.

    Args:
        model: the model.
        batch: the example.
        axes: of each input, in the order of the batch's leaves, further axes that may vary if torch can keep them so.

    Raises:
        TraceError: the model can't be exported; the message holds torch's own reason and the line.
        DataError: the model refuses the example, or returns no tensors.
    """
    with (
        exclusive(), evaluation_mode(model), attributes_restored(model), fused_layers_disabled(), torch_logs_silenced(),
        without_compilation(), torch.no_grad(),
    ):  # fmt: skip
        program = _program_of_state(model, batch, axes)
        if not program.output_nodes:
            raise DataError(f"{type(model).__name__} returns {_output_text(model, batch)}; {OUTPUTS}")
        return program


OUTPUTS = "let forward return tensors: one, or several in tuples, lists, dicts or dataclasses"


def _output_text(model: nn.Module, batch: Batch) -> str:
    """Describe what a model returns."""
    output = on_callers_device(model)(*batch.args, **batch.kwargs)
    return "None" if output is None else f"{kind_text(output)} without a tensor that depends on its inputs"


def _program_of_state(model: nn.Module, batch: Batch, axes: Axes) -> Program:
    """Export a model as it is; where that fails, with the buffers that its code replaces when it sees the batch.

    Raises:
        TraceError, DataError: as `export_program`.
    """
    try:
        return _exported_program(model, batch, axes)
    except TraceError:
        buffers = replaced_buffers(model, batch)
        if not buffers:
            raise
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        return _exported_program(model, batch, axes)


def _exported_program(model: nn.Module, batch: Batch, axes: Axes) -> Program:
    failures = []
    for varying in [axes, (), None] if any(axes) else [(), None]:
        try:
            with plain_forward(model, batch):
                shapes = None if varying is None else dynamic_shapes(model, batch, varying)
                with (
                    recurrent_layers_whole(),
                    without_shape_cache(shapes is not None),
                    shapes_at_once(shapes is not None),
                    without_stack_traces(),
                    short_size_expressions(bool(varying)),
                    drawing_by_size(),
                    operators_taken_apart(),
                ):
                    exported = on_callers_device(torch.export.export)(
                        model, batch.args, dict(batch.kwargs), dynamic_shapes=shapes, strict=False
                    )
                    return _as_program(exported, model, batch)
        except Exception as failure:  # noqa: BLE001 torch.export raises any type, the user's own included
            failures.append(failure)
    _check_example(model, batch)
    raise export_error(model, failures[-1]) from failures[-1]


def export_fresh(model: nn.Module, batch: Batch, axes: Axes = ()) -> Program:
    """Export a model without the state that its own code keeps from the last batch, if that is possible.

    Raises:
        TraceError, DataError: as `export_program`.
    """
    cached_values = cached_tensors(model, batch)
    attributes = list(dict.fromkeys([*remembered_attributes(model, batch), *cached_values]))
    if attributes:
        try:
            with attributes_forgotten(model, attributes):
                program = export_program(model, batch, axes)
            if _agrees(program, model, batch):
                paths = {module: path for path, module in model.named_modules()}
                return replace(program, caches=tuple((paths[entry.module], entry.name) for entry in cached_values))
        except SecateurError:  # the model's code can't do without
            pass
    return export_program(model, batch, axes)


def _agrees(program: Program, model: nn.Module, batch: Batch) -> bool:
    """Return whether a program gives the same outputs as the model in its current state."""
    with isolated_evaluation(model), draws_replayed(program.draws, partial(program.forward, batch)):
        expected_leaves = pytree.tree_leaves(run_module(model, batch))
    with torch.no_grad():
        outputs = pytree.tree_leaves(program.forward(batch))
    tensors = [(a, b) for a, b in zip(outputs, expected_leaves, strict=True) if isinstance(b, Tensor)]
    numbers = [(a, b) for a, b in tensors if b.is_floating_point() or b.is_complex()]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-2, atol=1e-3) for a, b in numbers)


def _check_example(model: nn.Module, batch: Batch) -> None:
    """Check that the model accepts the example.

    Raises:
        DataError: the model itself refuses the example.
    """
    with isolated_evaluation(model):
        run_module(model, batch)


def _as_program(exported: ExportedProgram, model: nn.Module, batch: Batch) -> Program:
    """Build the program, without operators that write to their inputs or require a memory layout."""
    writes = any(map(writes_where_seen, exported.graph.nodes))
    if writes or has_operators_to_decompose(exported):
        exported = decompose_program(exported)
    for node in exported.graph.nodes:
        if is_mutable(node):
            node.target = functional(node)
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    model_names = {id(tensor): name for name, tensor in (*model.named_buffers(), *model.named_parameters())}
    holders = {**exported.constants, **exported.state_dict}
    names = {name: model_names.get(id(tensor), name) for name, tensor in holders.items()}
    return Program(exported, _batch_symbol(exported, batch), names, writes)
