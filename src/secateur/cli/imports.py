"""Import the models and data that a command line names."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from secateur.cli.checkpoints import read_checkpoint, state_dict_for
from secateur.errors import NameMatchError, StorageError
from secateur.files import check_regular, read_program
from secateur.graph.wrappers import unwrapped


def imported_object(name: str) -> Callable[[], Any]:
    """Import the callable that `package.module:attribute` or `file.py:attribute` names.

    Modules of the current folder are found, too.

    Raises:
        NameMatchError: the module or attribute does not exist, or is not callable.
    """
    module_name, _, attribute_path = name.partition(":")
    if not module_name or not attribute_path:
        raise NameMatchError(f"{name!r} is not of the form package.module:callable or file.py:callable")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        is_file = module_name.endswith(".py")
        target: Any = module_of_file(Path(module_name)) if is_file else importlib.import_module(module_name)
        for attribute in attribute_path.split("."):
            target = getattr(target, attribute)
    except (ImportError, AttributeError, OSError) as failure:
        raise NameMatchError(f"{name!r} can't be found: {failure}") from failure
    if not callable(target):
        raise NameMatchError(f"{name!r} is a {type(target).__name__}, not a callable")
    return cast(Callable[[], Any], target)


def module_of_file(path: Path) -> ModuleType:
    """Run a file as a module, once for its path.

    Raises:
        OSError: it can't be read.
    """
    name = f"secateur_file_{path.resolve().as_posix()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def metric_from(name: str | None) -> Callable[..., Any] | None:
    """Return the metric of a name, None for None."""
    return None if name is None else imported_object(name)


def batches_from(name: str) -> Any:
    """Call the callable of a name, and return its batches."""
    return imported_object(name)()


def model_from(name: str | None, weights: Path | None, program: Path | None) -> nn.Module:
    """Return a model from a callable and a file of weights, or from an exported program.

    Raises:
        NameMatchError: neither or both are given, or the callable returns no module.
        StorageError: a file cannot be read, or does not fit the model.
    """
    if (name is None) == (program is None):
        raise NameMatchError("give either --model package.module:callable or --program model.pt2")
    if program is not None:
        print(
            f"secateur: {program} is code, which runs when it is read; give only a file that you trust", file=sys.stderr
        )
        return read_program(program)
    model = imported_object(str(name))()
    model = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(model, nn.Module):
        raise NameMatchError(f"{name!r} gave a {type(model).__name__}, not a torch.nn.Module")
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
