"""Models that a command line names."""

import sys
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

from secateur.cli.checkpoints import read_checkpoint, state_dict_for
from secateur.cli.imports import call_target, imported_object
from secateur.cli.model_sources import library_model
from secateur.cli.source_advice import FORM, advice_on_model_source
from secateur.errors import NameMatchError, OptionError, StorageError
from secateur.files import check_regular, read_program
from secateur.graph.wrappers import unwrap_model
from secateur.options.argument_checks import check_model
from secateur.utils.failure_text import failure_text


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
        return _move_model(read_program(program), device)
    model = _model_of(str(source), weights is not None)
    if weights is not None:
        _load_weights(model, weights)
    return _move_model(model.eval(), device)


def _model_of(source: str, has_weights: bool) -> nn.Module:
    model = library_model(source, has_weights)
    if model is None:
        target = imported_object(source, advice_on_model_source)
        model = call_target(source, target) if callable(target) and not isinstance(target, nn.Module) else target
    model = unwrap_model(model) if isinstance(model, nn.Module) else model
    if _is_data(model):
        raise OptionError(f"{source!r} is data, and no model; were --model and --data swapped?")
    check_model(f"--model {source}", model)
    assert isinstance(model, nn.Module)
    return model


def _is_data(target: object) -> bool:
    """Return True for tensors, arrays, loaders, and lists that hold no modules."""
    is_list = isinstance(target, list | tuple) and not any(isinstance(member, nn.Module) for member in target)
    return is_list or isinstance(target, Tensor | np.ndarray | DataLoader)


def _move_model(model: nn.Module, device: str) -> nn.Module:
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
