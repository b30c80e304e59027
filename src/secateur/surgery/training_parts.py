"""Groups that a part of the model reads in training mode alone, such as an auxiliary head.

A program is that of evaluation mode, in which such a part does not run. It is therefore not cut, and a training step of
the small model would fail in it. Groups that it reads are found by trials in training mode, and frozen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.coupling.regroup import freeze_groups
from secateur.graph.contexts import isolated_evaluation, training_mode
from secateur.graph.model_calls import call_model
from secateur.graph.program import Program
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_shares import draw_shares


def without_groups_of_training(trials: TrialCutter, network: Network, seed: int) -> Network:
    """Return the network without the groups that parts of the model read in training mode alone.

    Nothing is run where all parameters belong to the program.
    """
    idle = idle_modules(trials.model, network.program)
    if not idle or not network.groups or not _modules_of_training(trials.model, network, idle):
        return network
    return freeze_groups(
        network, _groups_failing_in_training(trials, network, network.groups, draw_shares(network, seed))
    )


def idle_modules(model: nn.Module, program: Program) -> list[str]:
    """Return the paths of the modules of which no parameter belongs to the program; the outermost of each part."""
    used_names = {name for node, name in program.state_names.items() if node.users}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    used_tensors = {id(tensor) for name, tensor in tensors.items() if name in used_names}
    outermost: list[str] = []
    for path, module in model.named_modules():
        parameters = list(module.parameters())
        is_idle = bool(parameters) and not any(id(parameter) in used_tensors for parameter in parameters)
        if path and is_idle and not any(path.startswith(f"{outer}.") for outer in outermost):
            outermost.append(path)
    return outermost


def _modules_of_training(model: nn.Module, network: Network, paths: Sequence[str]) -> list[str]:
    """Return those of some modules that run in training mode; none where the example is not one to train on."""
    with (
        _calls_recorded(model, paths) as called_paths,
        isolated_evaluation(model),
        training_mode(model),
        torch.random.fork_rng(devices=[]),
    ):
        try:
            call_model(model, network.example)
        except Exception:  # noqa: BLE001 the model's own code may ask for targets, or for more examples
            return []
    return called_paths


@contextmanager
def _calls_recorded(model: nn.Module, paths: Sequence[str]) -> Iterator[list[str]]:
    """Record which of some modules are called, by path."""
    called_paths: list[str] = []
    modules = {path: model.get_submodule(path) for path in paths}
    handles = [
        module.register_forward_pre_hook(lambda *_, path=path: called_paths.append(path))
        for path, module in modules.items()
    ]
    try:
        yield called_paths
    finally:
        for handle in handles:
            handle.remove()


def _groups_failing_in_training(
    trials: TrialCutter, network: Network, groups: Sequence[Group], shares: Kept
) -> dict[str, str]:
    """Return the groups without a share of which the model can't be run in training mode, with the reasons."""
    module_path = trials.failure_in_training(network, {group.name: shares[group.name] for group in groups})
    if module_path is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: f"{module_path} reads these units in training mode alone, and is not cut"}
    half = len(groups) // 2
    return _groups_failing_in_training(trials, network, groups[:half], shares) | _groups_failing_in_training(
        trials, network, groups[half:], shares
    )
