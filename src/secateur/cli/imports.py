"""Models and data by the names that a command line can give."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from secateur.cli.checkpoints import read_checkpoint, state_dict_for
from secateur.errors import NameMatchError, StorageError
from secateur.files import check_regular, read_program
from secateur.graph.wrappers import unwrapped


def imported_object(place: str) -> Callable[[], Any]:
    """What `package.module:name` names; modules of the current folder are found too.

    Raises:
        NameMatchError: there is no such module or name, or it can't be called.
    """
    module_name, colon, name = place.partition(":")
    if not colon or not module_name or not name:
        raise NameMatchError(f"{place!r} is not of the form package.module:callable")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as failure:
        raise NameMatchError(f"{place!r} can't be found: {failure}") from failure
    if not callable(found):
        raise NameMatchError(f"{place!r} is a {type(found).__name__}, not a callable")
    return found


def batches_from(place: str) -> Any:
    """The data that a named callable gives."""
    return imported_object(place)()


def model_from(place: str | None, weights: Path | None, program: Path | None) -> nn.Module:
    """A model from a callable and its weights, or from an exported program.

    Raises:
        NameMatchError: neither or both are given, or the callable gives no module.
        StorageError: a file can't be read, or does not fit the model.
    """
    if (place is None) == (program is None):
        raise NameMatchError("give either --model package.module:callable or --program model.pt2")
    if program is not None:
        print(
            f"secateur: {program} is code, which runs when it is read; give only a file that you trust", file=sys.stderr
        )
        return read_program(program)
    model = imported_object(str(place))()
    model = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(model, nn.Module):
        raise NameMatchError(f"{place!r} gave a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _load_weights(model: nn.Module, path: Path) -> None:
    check_regular(path)
    try:
        checkpoint = read_checkpoint(path)
    except Exception as failure:  # torch raises many types on a damaged archive
        raise StorageError(f"{path} can't be read: {type(failure).__name__}: {failure}") from failure
    try:
        model.load_state_dict(state_dict_for(model, checkpoint))
    except (RuntimeError, TypeError, AttributeError) as failure:
        raise StorageError(f"{path} does not fit {type(model).__name__}: {failure}") from failure
