"""Output of a finished command: its folder, or a temporary one where that fails, and its text."""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from secateur.errors import StorageError


def save_in(folder: Path, save: Callable[[Path], Any]) -> None:
    """Save a result in a folder, or in a temporary folder if that fails, so that no work is lost.

    Args:
        folder: the folder.
        save: writes the files of the result in a folder.

    Raises:
        StorageError: the folder can't be written; the message names the temporary folder that holds the result, unless
            that can't be written, either.
    """
    try:
        save(folder)
    except StorageError as failure:
        substitute = Path(tempfile.mkdtemp(prefix="secateur-"))
        try:
            save(substitute)
        except StorageError:
            with suppress(OSError):
                substitute.rmdir()
            raise failure from None
        raise StorageError(f"{failure}; the result was written to {substitute}") from failure


def print_output(text: str) -> None:
    """Print the text of a command on standard output.

    Raises:
        BrokenPipeError: the reader has closed it, as `head` does.
        StorageError: it can't be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as failure:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write the rest at its end
        raise StorageError(
            f"standard output can't be written: {failure.strerror}; the files of the command are complete"
        ) from failure
