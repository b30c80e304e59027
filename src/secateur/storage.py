"""Results on disk: a recipe in JSON and weights in safetensors, that load onto a fresh model of the same class."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.entry import entry_point
from secateur.errors import StorageError
from secateur.files import Writer, json_writer, read_json, read_program, read_tensors, tensors_writer
from secateur.network.cost import TensorCost
from secateur.network.folded import folded
from secateur.network.supported import unsupported_reason
from secateur.surgery.recipe import Recipe, apply_recipe
from secateur.version import __version__

FORMAT = "secateur recipe 2"
WEIGHTS_FORMAT = "secateur weights 1"
RECIPE, WEIGHTS, PROGRAM = "recipe.json", "weights.safetensors", "model.pt2"


def model_writers(
    folder: Path, model: nn.Module, recipe: Recipe, dense: Mapping[str, tuple[int, ...]]
) -> dict[Path, Writer]:
    """Writers of a cut model's recipe and weights.

    Args:
        folder: where to.
        model: the cut model.
        recipe: how it was cut.
        dense: the shapes of the dense model's parameters and buffers.
    """
    tensors = _tensors(model)
    content = _as_json(recipe, dense, type(model).__name__, _digest(tensors))
    return {
        folder / WEIGHTS: tensors_writer(tensors, {"format": WEIGHTS_FORMAT, "about": "{}"}),
        folder / RECIPE: json_writer(content),
    }


@entry_point
def load(model: nn.Module, folder: str | Path) -> nn.Module:
    """Give a fresh dense model the structure and the weights of a saved result.

    Args:
        model: a fresh model of the class that was pruned, made with the same arguments; it is changed in place.
        folder: where `Result.save` wrote.

    Returns:
        The model, bit for bit the one that was saved, in evaluation mode, as `from_pretrained` gives models; call
        `model.train()` to train it on. Where a program was cut, that program.

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
    folder = Path(folder)
    recipe, written = _read_recipe(folder / RECIPE)
    tensors, _ = read_tensors(folder / WEIGHTS, WEIGHTS_FORMAT)
    if _digest(tensors) != written["weights"]:
        raise StorageError(
            f"{folder / WEIGHTS} does not belong to {folder / RECIPE}: one of them was altered, or saving was "
            "interrupted"
        )
    if recipe.program:
        return _loaded_program(folder, tensors)
    _check_model(folded(model) if recipe.folded else model, recipe, written, tensors, folder)
    apply_recipe(model, recipe)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensor.data.copy_(tensors[name])
    return model.eval()


def _loaded_program(folder: Path, tensors: Mapping[str, Tensor]) -> nn.Module:
    """
    Raises:
        StorageError: the program is missing, damaged, or does not belong to the weights.
    """
    program = read_program(folder / PROGRAM)
    if _digest(_tensors(program)) != _digest(tensors):
        raise StorageError(f"{folder / PROGRAM} does not belong to {folder / WEIGHTS}: one of them was altered")
    return program


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _as_json(recipe: Recipe, dense: Mapping[str, tuple[int, ...]], title: str, weights: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "secateur": __version__,
        "torch": torch.__version__,
        "model": title,
        "kept": {name: indices.tolist() for name, indices in recipe.kept.items()},
        "slices": {
            name: {str(axis): positions.tolist() for axis, positions in axes.items()}
            for name, axes in recipe.slices.items()
        },
        "attributes": recipe.attributes,
        "biases": recipe.biases,
        "dropouts": recipe.dropouts,
        "literals": recipe.literals,
        "was": recipe.was,
        "dropins": list(recipe.dropins),
        "skipped": list(recipe.skipped),
        "folded": recipe.folded,
        "program": recipe.program,
        "dense": {name: list(shape) for name, shape in dense.items()},
        "weights": weights,
    }


def _read_recipe(path: Path) -> tuple[Recipe, dict[str, Any]]:
    written = read_json(path, FORMAT)
    slices = {
        name: {int(axis): torch.tensor(positions, dtype=torch.long) for axis, positions in axes.items()}
        for name, axes in written["slices"].items()
    }
    kept = {name: torch.tensor(indices, dtype=torch.long) for name, indices in written["kept"].items()}
    attributes, was = (
        {
            path: {name: tuple(value) if isinstance(value, list) else value for name, value in changed.items()}
            for path, changed in written[part].items()
        }
        for part in ("attributes", "was")
    )
    biases, dropouts, literals = (written[part] for part in ("biases", "dropouts", "literals"))
    dropins, skipped = tuple(written["dropins"]), tuple(written["skipped"])
    how = written["folded"], written["program"]
    return Recipe(kept, slices, attributes, biases, dropouts, literals, was, dropins, skipped, *how), written


def _check_model(
    model: nn.Module, recipe: Recipe, written: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> None:
    """Everything that could fail, before anything is changed."""
    if type(model).__name__ != written["model"]:
        raise StorageError(f"{folder} was saved from a {written['model']}, but this is a {type(model).__name__}")
    own = {name: list(tensor.shape) for name, tensor in _tensors(model).items()}
    wrong = [name for name in own.keys() | written["dense"].keys() if own.get(name) != written["dense"].get(name)]
    if wrong:
        name = min(wrong)
        raise StorageError(
            f"{folder} was saved from a {written['model']} whose {name} has shape {written['dense'].get(name)}; this "
            f"{type(model).__name__} has {own.get(name)} there; give a fresh, dense model of the same class and "
            "arguments"
        )
    modules = dict(model.named_modules())
    for path, values in recipe.was.items():
        for name, value in values.items():
            held = getattr(modules.get(path), name, None)
            if (tuple(held) if isinstance(held, list) else held) != value:
                raise StorageError(
                    f"{folder} was saved from a model whose {path}.{name} is {value}; in this {type(model).__name__} "
                    f"it is {getattr(modules.get(path), name, None)}; make the model with the same arguments"
                )
    types = {name: tensor.dtype for name, tensor in _tensors(model).items()}
    other = [name for name, tensor in tensors.items() if name in types and tensor.dtype != types[name]]
    if other:
        raise StorageError(
            f"{folder} holds {other[0]} as {tensors[other[0]].dtype}, but this {type(model).__name__} has it as "
            f"{types[other[0]]}; convert the fresh model first"
        )
    within = tuple(f"{path}." for path in recipe.skipped)
    expected = {
        name: _left(shape, recipe.slices.get(name, {})) for name, shape in own.items() if not name.startswith(within)
    }
    expected |= {name: [length] for name, length in recipe.biases.items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise StorageError(f"{folder / WEIGHTS} does not hold the tensors that {folder / RECIPE} describes")


def _left(shape: list[int], axes: Mapping[int, Tensor]) -> list[int]:
    return [len(axes[axis]) if axis in axes else length for axis, length in enumerate(shape)]


def shapes_of(tensors: tuple[TensorCost, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors by name."""
    return {tensor.name: tensor.shape for tensor in tensors}
