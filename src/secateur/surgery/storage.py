"""Results on disk: a recipe in JSON and weights in safetensors, that load onto a fresh model of the same class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.data.model_inputs import device_of
from secateur.entry import entry_point
from secateur.errors import StorageError
from secateur.files import (
    Writer,
    digest_of,
    file_digest,
    program_writer,
    read_record,
    read_tensors,
    reading,
    record_writer,
    tensors_writer,
    write_files,
)
from secateur.files.tensors import About
from secateur.graph.export import export_program
from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.supported_models import unsupported_reason
from secateur.graph.wrappers import unwrap_children
from secateur.surgery.input_form import example_of
from secateur.surgery.lineage import Lineage, attach, lineage_of
from secateur.surgery.rebuild import rebuilt, restored_on_failure
from secateur.surgery.recipe import apply_recipe
from secateur.surgery.saved_recipe import SavedRecipe, SavedRecipe2, lineage_in, saved

RECIPE, WEIGHTS, PROGRAM = "recipe.json", "weights.safetensors", "model.pt2"
OF_0_7 = (PROGRAM, "scores.safetensors", "report.json", "report.html", "report.txt", "pivot.json")


class SavedWeights(About, frozen=True):
    """Nothing more is said of weights: the recipe says it."""

    FORMAT: ClassVar[str] = "secateur weights/2"


class SavedWeights1(About, frozen=True):
    """Weights of version 0.7, whose digest stands in the recipe alone."""

    FORMAT: ClassVar[str] = "secateur weights 1"
    HAS_DIGEST: ClassVar[bool] = False


@entry_point
def save(model: nn.Module, folder: str | Path) -> None:
    """Write a model that was cut, so that `load` gives it back onto a fresh dense model.

    Args:
        model: what `cut`, `prune`, `repair` or `load` gave, fine-tuned or not, cut once or several times.
        folder: where to: recipe.json, weights.safetensors, and model.pt2 where a program was cut.

    Raises:
        StorageError: the model was never cut, was changed in another way since, or can't be written; files that were
            there before are as they were.

    Example:
        >>> import tempfile, torch, secateur as sc
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> model = make()
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> small = sc.cut(model, sc.plan(network, sc.score(network, by="l2"), keep={"macs": 0.5}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sc.save(small, folder)
        ...     again = sc.load(make(), folder)
        >>> torch.equal(again[0].weight, small[0].weight)
        True
    """
    save_with(model, Path(folder), {})


def save_with(model: nn.Module, folder: Path, companions: Mapping[str, Writer]) -> None:
    """Write a cut model and the files that belong to it, all or none of them.

    Args:
        model: the model.
        folder: where to.
        companions: the writers of the other files, by name; the recipe holds their digests.

    Raises:
        StorageError: as `save`.
    """
    lineage = lineage_of(model)
    if lineage is None:
        raise StorageError(
            f"this {type(model).__name__} does not say how it was cut: it did not come from cut, prune, load or "
            "repair; save a dense model as torch does, by its state_dict"
        )
    tensors = named_tensors(model)
    _check_described(tensors, lineage)
    writers = {WEIGHTS: tensors_writer(tensors, SavedWeights()), **companions}
    if lineage.steps[-1].recipe.program:
        writers[PROGRAM] = _program(model, lineage)
    stale = _written_before(folder)
    write_files(folder, writers, (RECIPE, lambda digests: record_writer(saved(lineage, digests))), stale)


@entry_point
def load(model: nn.Module, folder: str | Path, example_inputs: object = None) -> nn.Module:
    """Give a fresh dense model the structure and the weights of a saved result.

    Nothing that is read is code: a program that was cut is exported again from the fresh model.

    Args:
        model: a fresh model of the class that was pruned, made with the same arguments; it is changed in place.
        folder: where `save` or `Result.save` wrote.
        example_inputs: as `trace` takes them; only for programs that version 0.7 saved, which do not hold the form of
            their inputs.

    Returns:
        The model, bit for bit the one that was saved, in evaluation mode, as `from_pretrained` gives models; call
        `model.train()` to train it on. Where a program was cut, that program, and the fresh model is as it was.

    Raises:
        StorageError: a file is missing, cut off, altered or of another network, or the model is lazy and has seen no
            data; the model is as it was.

    Example:
        >>> import tempfile, torch, secateur as sc
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = sc.prune(make(), torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(folder)
        ...     small = sc.load(make(), folder)
        >>> small[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise StorageError(reason)
    return prepare_load(model, Path(folder), example_inputs).commit()


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
        """Change the fresh model, or make the program whole."""
        is_program = any(step.recipe.program for step in self.lineage.steps)
        target = self.rebuilt if is_program else self.model
        values = {name: self.tensors[name].to(tensor.device) for name, tensor in named_tensors(self.rebuilt).items()}
        with restored_on_failure(target):
            if not is_program:
                unwrap_children(target)
                for step in self.lineage.steps:
                    apply_recipe(target, step.recipe)
            for name, tensor in (*target.named_parameters(), *target.named_buffers()):
                tensor.data = as_channels_last(values[name]) if is_channels_last(tensor) else values[name]
            attach(target, self.lineage)
        return target if is_program else target.eval()


def prepare_load(model: nn.Module, folder: Path, example_inputs: object = None) -> PreparedLoad:
    """Read a saved result and validate it against a fresh model, which stays as it is.

    Raises:
        StorageError: as `load`.
    """
    with reading(folder) as path_of:
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
    lineage = lineage_in(record)
    try:
        cut = rebuilt(model, lineage, record.torch, example_inputs)
        _check_weights(cut, tensors)
    except StorageError as failure:
        raise StorageError(f"{folder} can't be loaded onto this {type(model).__name__}: {failure}") from failure
    return PreparedLoad(model, lineage, tensors, cut)


def check_companion(folder: Path, path_of: Callable[[str], Path], name: str) -> None:
    """
    Raises:
        StorageError: a file does not belong to the result that lies in the same folder.
    """
    recipe = read_record(path_of(RECIPE), (SavedRecipe, SavedRecipe2))
    digests = recipe.files if isinstance(recipe, SavedRecipe) else {}
    if digests.get(name) != file_digest(path_of(name)):
        raise StorageError(f"{folder / name} does not belong to {folder / RECIPE}: one of them was altered or replaced")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _check_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """
    Raises:
        StorageError: the weights are not those of the model as it was cut.
    """
    own = named_tensors(model)
    for name in sorted(own.keys() | tensors.keys()):
        wanted, given = own.get(name), tensors.get(name)
        if wanted is None or given is None or wanted.shape != given.shape:
            raise StorageError(f"{WEIGHTS} does not hold the tensors that {RECIPE} describes: {name} differs")
        if wanted.dtype != given.dtype:
            raise StorageError(
                f"{WEIGHTS} holds {name} as {given.dtype}, but the model has it as {wanted.dtype}; convert the fresh "
                "model first"
            )


def _check_described(tensors: Mapping[str, Tensor], lineage: Lineage) -> None:
    """
    Raises:
        StorageError: the model was changed since in a way that its cuts do not describe.
    """
    expected = lineage.shapes()
    own = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in own.keys() | expected.keys() if own.get(name) != expected.get(name))
    if wrong:
        raise StorageError(
            f"{wrong[0]} has shape {own.get(wrong[0], 'none')}, where the cuts that this model carries leave "
            f"{expected.get(wrong[0], 'none')}; a model whose layers were changed after the cut can't be saved"
        )


def _program(model: nn.Module, lineage: Lineage) -> Writer:
    """
    Raises:
        StorageError: the inputs of the program can't be written down.
    """
    form = lineage.steps[-1].inputs
    if form is None:
        raise StorageError(
            "this program takes inputs that are no tensors, numbers, strings, lists, tuples or dicts of them, which "
            "can't be written down; keep it by torch.export.save"
        )
    with torch.random.fork_rng(devices=[]):
        return program_writer(export_program(model, example_of(form, device_of(model))).exported)


def _written_before(folder: Path) -> tuple[str, ...]:
    """The files of a result that lies in a folder; none where it can't be read."""
    try:
        with reading(folder) as path_of:
            record = read_record(path_of(RECIPE), (SavedRecipe, SavedRecipe2))
    except StorageError:
        return ()
    if isinstance(record, SavedRecipe2):
        return OF_0_7
    return tuple(name for name in record.files if Path(name).name == name)
