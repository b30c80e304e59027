"""Checks of a saved program of a module against the module, before it is run."""

from typing import Any

from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.graph.module_operators import find_operator
from secateur.graph.module_program import (
    ModuleProgram,
    referenced_states,
    references,
)


def check_program(module: nn.Module, path: str, program: ModuleProgram) -> None:
    """Check that a program is one that a module could have.

    Raises:
        StorageError: an operator, submodule, tensor or value that the program uses does not exist.
    """
    tensors = {name for name, _ in (*module.named_parameters(remove_duplicate=False), *module.named_buffers())}
    modules = {name for name, _ in module.named_modules(remove_duplicate=False)}
    available = set(references(dict(program.inputs)))
    if program.shapes.keys() - available:
        raise StorageError(f"the program of {path or 'the model'} has the shape of an input that it does not take")
    for step in program.steps:
        if step.is_call and step.operator not in modules:
            raise StorageError(f"the program of {path or 'the model'} calls {step.operator}, which is not a submodule")
        if not step.is_call:
            find_operator(step.operator)
        missing = {*references((step.args, dict(step.kwargs)))} - available
        missing |= {
            name
            for name in referenced_states((step.args, dict(step.kwargs)))
            if name not in tensors and not _holds(module, name)
        }
        if missing:
            raise StorageError(f"the program of {path or 'the model'} uses {min(missing)}, which nothing gives")
        available.update(result for result in step.results if result is not None)
    if {*references(program.output)} - available:
        raise StorageError(f"the program of {path or 'the model'} returns what no step gives")


def _holds(module: Any, name: str) -> bool:
    """Return whether a tensor is a plain attribute of the module or of a module within it."""
    path, _, attribute = name.rpartition(".")
    try:
        return isinstance(getattr(module.get_submodule(path), attribute, None), Tensor)
    except AttributeError:
        return False
