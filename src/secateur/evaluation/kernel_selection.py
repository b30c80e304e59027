"""A choice of the fastest of several modules that compute the same, on this machine and for such inputs."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.conversion import as_batch
from secateur.evaluation.timing import interleaved_times
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.model_calls import call_model
from secateur.utils.devices import synchronize_accelerator

ROUNDS = 7
DENSE = "dense"
MakeKernel = Callable[[Any], nn.Module]


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that a layer got, and the times that it was chosen by.

    Args:
        kernel: its name, "dense" where the layer runs as it is.
        dense_ms: least milliseconds of the layer as it is, None where no other kernel could be tried.
        kernel_ms: the same of the fastest other kernel, also where the layer as it is was faster.
    """

    kernel: str
    dense_ms: float | None = None
    kernel_ms: float | None = None


@dataclass(frozen=True, eq=False)
class FastNetwork:
    """A network whose layers run by the kernels that are fastest on this machine.

    Args:
        model: the network.
        choices: the choice for each layer, by the name of its weight.
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
    """Copy a model so that its layers get the kernels that take least time, the dense layer being one of them.

    Args:
        model: the model.
        inputs: a batch of the size that will be used; each layer is timed on its own input for this batch.
        makers: by the names of weights, kernels by their names, each made from the layer's module; none where the layer
            can only run as it is.
    """
    fast = copy.deepcopy(model)
    paths = {name: name.rpartition(".")[0] for name, kernels in makers.items() if kernels}
    layer_inputs = inputs_of(fast, paths.values(), inputs)
    choices = {}
    for name, kernels in makers.items():
        choices[name] = KernelChoice(DENSE)
        if not kernels or paths[name] not in layer_inputs:
            continue
        module = fast.get_submodule(paths[name])
        candidates = {DENSE: partial(_identity, module)} | {key: partial(make, module) for key, make in kernels.items()}
        fastest, kernel, times = select_kernel(candidates, layer_inputs[paths[name]])
        other_times = [milliseconds for key, milliseconds in times.items() if key != DENSE]
        choices[name] = KernelChoice(fastest, times[DENSE], min(other_times)) if other_times else KernelChoice(DENSE)
        replace_module(fast, paths[name], kernel)
    return FastNetwork(fast, choices)


def _identity(module: nn.Module) -> nn.Module:
    return module


def select_kernel(makers: Mapping[str, Callable[[], nn.Module]], x: Tensor) -> tuple[str, nn.Module, dict[str, float]]:
    """Make all modules, time them in turn, and take the one of the least time.

    Args:
        makers: by name; one that raises NotImplementedError, or whose module does, is left out.
        x: an input.

    Returns:
        The name, the module, and the least milliseconds of each that this machine can run.
    """
    modules = {}
    for name, maker in makers.items():
        try:
            module = maker()
            with torch.no_grad():
                module(x)
            synchronize_accelerator()
        except NotImplementedError:  # torch has no such product for numbers of this type
            continue
        modules[name] = module
    with torch.no_grad():
        times = interleaved_times([partial(module, x) for module in modules.values()], ROUNDS)
    least_times = {name: min(module_times) for name, module_times in zip(modules, times, strict=True)}
    best = min(least_times, key=lambda name: least_times[name])
    return best, modules[best], least_times


def inputs_of(model: nn.Module, paths: Iterable[str], inputs: Any) -> dict[str, Tensor]:
    """Return the first input of each of some modules for a batch, by their paths; modules that do not run are left out.

    Args:
        model: the model.
        paths: of the modules.
        inputs: the batch.
    """
    by_path: dict[str, Tensor] = {}
    hooks = [model.get_submodule(path).register_forward_pre_hook(partial(_record, by_path, path)) for path in paths]
    batch = as_batch(inputs)
    try:
        with isolated_evaluation(model):
            call_model(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return by_path


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _record(by_path: dict[str, Tensor], path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        by_path[path] = args[0].detach()
