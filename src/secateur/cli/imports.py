"""Import the models and data that a command line names."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from secateur.cli.checkpoints import read_checkpoint, state_dict_for
from secateur.cli.model_sources import library_model
from secateur.errors import NameMatchError, OptionError, StorageError
from secateur.files import check_regular, read_program
from secateur.graph.wrappers import unwrapped
from secateur.options.argument_checks import check_model
from secateur.utils.failure_text import failure_text

FORM = "package.module:name or file.py:name"


def imported_object(source: str) -> Any:
    """Import the object that `package.module:name` or `file.py:name` names.

    Modules of the current folder are found too, and those beside the file.

    Raises:
        NameMatchError: the module or the name does not exist.
        OptionError: the module's own code fails.
    """
    module_name, _, attribute_path = source.rpartition(":")
    if not module_name or not attribute_path:
        raise NameMatchError(f"{source!r} is not of the form {FORM}")
    try:
        target: Any = _module_of(module_name)
    except (ModuleNotFoundError, FileNotFoundError, AttributeError) as failure:
        raise NameMatchError(f"{source!r} can't be found: {failure}") from failure
    except Exception as failure:  # the user's own module may raise anything
        raise OptionError(f"{source!r} can't be imported: {_raised(failure)}") from failure
    for attribute in attribute_path.split("."):
        if not hasattr(target, attribute):
            nearest = get_close_matches(attribute, dir(target), 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise NameMatchError(f"{source!r} can't be found: {module_name} has no {attribute!r}{hint}")
        target = getattr(target, attribute)
    return target


def _module_of(name: str) -> ModuleType:
    is_file = name.endswith(".py")
    folder = Path(name).resolve().parent if is_file else Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return module_of_file(Path(name)) if is_file else importlib.import_module(name)


def module_of_file(path: Path) -> ModuleType:
    """Run a file as a module, once for its path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    name = f"secateur_file_{path.resolve().as_posix()}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
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


def metric_from(source: str | None) -> Callable[..., Any] | None:
    """Return the metric that a text names, None for None.

    Raises:
        NameMatchError: it can't be found, or is no function.
    """
    metric = None if source is None else imported_object(source)
    if metric is not None and not callable(metric):
        raise NameMatchError(f"{source!r} is a {type(metric).__name__}, not a callable of outputs and targets")
    return metric


def called(source: str, target: Any) -> Any:
    """Call what a text names, without arguments.

    Raises:
        OptionError: it raises an error, or takes arguments.
    """
    try:
        return target()
    except Exception as failure:  # the user's own code may raise anything
        kind = "the class" if isinstance(target, type) else "the function"
        raise OptionError(
            f"{kind} {source!r} can't be called without arguments: {_raised(failure)}; give a function without "
            "arguments that returns it"
        ) from failure


def _raised(failure: Exception) -> str:
    """Return an error with the line of the user's code that it comes from."""
    frames = traceback.extract_tb(failure.__traceback__)
    line = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{failure_text(failure)}{line}"


def batches_from(source: str | None) -> Any:
    """Return the data that a text names: what a function returns, or the object itself.

    Raises:
        SecateurError: as `imported_object` raises, the text is missing, or it names a number or nothing.
    """
    if source is None:
        raise NameMatchError("--data is missing; give package.module:callable that returns batches, one is enough")
    target = imported_object(source)
    data = called(source, target) if callable(target) else target
    if isinstance(data, nn.Module):
        raise OptionError(f"{source!r} is a model, and no data; were --model and --data swapped?")
    if data is None or isinstance(data, int | float):
        raise OptionError(
            f"{source!r} gave {data!r}, which is no data; return batches of inputs, with or without targets"
        )
    return data


def model_from(source: str | None, weights: Path | None, program: Path | None, device: str = "cpu") -> nn.Module:
    """Return a model from code, from a library, or from an exported program, on a device.

    Args:
        source: what `--model` gives: `package.module:name`, `file.py:name`, `hf:FOLDER`, `timm:NAME` or
            `torchvision:NAME`; a name may be a function, a class or a model.
        weights: a file of weights.
        program: an exported program in place of a model.
        device: the device.

    Raises:
        SecateurError: neither or both are given, there is no such model or device, or a file can't be read or does not
            fit the model.
    """
    if (source is None) == (program is None):
        raise NameMatchError(f"give either --model {FORM} or --program model.pt2")
    if program is not None:
        print(
            f"secateur: {program} is code, which runs when it is read; give only a file that you trust", file=sys.stderr
        )
        return _placed(read_program(program), device)
    model = _model_of(str(source), weights is not None)
    if weights is not None:
        _load_weights(model, weights)
    return _placed(model.eval(), device)


def _model_of(source: str, has_weights: bool) -> nn.Module:
    model = library_model(source, has_weights)
    if model is None:
        target = imported_object(source)
        if not callable(target):
            raise NameMatchError(f"{source!r} is a {type(target).__name__}, not a callable that returns a model")
        model = target if isinstance(target, nn.Module) else called(source, target)
    model = unwrapped(model) if isinstance(model, nn.Module) else model
    check_model(f"--model {source}", model)
    assert isinstance(model, nn.Module)
    return model


def _placed(model: nn.Module, device: str) -> nn.Module:
    """Move a model to a device.

    Raises:
        OptionError: there is no such device.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as failure:
        reason = str(failure).strip().splitlines()[0]
        raise OptionError(f"--device {device} can't be used: {reason}; give cpu, cuda, cuda:1 or mps") from failure


def _load_weights(model: nn.Module, path: Path) -> None:
    check_regular(path)
    try:
        checkpoint = read_checkpoint(path)
    except Exception as failure:  # torch raises many types on a damaged archive
        raise StorageError(f"{path} can't be read: {failure_text(failure)}") from failure
    try:
        model.load_state_dict(state_dict_for(model, checkpoint))
    except (RuntimeError, TypeError, AttributeError) as failure:
        raise StorageError(f"{path} does not fit {type(model).__name__}: {failure}") from failure
