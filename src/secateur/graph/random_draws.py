"""Random numbers that a forward draws: recorded in one run, and given again to another that is compared with it.

A cut network draws fewer numbers than the dense one, so equal seeds do not give it the same ones: it gets what the
dense network drew, without the entries of units that are gone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.errors import SurgeryError

Fit = Callable[[int, Tensor, torch.Size], Tensor]
FUSED = ("native_dropout", "_fused_dropout")  # which give a mask besides


def is_draw(node: Node) -> bool:
    """Whether an operator of a program draws random numbers."""
    return node.op == "call_function" and _draws(node.target, node.args, node.kwargs)


def _draws(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call draws random numbers: not a dropout, or an attention with one, that is idle."""
    if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
        return False
    arguments = func._schema.arguments
    values = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    values |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    rates = [values[name] for name in ("dropout", "dropout_p", "p") if name in values]
    training = values.get("train", values.get("training", True))
    return training is not False and not any(isinstance(rate, int | float) and rate == 0 for rate in rates)


def draw_behind(node: Node) -> str | None:
    """The operator that drew one of a node's operands, where that is made of nothing but draws and sizes."""
    return next((name for operand in node.all_input_nodes if (name := _draw_alone(operand)) is not None), None)


def _draw_alone(node: Node) -> str | None:
    names, waiting = [], [node]
    while waiting:
        current = waiting.pop()
        if not isinstance(current.meta.get("val"), Tensor):  # a size
            continue
        if current.op != "call_function":
            return None
        if is_draw(current):
            names.append(_name(current.target))
        waiting += current.all_input_nodes
    return names[0] if names else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch draws from a seed; afterwards its generators are as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _WithoutGenerators(TorchFunctionMode):
    """Random operators without a `generator=None`, which takes no sizes that may vary."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func in FACTORIES and given.get("generator", self) is None:
            del given["generator"]
        return func(*args, **given)


FACTORIES = (torch.randn, torch.rand, torch.randint, torch.randperm, torch.randn_like, torch.rand_like)


def drawing_by_size() -> AbstractContextManager[Any]:
    """A context within which an export takes random operators whose sizes vary and whose generator is None."""
    return _WithoutGenerators()


@dataclass(frozen=True, eq=False)
class Draw:
    """The units that own the entries of what an operator draws.

    Args:
        node: the operator.
        units: tensors that broadcast to its shape, with the unit of each entry, -1 where it is never cut.
    """

    node: Node
    units: tuple[Tensor, ...]

    def renumbered(self, number: Callable[[Tensor], Tensor]) -> "Draw":
        return replace(self, units=tuple(number(units) for units in self.units))

    def left(self, drawn: Tensor, shape: torch.Size, mask: Tensor) -> Tensor:
        """The entries of those that stay, in the shape that the cut network draws.

        Args:
            drawn: what the dense network drew.
            shape: of what the cut network draws.
            mask: which units stay (units + 1,).
        """
        stays = torch.ones(drawn.shape, dtype=torch.bool)
        for units in self.units:
            stays &= mask[units]
        return drawn[stays.to(drawn.device)].view(shape)


@dataclass
class _Recorder(TorchDispatchMode):
    """Keeps what is drawn; `node` is the operator of the program that is running."""

    drawn: list[tuple[Node | None, Tensor]] = field(default_factory=list)
    node: Node | None = None

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _draws(func, args, kwargs or {}):
            self.drawn.append((self.node, _numbers(func, result).clone()))
        return result


class _Replayer(TorchDispatchMode):
    """Gives what was drawn before."""

    def __init__(self, drawn: list[Tensor], fit: Fit) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn, self.fit, self.count = drawn, fit, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _draws(func, args, kwargs or {}):
            return result
        numbers = _numbers(func, result)
        number, self.count = self.count, self.count + 1
        if number >= len(self.drawn):
            raise SurgeryError(f"{_name(func)} draws random numbers that the masked run does not draw")
        try:
            numbers.copy_(self.fit(number, self.drawn[number], numbers.shape))
        except (RuntimeError, ValueError) as failure:
            raise SurgeryError(
                f"{_name(func)} draws random numbers {tuple(numbers.shape)} where the dense network draws "
                f"{tuple(self.drawn[number].shape)}, and which of them stay is not known"
            ) from failure
        if _name(func) in FUSED:
            rate = args[1]
            result[0].copy_(args[0] * numbers / (1 - rate))
        return result


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _numbers(func: Any, result: Any) -> Tensor:
    """What an operator drew: its result, or the mask of a fused dropout.

    Raises:
        SurgeryError: a fused kernel does not say what it drew.
    """
    if isinstance(result, Tensor):
        return result
    if _name(func) not in FUSED:
        raise SurgeryError(f"{_name(func)} draws random numbers inside one kernel; set its dropout to 0")
    numbers: Tensor = result[1]
    return numbers


def replayed(
    draws: Collection[Node], run: Callable[[], Any], fit: Fit = lambda number, drawn, shape: drawn
) -> AbstractContextManager[Any]:
    """A context within which torch draws, in their order, the numbers that `run` draws.

    Args:
        draws: the operators of the program that draw; without any, nothing is run.
        run: what draws them first.
        fit: from the place in that order, what was drawn, and the shape that is drawn now, to what is given.
    """
    if not draws:
        return nullcontext()
    with torch.no_grad(), _Recorder() as recorder:
        run()
    return _Replayer([numbers for _, numbers in recorder.drawn], fit)


def replayed_left(
    run: Callable[[Mapping[Node, Any]], Any], draws: Mapping[Node, Draw], mask: Tensor
) -> AbstractContextManager[Any]:
    """A context within which a cut network draws what the masked run draws, without the entries of absent units.

    Args:
        run: the masked run; it gets handlers by operator.
        draws: the units of each operator that draws.
        mask: which units stay (units + 1,).
    """
    if not draws:
        return nullcontext()
    recorder = _Recorder()

    def noted(node: Node) -> Callable[..., Any]:
        def handler(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            recorder.node = node
            return target(*args, **kwargs)

        return handler

    with torch.no_grad(), recorder:
        run({node: noted(node) for node in draws})

    def fit(number: int, drawn: Tensor, shape: torch.Size) -> Tensor:
        node = recorder.drawn[number][0]
        draw = draws.get(node) if node is not None else None
        return drawn if draw is None or drawn.shape == shape else draw.left(drawn, shape, mask)

    return _Replayer([numbers for _, numbers in recorder.drawn], fit)
