"""Which of several modules that compute the same is fastest on this machine, for such inputs."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data import as_batch
from secateur.devices import synchronize_accelerator
from secateur.network.calls import call_model
from secateur.network.program import preserved

ROUNDS = 7


def fastest(makers: Mapping[str, Callable[[], nn.Module]], x: Tensor) -> tuple[str, nn.Module, dict[str, float]]:
    """Make them all, time them in turn, and take that of the least time.

    Args:
        makers: by name; one that raises NotImplementedError, or whose module does, is left out.
        x: an input.

    Returns:
        Its name, the module, and the milliseconds of each that this machine can run.
    """
    made = {}
    for name, maker in makers.items():
        try:
            module = maker()
            with torch.no_grad():
                module(x)
            synchronize_accelerator()
        except NotImplementedError:  # torch has no such product for numbers of this type
            continue
        made[name] = module
    times: dict[str, list[float]] = {name: [] for name in made}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, module in made.items():
                start = time.perf_counter()
                module(x)
                synchronize_accelerator()
                times[name].append((time.perf_counter() - start) * 1e3)
    least = {name: min(each) for name, each in times.items()}
    best = min(least, key=lambda name: least[name])
    return best, made[best], least


def inputs_of(model: nn.Module, paths: Iterable[str], inputs: Any) -> dict[str, Tensor]:
    """What each of some modules gets of a batch, by their paths; those that get none are not there."""
    seen: dict[str, Tensor] = {}
    hooks = [model.get_submodule(path).register_forward_pre_hook(partial(_note, seen, path)) for path in paths]
    batch = as_batch(inputs)
    try:
        with preserved(model):
            call_model(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _note(seen: dict[str, Tensor], path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        seen[path] = args[0].detach()
