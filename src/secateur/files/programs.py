"""Exported programs in torch's format `.pt2`. They contain code, so only files that the user names are read."""

import logging
from pathlib import Path

import torch
from torch import nn

from secateur.errors import StorageError
from secateur.files.regular import check_regular, file_digest
from secateur.files.staging import Writer
from secateur.utils.failure_text import failure_text


def program_writer(exported: torch.export.ExportedProgram) -> Writer:
    """Return a writer of an exported program."""

    def write(path: Path) -> str:
        try:
            with path.open("wb") as file:
                torch.export.save(exported, file)
        except RuntimeError as failure:  # how torch reports a full disk
            raise OSError(str(failure)) from failure
        return file_digest(path)

    return write


def read_program(path: Path) -> nn.Module:
    """Load an exported program as a module.

    Reading it runs code that the file may hold: torch unpickles parts of it. Nothing in Secateur reads such a file
    unless a person names it.

    Raises:
        StorageError: it is missing, cut off or damaged.
    """
    check_regular(path)
    logger = logging.getLogger("torch.export")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)  # what it would say is in the error
        with path.open("rb") as file:
            return torch.export.load(file).module(check_guards=False)
    except Exception as failure:  # torch raises many types on a damaged archive
        raise StorageError(f"{path} can't be read as an exported program: {failure_text(failure)}") from failure
    finally:
        logger.setLevel(level)
