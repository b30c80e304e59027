"""Saved results: a recipe in JSON and weights in safetensors, which load onto a fresh model of the same class."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from secateur.data.model_inputs import device_of
from secateur.entry import entry_point
from secateur.errors import StorageError
from secateur.files import (
    Writer,
    program_writer,
    read_record,
    reading,
    record_writer,
    tensors_writer,
    write_files,
)
from secateur.graph.export import export_program
from secateur.graph.supported_models import unsupported_reason
from secateur.surgery.input_form import example_of
from secateur.surgery.lineage import Lineage, lineage_of
from secateur.surgery.prepared_load import OF_0_7, SavedWeights, _check_described, named_tensors, prepare_load
from secateur.surgery.saved_recipe import PROGRAM, RECIPE, WEIGHTS, SavedRecipe, SavedRecipe2, lineage_to_saved


@entry_point
def save(model: nn.Module, folder: str | Path) -> None:
    """Write a model that was cut, so that `load` restores it on a fresh dense model.

    Args:
        model: what `cut`, `prune`, `repair` or `load` gave, fine-tuned or not, cut once or several times.
        folder: where to: recipe.json, weights.safetensors, and model.pt2 where a program was cut.

    Raises:
        StorageError: the model was never cut, was changed in another way since, or can't be written; files that were
            there before are as they were.

    Examples:
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
    """Write a cut model and the files that belong to it, atomically.

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
    write_files(folder, writers, (RECIPE, lambda digests: record_writer(lineage_to_saved(lineage, digests))), stale)


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

    Examples:
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


def _program(model: nn.Module, lineage: Lineage) -> Writer:
    """Export the program of a model again, and check it against the saved digest.

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
    """Return the names of the files of a result in a folder; none if it can't be read."""
    try:
        with reading(folder) as path_of:
            record = read_record(path_of(RECIPE), (SavedRecipe, SavedRecipe2))
    except StorageError:
        return ()
    if isinstance(record, SavedRecipe2):
        return OF_0_7
    return tuple(name for name in record.files if Path(name).name == name)
