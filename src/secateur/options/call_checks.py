"""Calls of public functions, classes and methods with arguments that these don't have."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

from secateur.errors import NameMatchError, OptionError
from secateur.options import check_name
from secateur.options.foreign import foreign_option

Callee = TypeVar("Callee", bound=Callable[..., Any])


def checked_calls(callee: Callee) -> Callee:
    """Decorate a public function, or a class with its methods: wrong arguments end in errors that name the right ones.

    Nothing is done before a call. Where Python can't bind its arguments, the error is explained. A class stays the same
    object, and signatures stay as they are.

    Args:
        callee: a function, or a class whose constructor and public methods are decorated; inherited ones are not.

    Raises:
        NameMatchError: a keyword is unknown; what takes its place is named, or else the nearest keyword.
        OptionError: an argument is missing, or there are too many.

    Examples:
        >>> import secateur as sc
        >>> sc.Shapley(smapler="antithetic")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        secateur.errors.NameMatchError: `Shapley` has no option 'smapler'; did you mean 'sampler'? known are ...
    """
    if not isinstance(callee, type):
        explained_callee: Callee = _with_explained_errors(callee)
        return explained_callee
    for name, attribute in list(vars(callee).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if inspect.isfunction(attribute):
            setattr(callee, name, _with_explained_errors(attribute, is_method=True))
        elif isinstance(attribute, classmethod):
            setattr(callee, name, classmethod(_with_explained_errors(attribute.__func__, is_method=True)))
        elif isinstance(attribute, staticmethod):
            setattr(callee, name, staticmethod(_with_explained_errors(attribute.__func__)))
    return callee


def _with_explained_errors(function: Any, is_method: bool = False) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as failure:
            if failure.__traceback__ is None or failure.__traceback__.tb_next is not None:
                raise  # it arose in the function, not from the call
            if is_method and not args:
                raise  # a method of a class, called without an object
            signature, title = inspect.signature(function), function.__name__
            if is_method:
                receiver, *args = args  # type: ignore[assignment]
                owner = (receiver if isinstance(receiver, type) else type(receiver)).__name__
                title = owner if title == "__init__" else f"{owner}.{title}"
                signature = signature.replace(parameters=list(signature.parameters.values())[1:])
            for name, value in kwargs.items():
                check_option_name(title, name, value, signature.parameters)
            bound_arguments(title, signature, args, kwargs)
            raise

    return call


def bound_arguments(
    call_name: str, signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Bind the arguments of a call.

    Raises:
        OptionError: an argument is missing, or there are too many.
    """
    try:
        return signature.bind(*args, **options)
    except TypeError as failure:
        parameters = signature.parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        keywords = [f"{parameter.name}=" for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        names = ", ".join(positional or keywords)
        advice = f"its arguments are {names}" if names else "it takes no arguments"
        raise OptionError(f"`{call_name}`: {failure}; {advice}") from None


def check_option_name(call_name: str, name: str, value: object, known_names: Collection[str]) -> None:
    """Check the name of an option that was given to a function.

    Raises:
        NameMatchError: the function has no such option; what takes its place is named, or else the nearest name.
    """
    foreign = None if name in known_names else foreign_option(name, known_names)
    if foreign is not None:
        raise NameMatchError(f"`{call_name}` has no option {name!r}; {foreign.in_python(name, value)}")
    check_name(name, known_names, f"`{call_name}` has no option")
