"""Entry points: public functions that check their arguments and run in torch modes and random states of their own."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from secateur.graph.wrappers import is_compiled, unwrap_model, without_compilation
from secateur.options.argument_checks import check_arguments
from secateur.options.call_checks import bound_arguments, check_option_name
from secateur.options.renamed import with_current_names
from secateur.options.selections import as_selectors, with_module_paths
from secateur.utils.collected_warnings import warnings_collected
from secateur.utils.default_device import default_device_set_aside
from secateur.utils.process_groups import in_all_processes
from secateur.utils.process_lock import exclusive
from secateur.utils.progress import run_shown
from secateur.utils.random_states import random_states_kept

P = ParamSpec("P")
R = TypeVar("R")


def entry_point(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that its arguments are checked before anything else is done.

    Wrapped models are unwrapped, and compiled ones run uncompiled.
    The function runs with gradients and outside of `torch.inference_mode` and `torch.autocast`, whatever the caller's
    modes and default device are, and leaves all global random states as they were. One public function runs at a time
    in a process: an export, torch's settings and the random states belong to all threads, so that a second thread
    waits.

    Raises:
        NameMatchError: an option is misspelt; the nearest is offered.
        OptionError: an argument is missing, has a wrong type or is out of range, or arguments were swapped.

    Examples:
        >>> @entry_point
        ... def work(data: object, *, seed: int = 0) -> int:
        ...     return seed
        >>> work([], sed=1)
        Traceback (most recent call last):
        ...
        secateur.errors.NameMatchError: `work` has no option 'sed'; did you mean 'seed'? known are data, seed
    """
    return entry_point_with()(function)


def entry_point_with(
    *further: str, deferred: Collection[str] = (), is_shared: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of entry points with options that are not checked one by one.

    Args:
        further: the names of options that the function takes by its `**`.
        deferred: the names of arguments that the function checks itself, against others.
        is_shared: whether processes share the work of the function (`shared_processes`).
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        title = function.__name__ if function.__name__ != "__init__" else function.__qualname__.split(".")[-2]
        parameters = signature.parameters
        known_names = [name for name in parameters if parameters[name].kind is not inspect.Parameter.VAR_KEYWORD]
        option_names = list(dict.fromkeys([*known_names, *further]))

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            options = with_current_names(kwargs, 3 if is_shared else 2) if "ablation" in option_names else kwargs
            for name, value in options.items():
                check_option_name(title, name, value, option_names)
            bound = bound_arguments(title, signature, args, options)
            arguments = {name: value for name, value in bound.arguments.items() if name in known_names}
            check_arguments(function, {name: value for name, value in arguments.items() if name not in deferred})
            models = {name: unwrap_model(value) for name, value in arguments.items() if isinstance(value, nn.Module)}
            bound.arguments |= models | _selections_as_paths(bound.arguments, models.get("model"))
            compilation = without_compilation() if any(map(is_compiled, models.values())) else nullcontext()
            with exclusive(), _report(title, signature, arguments), plain_modes(), random_states_kept(), compilation:
                return function(*bound.args, **bound.kwargs)

        return in_all_processes(call, title) if is_shared else call

    return decorate


def _selections_as_paths(arguments: Mapping[str, Any], model: nn.Module | None) -> dict[str, Any]:
    """Return the selections of layers with the paths of modules, which are the same in copies of the model.

    Raises:
        NameMatchError: a module does not belong to the model.
    """
    if model is None:
        return {}
    modules, title = dict(model.named_modules(remove_duplicate=False)), type(model).__name__
    return {
        name: with_module_paths(arguments[name], modules, title)
        for name in ("only", "skip")
        if arguments.get(name) is not None
        and any(isinstance(selector, nn.Module) for selector in as_selectors(arguments[name]))
    }


@contextmanager
def _report(title: str, signature: inspect.Signature, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Report the progress of a function, and collect its warnings if it has the argument `progress`."""
    setting = signature.parameters.get("progress")
    progress = None if setting is None else arguments.get("progress", setting.default)
    with nullcontext() if setting is None else warnings_collected(), run_shown(title, progress):
        yield


@contextmanager
def plain_modes() -> Iterator[None]:
    """Enable gradients, and disable inference mode, autocast and a default device."""
    with ExitStack() as modes:
        modes.enter_context(default_device_set_aside())
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", *(["cuda"] if torch.cuda.is_initialized() else [])):
            modes.enter_context(torch.autocast(device, enabled=False))
        yield
