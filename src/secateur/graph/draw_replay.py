"""Random draws of one run, recorded and replayed in another."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.errors import SurgeryError
from secateur.graph.random_draws import Draw, draws_numbers, function_name

FUSED = ("native_dropout", "_fused_dropout")  # which give a mask besides
Fit = Callable[[int, Tensor, torch.Size], Tensor]


@dataclass
class _Recorder(TorchDispatchMode):
    """A mode that records draws; `node` is the operator of the program that runs."""

    drawn: list[tuple[Node | None, Tensor]] = field(default_factory=list)
    node: Node | None = None

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if draws_numbers(func, args, kwargs or {}):
            self.drawn.append((self.node, _numbers(func, result).clone()))
        return result


class _Replayer(TorchDispatchMode):
    """A mode that replays recorded draws."""

    def __init__(self, drawn: list[Tensor], fit: Fit) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn, self.fit, self.count = drawn, fit, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not draws_numbers(func, args, kwargs or {}):
            return result
        numbers = _numbers(func, result)
        number, self.count = self.count, self.count + 1
        if number >= len(self.drawn):
            raise SurgeryError(f"{function_name(func)} draws random numbers that the masked run does not draw")
        try:
            numbers.copy_(self.fit(number, self.drawn[number], numbers.shape))
        except (RuntimeError, ValueError) as failure:
            raise SurgeryError(
                f"{function_name(func)} draws random numbers {tuple(numbers.shape)} where the dense network draws "
                f"{tuple(self.drawn[number].shape)}, and which of them stay is not known"
            ) from failure
        if function_name(func) in FUSED:
            rate = args[1]
            result[0].copy_(args[0] * numbers / (1 - rate))
        return result


def _numbers(func: Any, result: Any) -> Tensor:
    """Return the numbers that an operator drew: its result, or the mask of a fused dropout.

    Raises:
        SurgeryError: a fused kernel does not say what it drew.
    """
    if isinstance(result, Tensor):
        return result
    if function_name(func) not in FUSED:
        raise SurgeryError(f"{function_name(func)} draws random numbers inside one kernel; set its dropout to 0")
    numbers: Tensor = result[1]
    return numbers


def draws_replayed(
    draws: Collection[Node], run: Callable[[], Any], fit: Fit = lambda number, drawn, shape: drawn
) -> AbstractContextManager[Any]:
    """Let torch draw, in their order, the numbers that `run` draws, within a context.

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


def draws_replayed_for_cut(
    run: Callable[[Mapping[Node, Any]], Any], draws: Mapping[Node, Draw], mask: Tensor
) -> AbstractContextManager[Any]:
    """Let a cut network draw what the masked run draws, without the entries of absent units, within a context.

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

    def fit(number: int, values: Tensor, shape: torch.Size) -> Tensor:
        node = recorder.drawn[number][0]
        draw = draws.get(node) if node is not None else None
        return values if draw is None or values.shape == shape else draw.kept_entries(values, shape, mask)

    return _Replayer([numbers for _, numbers in recorder.drawn], fit)
