"""Cut models rebuilt from a fresh dense model; every cut is validated and tried on a copy first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of
from secateur.errors import SecateurError, StorageError
from secateur.graph.export import export_first
from secateur.graph.model_copies import copy_model
from secateur.graph.wrappers import unwrap_children
from secateur.surgery.aliased_model import alias_model
from secateur.surgery.apply_recipe import apply_recipe
from secateur.surgery.input_form import example_of
from secateur.surgery.lineage import UNKNOWN, CutStep, Lineage, graph_digest
from secateur.surgery.program_surgery import as_module
from secateur.surgery.recipe import Recipe
from secateur.surgery.recipe_checks import check_kind, check_recipe, check_recipe_fits
from secateur.utils.failure_text import failure_text

FOLDING = Recipe({}, {}, {}, {}, {}, {}, {}, folded=True)


def rebuild_model(model: nn.Module, lineage: Lineage, torch_version: str, example_inputs: Any = None) -> nn.Module:
    """Return a copy of a fresh model with all cuts, or the cut program, without the saved weights.

    Args:
        model: the fresh model; it is not changed.
        lineage: the cuts.
        torch_version: that they were saved with.
        example_inputs: for programs of version 0.7.

    Raises:
        StorageError: a cut is not one of this model.
    """
    if lineage.title not in (type(model).__name__, UNKNOWN):
        raise StorageError(f"it was saved from a {lineage.title}; give a fresh, dense model of the same class")
    programs = any(step.recipe.program for step in lineage.steps)
    try:
        cut_model = copy_model(model, {}) if programs else alias_model(model)
        unwrap_children(cut_model)
        shape_placeholders(cut_model, lineage.steps[0].shapes)
        for step in lineage.steps:
            cut_model = _apply_step(cut_model, step, lineage.title, torch_version, example_inputs)
    except StorageError:
        raise
    except SecateurError as failure:
        raise StorageError(str(failure)) from failure
    except Exception as failure:  # the model's own code, or torch on a recipe that is of another model
        raise StorageError(f"a cut can't be made again: {failure_text(failure)}") from failure
    return cut_model


def shape_placeholders(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give buffers that the model's code computes at its first batch the shapes that they had when it was cut.

    Such a buffer is no part of the state dict. Before the first batch it has at most one entry along the axes that
    differ, in this model or in the one that was cut.
    """
    for path, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            buffer, saved_shape = module._buffers.get(name), shapes.get(f"{path}.{name}" if path else name)
            if buffer is not None and saved_shape is not None and _is_placeholder(buffer, saved_shape):
                module._buffers[name] = buffer.new_zeros(()).expand(saved_shape)


def _is_placeholder(buffer: Tensor, shape: tuple[int, ...]) -> bool:
    pairs = list(zip(buffer.shape, shape, strict=False))
    is_short = all(now == saved_length or min(now, saved_length) < 2 for now, saved_length in pairs)
    return buffer.dim() == len(shape) and is_short and buffer.shape != shape


def _apply_step(model: nn.Module, step: CutStep, title: str, torch_version: str, example_inputs: Any) -> nn.Module:
    """Return the model after one more cut.

    Raises:
        StorageError: it is not a cut of this model.
    """
    check_kind(model, step.recipe)
    if step.recipe.program:
        model = _program_as_saved(model, step, torch_version, example_inputs)
    elif step.recipe.folded:
        apply_recipe(model, FOLDING)
    check_recipe_fits(model, step, title)
    check_recipe(model, step.recipe)
    apply_recipe(model, replace(step.recipe, folded=False))
    return model


def _program_as_saved(model: nn.Module, step: CutStep, torch_version: str, example_inputs: Any) -> nn.Module:
    """Export a fresh model as the cut model was exported.

    Raises:
        StorageError: the form of the inputs is not known, or the program is another one.
    """
    with torch.random.fork_rng(devices=[]):
        program, _ = export_first(model, _example_batches(model, step, example_inputs))
    if step.graph and graph_digest(program) != step.graph:
        raise StorageError(
            f"torch {torch.__version__} exports another program from this model than the one that was cut with torch "
            f"{torch_version}; use that version, or cut the model again"
        )
    return as_module(program)


def _example_batches(model: nn.Module, step: CutStep, example_inputs: Any) -> list[Batch]:
    if step.inputs is not None:
        return [example_of(step.inputs, device_of(model))]
    if example_inputs is None:
        raise StorageError(
            "this program was saved by version 0.7, which did not write down the form of its inputs; give load() "
            "example_inputs= as they were given to trace(), and save it again"
        )
    return example_batches(example_inputs, device_of(model), model=model)


@contextmanager
def restored_on_failure(model: nn.Module) -> Iterator[None]:
    """Restore a model if changing it fails or is interrupted, within a context."""
    states_before = [(module, type(module), _copied_vars(module)) for module in model.modules()]
    data = [(tensor, tensor.data, tensor.grad) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    except BaseException:
        for module, kind, values in states_before:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(values)
        for tensor, content, gradient in data:
            tensor.data, tensor.grad = content, gradient
        raise


def _copied_vars(module: nn.Module) -> dict[str, Any]:
    """Copy a module's attributes, and the dicts and lists among them."""
    return {name: value.copy() if isinstance(value, dict | list) else value for name, value in vars(module).items()}
