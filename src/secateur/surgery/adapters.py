"""Adapters within a model, such as those of peft: modules that wrap a layer, and add to its result."""

from torch import nn

from secateur.coupling.network import Network
from secateur.coupling.new_biases import wraps_layer
from secateur.surgery.training_parts import idle_modules
from secateur.utils.collected_warnings import warn


def adapter_paths(model: nn.Module) -> list[str]:
    """Return the paths of the adapters of a model: the innermost modules that wrap a layer."""
    paths = [path for path, module in model.named_modules() if path and wraps_layer(module)]
    return [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]


def merging_advice(model: nn.Module) -> str:
    """Return the advice to merge the adapters of a model, to put before other advice; empty for models without."""
    paths = adapter_paths(model)
    if not paths:
        return ""
    return (
        f"{paths[0]} is an adapter, which no configuration says: merge adapters into the weights before pruning "
        "(`merge_and_unload()` of peft), or "
    )


def warn_of_idle_adapters(model: nn.Module, network: Network) -> None:
    """Warn of parts of adapters that don't run, and whose layers can lose units.

    Such are adapters that are merged or not active. Nothing says which of their entries belong to a unit.
    """
    cut_tensors = [member.tensor for group in network.groups for member in group.members]
    cut_adapters = [
        path for path in adapter_paths(model) if any(tensor.startswith(f"{path}.") for tensor in cut_tensors)
    ]
    if not cut_adapters:
        return
    idle_paths = [
        path for path in idle_modules(model, network.program) if path.startswith(tuple(f"{p}." for p in cut_adapters))
    ]
    if idle_paths:
        others = f" and {len(idle_paths) - 1} more parts" if len(idle_paths) > 1 else ""
        warn(
            f"{idle_paths[0]}{others} of adapters do not run, and keep their shapes where the layers that they adapt "
            "are cut, so that they can't be used afterwards: unload merged adapters (`merge_and_unload()` of peft), "
            "and delete those that are not active (`delete_adapter`) before pruning"
        )
