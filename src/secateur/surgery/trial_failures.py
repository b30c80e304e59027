"""Why a trial cut failed, and in which module."""

from dataclasses import dataclass

from torch import nn

from secateur.coupling.network import Kept, Network
from secateur.graph.operators import module_path, operator_name


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Args:
        reason: what the model said.
        path: the module in whose code it failed; None where it ran but gave another output.
        progress: how many calls of modules had been completed.
    """

    reason: str
    path: str | None
    progress: float


MOST_NAMED = 3


def difference_reason(network: Network, kept: Kept, worst: float, tolerance: float) -> str:
    """Describe a cut model with another output: the operators that count what was cut."""
    mask = network.mask(kept)
    counting = (size.node for size in network.sizes if size.remaining(mask) != len(size.units))
    operators = dict.fromkeys(f"{operator_name(node)} in {module_path(node) or network.title}" for node in counting)
    operator_names = ", ".join(list(operators)[:MOST_NAMED]) or "an operator that counts or orders these units"
    return (
        f"the cut {network.title} runs, but its output differs from the masked run's by {worst:.1e} of the largest, "
        f"where {tolerance:.0e} is float noise: its own code does not follow the cut in {operator_names}"
    )


def failing_module(model: nn.Module, failure: BaseException) -> str:
    """Return the path of the innermost module of the model whose code was running."""
    paths = {module: path for path, module in model.named_modules()}
    path, frame = "", failure.__traceback__
    while frame is not None:
        instance = frame.tb_frame.f_locals.get("self")
        if isinstance(instance, nn.Module) and instance in paths:
            path = paths[instance]
        frame = frame.tb_next
    return path
