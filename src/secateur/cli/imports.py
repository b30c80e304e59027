"""Objects of Python code and data that a command line names."""

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

from secateur.cli.source_advice import FORM, advice_on_data_source
from secateur.errors import NameMatchError, OptionError
from secateur.options import kind_text
from secateur.utils.failure_text import failure_text


def imported_object(source: str, advice: Callable[[str], str] | None = None) -> Any:
    """Import the object that `package.module:name` or `file.py:name` names.

    Modules of the current folder are found too, and those beside the file.

    Args:
        source: the text.
        advice: what to give in place of a text of another form, in words.

    Raises:
        NameMatchError: the module or the name does not exist.
        OptionError: the module's own code fails.
    """
    module_name, _, attribute_path = source.rpartition(":")
    if not module_name or not attribute_path:
        raise NameMatchError(f"{source!r} is not of the form {FORM}{f'; {advice(source)}' if advice else ''}")
    try:
        target: Any = _module_of(module_name)
    except (ModuleNotFoundError, FileNotFoundError, AttributeError) as failure:
        raise NameMatchError(f"{source!r} can't be found: {failure}") from failure
    except Exception as failure:  # the user's own module may raise anything
        raise OptionError(f"{source!r} can't be imported: {_located_error(failure)}") from failure
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
        raise NameMatchError(f"{source!r} is {kind_text(metric)}, not a callable of outputs and targets")
    return metric


def call_target(source: str, target: Any) -> Any:
    """Call what a text names, without arguments.

    Raises:
        OptionError: it raises an error, or takes arguments.
    """
    try:
        return target()
    except Exception as failure:  # the user's own code may raise anything
        kind = "the class" if isinstance(target, type) else "the function"
        raise OptionError(
            f"{kind} {source!r} can't be called without arguments: {_located_error(failure)}; give a function without "
            "arguments that returns it"
        ) from failure


def _located_error(failure: Exception) -> str:
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
    target = imported_object(source, advice_on_data_source)
    data = call_target(source, target) if callable(target) else target
    if isinstance(data, nn.Module):
        raise OptionError(f"{source!r} is a model, and no data; were --model and --data swapped?")
    if data is None or isinstance(data, int | float):
        raise OptionError(
            f"{source!r} gave {data!r}, which is no data; return batches of inputs, with or without targets"
        )
    return data
