"""Checks of the folders and files that a command will write, before it does any work."""

import os
from pathlib import Path

from secateur.cli.common_options import exit_with
from secateur.errors import StorageError


def checked_folder(folder: Path | None) -> Path | None:
    """Return a folder that can be written to or made; exit with a message for others.

    Args:
        folder: the folder; None where none is wanted.
    """
    if folder is not None:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise exit_with(StorageError(f"{folder} can't be written: {existing} is a file; give a folder"))
        if not os.access(existing, os.W_OK | os.X_OK):
            raise exit_with(StorageError(f"{folder} can't be written: {existing} is write-protected"))
    return folder


def checked_file(file: Path | None) -> Path | None:
    """Return a file whose folder can be written to or made; exit with a message for others.

    Args:
        file: the file; None where none is wanted.
    """
    if file is not None:
        checked_folder(file.parent)
        if file.is_dir():
            raise exit_with(StorageError(f"{file} can't be written: it is a folder; give a file"))
    return file
