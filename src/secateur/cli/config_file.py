"""Options from a file: `--config prune.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from secateur.errors import OptionError, StorageError
from secateur.options import check_name, kind_text


class Parameter(Protocol):
    """A parameter of a command, as typer makes it: options also have `multiple` and `is_flag`."""

    @property
    def name(self) -> str | None:
        """The name of the function's argument."""
        ...

    @property
    def opts(self) -> Sequence[str]:
        """The names on the command line."""
        ...


def options_from(path: Path, parameters: Sequence[Parameter], command: str) -> dict[str, Any]:
    """Read the options of a command from a TOML file, by the names of its parameters.

    Args:
        path: the file: a key for each option, as on the command line without the dashes.
        parameters: of the command.
        command: its name.

    Raises:
        StorageError: the file can't be read, or is no TOML.
        NameMatchError: the command has no option of a key; the nearest is offered.
        OptionError: a value has a wrong form.

    Examples:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> keep = SimpleNamespace(name="keep", opts=["--keep"], multiple=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "prune.toml"
        ...     _ = path.write_text('keep = {macs = 0.5, params = "2M"}')
        ...     options_from(path, [keep], "prune")
        {'keep': ['macs=0.5', 'params=2M']}
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failure:
        raise StorageError(f"{path} can't be read: {failure}") from failure
    except tomllib.TOMLDecodeError as failure:
        raise StorageError(f"{path} is no TOML: {failure}") from failure
    by_name = {option.removeprefix("--"): entry for entry in parameters for option in entry.opts}
    known_names = [name for name in by_name if name not in ("config", "help")]
    options = {}
    for key, value in content.items():
        check_name(
            key.replace("_", "-"), known_names, f"{path}: `secateur {command}` has no option {key!r}", shows=False
        )
        parameter = by_name[key.replace("_", "-")]
        options[str(parameter.name)] = _value_for(parameter, value, f"{path}: {key}")
    return options


def _value_for(parameter: Parameter, value: Any, where: str) -> Any:
    """Return a value of a file in the form that the command line gives."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise OptionError(f"{where} is {kind_text(value)}; give true or false")
        return value
    if isinstance(value, Mapping):
        entries = [f"{name}={_text(entry, where)}" for name, entry in value.items()]
    elif isinstance(value, list):
        entries = [_text(entry, where) for entry in value]
    else:
        entries = [_text(value, where)]
    return entries if getattr(parameter, "multiple", False) else ",".join(entries)


def _text(value: Any, where: str) -> str:
    """Return a number, a text, or a list of these as the text of an option."""
    if isinstance(value, list):
        return ",".join(_text(entry, where) for entry in value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise OptionError(f"{where} holds {kind_text(value)}; give numbers, texts, or lists of these")
    return str(value)
