"""A saved result, read and validated against a fresh model before the model is changed."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.files import (
    digest_of,
    file_digest,
    read_record,
    read_tensors,
    reading,
)
from secateur.files.tensors import About
from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.wrappers import unwrap_children
from secateur.surgery.apply_recipe import apply_recipe, pack_recurrent_weights
from secateur.surgery.lineage import Lineage, attach_lineage
from secateur.surgery.rebuild import rebuild_model, restored_on_failure, shape_placeholders
from secateur.surgery.saved_recipe import PROGRAM, RECIPE, WEIGHTS, SavedRecipe, SavedRecipe2, lineage_from_saved

OF_0_7 = (PROGRAM, "scores.safetensors", "report.json", "report.html", "report.txt", "pivot.json")


class SavedWeights(About, frozen=True):
    """The metadata of weights; the recipe describes them."""

    FORMAT: ClassVar[str] = "secateur weights/2"


class SavedWeights1(About, frozen=True):
    """The metadata of weights of version 0.7, whose digest is in the recipe alone."""

    FORMAT: ClassVar[str] = "secateur weights 1"
    HAS_DIGEST: ClassVar[bool] = False


@dataclass(frozen=True, eq=False)
class PreparedLoad:
    """A saved result that was validated against a fresh model, which is not changed yet.

    Args:
        model: the fresh model.
        lineage: the cuts.
        tensors: the parameters and buffers that it will have.
        rebuilt: a copy that was cut for trial, or the program.
    """

    model: nn.Module
    lineage: Lineage
    tensors: Mapping[str, Tensor]
    rebuilt: nn.Module

    def commit(self) -> nn.Module:
        """Change the fresh model, or complete the program."""
        is_program = any(step.recipe.program for step in self.lineage.steps)
        target = self.rebuilt if is_program else self.model
        values = {name: self.tensors[name].to(tensor.device) for name, tensor in named_tensors(self.rebuilt).items()}
        with restored_on_failure(target):
            if not is_program:
                unwrap_children(target)
                shape_placeholders(target, self.lineage.steps[0].shapes)
                for step in self.lineage.steps:
                    apply_recipe(target, step.recipe)
            for name, tensor in (*target.named_parameters(), *target.named_buffers()):
                tensor.data = as_channels_last(values[name]) if is_channels_last(tensor) else values[name]
            pack_recurrent_weights(target)
            attach_lineage(target, self.lineage)
            # Modules drop what they computed from old weights, such as tables of biases, when training begins.
            return target if is_program else target.train().eval()


def prepare_load(model: nn.Module, folder: Path, example_inputs: object = None) -> PreparedLoad:
    """Read a saved result and validate it against a fresh model, without changing the model.

    Raises:
        StorageError: as `load`.
    """
    with reading(folder) as path_of:
        _check_has_recipe(folder, path_of(RECIPE))
        record = read_record(path_of(RECIPE), (SavedRecipe, SavedRecipe2))
        tensors, _, digest = read_tensors(path_of(WEIGHTS), (SavedWeights, SavedWeights1))
        if isinstance(record, SavedRecipe) and PROGRAM in record.files and path_of(PROGRAM).exists():
            check_companion(folder, path_of, PROGRAM)  # it is not read as a program
    if isinstance(record, SavedRecipe):
        belongs = record.files.get(WEIGHTS) == digest
    else:
        belongs = record.weights == digest_of(tensors)
    if not belongs:
        raise StorageError(f"{folder / WEIGHTS} does not belong to {folder / RECIPE}: one of them was altered")
    lineage = lineage_from_saved(record)
    try:
        cut_model = rebuild_model(model, lineage, record.torch, example_inputs)
        _check_weights(cut_model, tensors)
    except StorageError as failure:
        raise StorageError(f"{folder} can't be loaded onto this {type(model).__name__}: {failure}") from failure
    return PreparedLoad(model, lineage, tensors, cut_model)


def _check_has_recipe(folder: Path, recipe: Path) -> None:
    """Check that a folder is that of a saved result.

    Raises:
        StorageError: it has no recipe; what it is instead is named.
    """
    if os.path.lexists(recipe):
        return
    if (folder / "config.json").is_file():
        raise StorageError(
            f"{folder} holds a model that `save_pretrained` wrote: it has a config.json and no {RECIPE}; load it by "
            "`from_pretrained` of its class, which needs no Secateur"
        )
    if folder.is_dir():
        fault = f"{RECIPE} is missing in {folder}"
    else:
        fault = f"{folder} is a file" if folder.exists() else f"{folder} does not exist"
    raise StorageError(f"{fault}; give the folder that `save` or `Result.save` wrote")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _check_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Check that saved weights fit a model.

    Raises:
        StorageError: the weights are not those of the model as it was cut.
    """
    model_tensors = named_tensors(model)
    for name in sorted(model_tensors.keys() | tensors.keys()):
        model_tensor, saved_tensor = model_tensors.get(name), tensors.get(name)
        if model_tensor is None or saved_tensor is None or model_tensor.shape != saved_tensor.shape:
            raise StorageError(f"{WEIGHTS} does not hold the tensors that {RECIPE} describes: {name} differs")
        if model_tensor.dtype != saved_tensor.dtype:
            raise StorageError(
                f"{WEIGHTS} holds {name} as {saved_tensor.dtype}, but the model has it as {model_tensor.dtype}; "
                "convert the fresh model first"
            )


def _check_described(tensors: Mapping[str, Tensor], lineage: Lineage) -> None:
    """Check that tensors have the shapes that the lineage describes.

    Raises:
        StorageError: the model was changed since in a way that its cuts do not describe.
    """
    expected_shapes = lineage.shapes()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(
        name for name in shapes.keys() | expected_shapes.keys() if shapes.get(name) != expected_shapes.get(name)
    )
    if wrong:
        raise StorageError(
            f"{wrong[0]} has shape {shapes.get(wrong[0], 'none')}, where the cuts that this model carries leave "
            f"{expected_shapes.get(wrong[0], 'none')}; a model whose layers were changed after the cut can't be saved"
        )


def check_companion(folder: Path, path_of: Callable[[str], Path], name: str) -> None:
    """Check that a file belongs to a saved result.

    Raises:
        StorageError: a file does not belong to the result that lies in the same folder.
    """
    recipe = read_record(path_of(RECIPE), (SavedRecipe, SavedRecipe2))
    digests = recipe.files if isinstance(recipe, SavedRecipe) else {}
    if digests.get(name) != file_digest(path_of(name)):
        raise StorageError(f"{folder / name} does not belong to {folder / RECIPE}: one of them was altered or replaced")
