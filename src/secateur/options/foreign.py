"""Options of other libraries, and what to write here in their place."""

from collections.abc import Collection

from secateur.options.foreign_names import lookup_key
from secateur.options.foreign_table import FOREIGN_OPTIONS, ForeignOption


def foreign_option(name: str, options: Collection[str]) -> ForeignOption | None:
    """Return what takes the place of another library's option, or None.

    Args:
        name: the option elsewhere.
        options: the options of the function.

    Examples:
        >>> foreign_option("pruning_ratio", ["keep"]).in_python("pruning_ratio", 0.3)
        "keep= says what remains, in MACs, parameters or bytes: keep={'macs': 0.7}"
    """
    return next(
        (
            entry
            for entry in FOREIGN_OPTIONS
            if lookup_key(name) in entry.names.split() and (entry.option or entry.beside) in options
        ),
        None,
    )


def foreign_flag(name: str, flags: Collection[str]) -> ForeignOption | None:
    """Return what takes the place of another library's option on the command line, or None.

    Args:
        name: the option elsewhere, without dashes in front.
        flags: the options of the command, without dashes in front.
    """
    return next(
        (
            entry
            for entry in FOREIGN_OPTIONS
            if lookup_key(name) in entry.names.split() and entry.command_option in flags
        ),
        None,
    )
