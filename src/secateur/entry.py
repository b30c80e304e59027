"""Entry points: public functions that check their arguments and run in torch modes and random states of their own."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secateur.errors import OptionError
from secateur.graph.wrappers import is_compiled, uncompiled, unwrapped
from secateur.option_table import check_option, classes_of
from secateur.options import check_name, described
from secateur.renamed_options import with_current_names
from secateur.utils.collected_warnings import warnings_collected
from secateur.utils.process_lock import exclusive
from secateur.utils.progress import run_shown
from secateur.utils.random_states import random_states_kept
from secateur.utils.selections import as_selectors, with_module_paths

P = ParamSpec("P")
R = TypeVar("R")


def entry_point(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that its arguments are checked before anything else is done.

    Wrapped models are unwrapped, and compiled ones run uncompiled.
    The function runs with gradients and outside of `torch.inference_mode` and `torch.autocast`, whatever the caller's
    modes are, and leaves all global random states as they were. One public function runs at a time in a process: an
    export, torch's settings and the random states belong to all threads, so that a second thread waits.

    Raises:
        NameMatchError: an option is misspelt; the nearest is offered.
        OptionError: an argument has a wrong type or is out of range, or arguments were swapped.

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


def entry_point_with(*further: str, deferred: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of entry points with options that are not checked one by one.

    Args:
        further: the names of options that the function takes by its `**`.
        deferred: the names of arguments that the function checks itself, against others.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        called = function.__name__ if function.__name__ != "__init__" else function.__qualname__.split(".")[-2]
        open_ended = [
            name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD
        ]
        known = [*(name for name in signature.parameters if name not in open_ended), *further]

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            options = with_current_names(kwargs) if "ablation" in known else kwargs
            for name in options:
                check_name(name, known, f"`{called}` has no option")
            bound = signature.bind(*args, **options)
            arguments = {name: value for name, value in bound.arguments.items() if name not in open_ended}
            _check_arguments(function, {name: value for name, value in arguments.items() if name not in deferred})
            models = {name: unwrapped(value) for name, value in arguments.items() if isinstance(value, nn.Module)}
            bound.arguments |= models | _selections_as_paths(bound.arguments, models.get("model"))
            compilation = uncompiled() if any(map(is_compiled, models.values())) else nullcontext()
            with exclusive(), reported(called, signature, arguments), plain_modes(), random_states_kept(), compilation:
                return function(*bound.args, **bound.kwargs)

        return call

    return decorated


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
def reported(called: str, signature: inspect.Signature, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Report the progress of a function, and collect its warnings if it has the argument `progress`."""
    setting = signature.parameters.get("progress")
    progress = None if setting is None else arguments.get("progress", setting.default)
    with nullcontext() if setting is None else warnings_collected(), run_shown(called, progress):
        yield


@contextmanager
def plain_modes() -> Iterator[None]:
    """Enable gradients, and disable inference mode and autocast."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", *(["cuda"] if torch.cuda.is_initialized() else [])):
            modes.enter_context(torch.autocast(device, enabled=False))
        yield


@lru_cache
def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    return get_type_hints(function)


def _check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    annotations = _annotations(function)
    for name, value in arguments.items():
        annotation = annotations.get(name)
        if annotation is nn.Module:
            check_model(name, value)
            continue
        try:
            check_option(name, value, annotation)
        except OptionError as failure:
            swapped = _swapped_argument(value, arguments, annotations)
            raise (OptionError(f"{failure}; were {name} and {swapped} swapped?") if swapped else failure) from None


def _swapped_argument(value: object, arguments: Mapping[str, Any], annotations: Mapping[str, Any]) -> str:
    """Return the argument of a wrong class that should be of this value's; empty if there is none."""
    for name, other in arguments.items():
        classes = classes_of(annotations.get(name))
        if classes and isinstance(value, classes) and not isinstance(other, classes):
            return name
    return ""


def check_model(name: str, model: object) -> None:
    """Check a model.

    Args:
        name: of the argument.
        model: what the user gave.

    Raises:
        OptionError: it is no module, or one that holds no values or can't be differentiated.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"{name} is {described(model)}, not a torch.nn.Module; {_advice_on_model(model)}")
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(tensor) and tensor.is_inference():
            raise OptionError(
                f"{path} of this {type(model).__name__} was made under torch.inference_mode(), and can't be "
                "differentiated or changed outside of it; make the model outside, or give copy.deepcopy(model)"
            )


def _advice_on_model(model: object) -> str:
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"make one of it first: {model.__name__}(...)"
    if isinstance(model, Mapping) and any(isinstance(value, Tensor) for value in model.values()):
        return "a state_dict holds weights alone: make the model and call its load_state_dict"
    if type(model).__name__ in ("Network", "Plan", "Scores"):
        return "give the model that was traced, as the first argument"
    if isinstance(getattr(model, "model", None), nn.Module):
        return f"give the `.model` of this {type(model).__name__}"
    return "wrap a function in a module" if callable(model) else "give the model itself"
