"""Which of several modules that compute the same is fastest on this machine, for such inputs."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.conversion import as_batch
from secateur.graph.contexts import preserved
from secateur.graph.model_calls import call_model
from secateur.utils.devices import synchronize_accelerator

ROUNDS = 7
DENSE = "dense"
MakeKernel = Callable[[Any], nn.Module]


@dataclass(frozen=True)
class KernelChoice:
    """Which kernel a layer got, and by what times.

    Args:
        kernel: its name, "dense" where the layer runs as it is.
        dense_ms: least milliseconds of the layer as it is, None where nothing else could be tried.
        kernel_ms: the same of the fastest other kernel, also where that lost.
    """

    kernel: str
    dense_ms: float | None = None
    kernel_ms: float | None = None


@dataclass(frozen=True, eq=False)
class FastNetwork:
    """A network whose layers run by the kernels that are fastest on this machine.

    Args:
        model: the network.
        choices: what each layer got, by the name of its weight.
    """

    model: nn.Module
    choices: Mapping[str, KernelChoice]

    @property
    def kernels(self) -> dict[str, str]:
        """The name of each layer's kernel, by the name of its weight."""
        return {name: choice.kernel for name, choice in self.choices.items()}


def select_network_kernels(
    model: nn.Module, inputs: Any, makers: Mapping[str, Mapping[str, MakeKernel]]
) -> FastNetwork:
    """A copy of a model in which layers get the kernels that take least time, the dense layer being one of them.

    Args:
        model: the model.
        inputs: a batch of the size that will be used; each layer is timed on what it gets of it.
        makers: by the names of weights, kernels by their names, each made from the layer's module; none where the layer
            can only run as it is.
    """
    small = copy.deepcopy(model)
    paths = {name: name.rpartition(".")[0] for name, kernels in makers.items() if kernels}
    seen = inputs_of(small, paths.values(), inputs)
    choices = {}
    for name, kernels in makers.items():
        choices[name] = KernelChoice(DENSE)
        if not kernels or paths[name] not in seen:
            continue
        module = small.get_submodule(paths[name])
        tried = {DENSE: partial(_itself, module)} | {key: partial(make, module) for key, make in kernels.items()}
        chosen, fast, times = select_kernel(tried, seen[paths[name]])
        others = [spent for key, spent in times.items() if key != DENSE]
        choices[name] = KernelChoice(chosen, times[DENSE], min(others)) if others else KernelChoice(DENSE)
        replace_module(small, paths[name], fast)
    return FastNetwork(small, choices)


def _itself(module: nn.Module) -> nn.Module:
    return module


def select_kernel(makers: Mapping[str, Callable[[], nn.Module]], x: Tensor) -> tuple[str, nn.Module, dict[str, float]]:
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


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _note(seen: dict[str, Tensor], path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        seen[path] = args[0].detach()
