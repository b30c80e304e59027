"""Checks of the arguments of public functions, before anything else is done."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import getattr_static
from os import PathLike
from typing import Any, get_type_hints

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secateur.errors import OptionError
from secateur.options import kind_text
from secateur.options.table import check_option, classes_of

TRACED = "give the model that was traced, as the first argument"
MODEL_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(("Network", "Plan", "Scores"), TRACED),
    "ModelProto": "an ONNX file holds operators of another runtime: give the module that it was exported from",
    "InferenceSession": "an ONNX file holds operators of another runtime: give the module that it was exported from",
    "ExportedProgram": "give the module that it was exported from, or its module(), exported with a batch of any size",
}
"""What to give in place of an object that holds a model in another form, by the name of its class."""


@lru_cache
def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    return get_type_hints(function)


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a call by the function's annotations.

    Raises:
        OptionError: one has a wrong type or is out of range, or two were swapped.
    """
    annotations = _annotations(function)
    for name, value in arguments.items():
        annotation = annotations.get(name)
        if annotation is nn.Module:
            check_model(name, value)
            continue
        try:
            check_option(name, value, annotation)
        except OptionError as failure:
            swapped_name = _swapped_argument(value, arguments, annotations)
            raise (
                OptionError(f"{failure}; were {name} and {swapped_name} swapped?") if swapped_name else failure
            ) from None


def _swapped_argument(value: object, arguments: Mapping[str, Any], annotations: Mapping[str, Any]) -> str:
    """Return the argument of a wrong class that should be of this value's; empty if there is none."""
    for name, other_value in arguments.items():
        classes = classes_of(annotations.get(name))
        if classes and isinstance(value, classes) and not isinstance(other_value, classes):
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
        raise OptionError(f"{name} is {kind_text(model)}, not a torch.nn.Module; {_advice_on_model(model)}")
    # Statically: on the class of a TorchScript module, `forward` is a descriptor that only modules can read.
    has_forward = getattr_static(type(model), "forward") is not nn.Module.forward or "forward" in vars(model)
    if not has_forward and type(model).__call__ is nn.Module.__call__:
        raise OptionError(
            f"{name} is {kind_text(model)} without a `forward`; give one of its modules at a time, or a module "
            "whose forward calls them"
        )
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(tensor) and tensor.is_inference():
            raise OptionError(
                f"{path} of this {type(model).__name__} was made under torch.inference_mode(), and can't be "
                "differentiated or changed outside of it; make the model outside, or give copy.deepcopy(model)"
            )


def _advice_on_model(model: object) -> str:
    """Return what to give in place of an object that is no module, in words."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"make one of it first: {model.__name__}(...)"
    if isinstance(model, Mapping):
        return _advice_on_mapping(model)
    if isinstance(model, str | PathLike):
        return "a path names a file of weights: make the model and call its load_state_dict(torch.load(path))"
    if isinstance(model, Sequence) and any(isinstance(member, nn.Module) for member in model):
        return "give one of these models at a time, or a module whose forward calls them"
    name = type(model).__name__
    if name in MODEL_ADVICE:
        return MODEL_ADVICE[name]
    if isinstance(getattr(model, "model", None), nn.Module):
        return f"give the `.model` of this {name}"
    return "wrap a function in a module" if callable(model) else "give the model itself"


def _advice_on_mapping(model: Mapping[Any, Any]) -> str:
    """Return what to give in place of a state_dict, or of a checkpoint that holds one."""
    if any(isinstance(value, Tensor) for value in model.values()):
        return "a state_dict holds weights alone: make the model and call its load_state_dict"
    for key, value in model.items():
        if isinstance(value, nn.Module):
            return f"give the model in it, checkpoint[{key!r}]"
        if isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values()):
            return f"a checkpoint holds weights alone: make the model and call its load_state_dict(checkpoint[{key!r}])"
    return "give the model itself"
