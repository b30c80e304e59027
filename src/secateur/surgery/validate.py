"""Trial cuts before planning: the groups from which a model's own code can't lose units.

A copy without a random share of every group is compared with the masked run. Where its code fails, the traceback names
the module. Attributes of the module that equal an old size are set to the new one, and kept if the copy then runs
further. If no attribute helps, the groups in that module that fail by themselves are frozen. The results for the first
module of a class are used for the others.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from secateur.coupling.members import Frozen
from secateur.coupling.network import Kept, Network
from secateur.coupling.regroup import freeze_groups
from secateur.coupling.removable_blocks import RemovableBlock, find_blocks, shares_tensors
from secateur.coupling.residual_blocks import of_blocks
from secateur.surgery.culprits import bisect_failures, failing_groups, freeze_failing_groups
from secateur.surgery.diagnose import (
    ancestors,
    candidate_groups,
)
from secateur.surgery.joint_trials import Trial, pass_together
from secateur.surgery.training_parts import without_groups_of_training
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure
from secateur.surgery.trial_shares import draw_means, draw_shares
from secateur.surgery.validate_attributes import (
    DRAWS,
    update_attributes,
    update_attributes_by_group,
    update_attributes_by_output,
)
from secateur.surgery.validate_merges import merge_heads_with_width
from secateur.surgery.validate_programs import with_fixed_lengths, with_module_programs, without_idle_programs
from secateur.utils.progress import counted

MOST_TRIALS = 200


def validate_groups(model: nn.Module, network: Network, seed: int = 0) -> Network:
    """Return the network with the attribute updates that its code needs, without groups that can't be cut."""
    with counted("trial cuts"):
        trials = TrialCutter(model)
        return without_groups_of_training(trials, _validate(trials, network, seed), seed)


def _validate(trials: TrialCutter, network: Network, seed: int) -> Network:
    if pass_together(trials, network, _all_trials(network, seed)):
        return network
    first_failure = trials.run(network, draw_shares(network, seed), draw_means(network))
    for draw in range(seed if first_failure is not None else seed + 1, seed + DRAWS):
        network = _validated_draw(trials, network, draw)
    trials.far = False
    while first_failure is not None and network.groups:
        first_failure = trials.run(network, draw_shares(network, seed), draw_means(network))
        if first_failure is None:
            break
        network = freeze_groups(network, bisect_failures(trials, network, network.groups, draw_shares(network, seed)))
    network = _with_needed_programs(trials, _with_larger_minimum(trials, network), seed)
    return with_fixed_lengths(trials, network, draw_shares(network, seed))


def _with_needed_programs(trials: TrialCutter, network: Network, seed: int) -> Network:
    """Return the network without programs whose numbers no plan changes, if the code of these modules follows cuts."""
    lean = without_idle_programs(network)
    is_same = lean.module_programs.keys() == network.module_programs.keys()
    return lean if is_same or trials.run(lean, draw_shares(lean, seed), {}) is None else network


def _all_trials(network: Network, seed: int) -> list[Trial]:
    """Return the trials that a network passes which needs no change."""
    draws = [Trial(draw_shares(network, draw), {}, is_strong=draw == 1) for draw in range(seed + 1, seed + DRAWS)]
    first_trial = Trial(draw_shares(network, seed), draw_means(network))
    return [first_trial, *draws, Trial(_fewest_units(network), {})]


def _validated_draw(trials: TrialCutter, network: Network, seed: int) -> Network:
    """Return the network after one draw of shares passes."""
    trials.far = seed == 1
    for _ in range(MOST_TRIALS):
        failure = trials.run(network, draw_shares(network, seed), {})
        if failure is None:
            break
        network_before = network
        network = (
            update_attributes(trials, network, draw_shares(network, seed), failure, ancestors(failure.path))
            or update_attributes_by_group(trials, network, seed, failure)
            or update_attributes_by_output(trials, network, seed, failure)
            or merge_heads_with_width(trials, network, seed, failure)
            or _with_programs(trials, network, draw_shares(network, seed), failure)
            or freeze_failing_groups(trials, network, draw_shares(network, seed), failure)
        )
        if network is network_before:  # no single group is to blame, nor all of them
            break
    return network


def removable_blocks(model: nn.Module, network: Network) -> list[RemovableBlock]:
    """Return the blocks of a network that can be left out beside other units, as a trial of each shows.

    Tensors that other modules share with a block, and that lose units there, stay as they are.
    """
    program = network.program
    blocks = [block for block in find_blocks(program) if not shares_tensors(program, block)]
    failures = _failures_without(TrialCutter(model), network, blocks)
    return [block for block, failure in zip(blocks, failures, strict=True) if failure is None]


def validate_blocks(model: nn.Module, network: Network, blocks: Sequence[RemovableBlock]) -> Network:
    """Return the network whose units are the removable blocks; the others are frozen, with the reason."""
    fine, frozen = [], []
    for block, failure in zip(blocks, _failures_without(TrialCutter(model), network, blocks), strict=True):
        if failure is None:
            fine.append(block)
        else:
            reason = "what follows its sum changes what comes in" if failure.path is None else failure.reason
            frozen.append(Frozen(block.path, 1, "", block.path, reason))
    return replace(of_blocks(network, fine), frozen=tuple(frozen))


def _failures_without(trials: TrialCutter, network: Network, blocks: Sequence[RemovableBlock]) -> list[Failure | None]:
    """Return the failure of a trial without each block, None where it passes.

    Every other block is left out at once, then the others. Where that passes, so does each of them with its neighbours
    present; where it fails, each is tried alone.
    """
    failures: dict[str, Failure | None] = {}
    for half in (blocks[::2], blocks[1::2]):
        if len(half) > 1 and _failure_without(trials, network, half) is None:
            failures |= dict.fromkeys((block.path for block in half), None)
        else:
            failures |= {block.path: _failure_without(trials, network, [block]) for block in half}
    return [failures[block.path] for block in blocks]


def _failure_without(trials: TrialCutter, network: Network, blocks: Sequence[RemovableBlock]) -> Failure | None:
    return trials.run(of_blocks(network, blocks), {"blocks": torch.arange(0)}, {})


def _with_larger_minimum(trials: TrialCutter, network: Network) -> Network:
    """Let groups that fail only when the fewest units are kept keep one more."""
    shares = _fewest_units(network)
    if not network.groups or trials.run(network, shares, {}) is None:
        return network
    groups_to_blame = bisect_failures(trials, network, network.groups, shares)
    larger_minimums = {name: len(shares[name]) + 1 for name in groups_to_blame}
    groups = (replace(group, fewest=larger_minimums.get(group.name, group.fewest)) for group in network.groups)
    return replace(network, groups=tuple(groups))


def _fewest_units(network: Network) -> dict[str, Tensor]:
    """Return the last units of every group, as few as it may keep."""
    least_counts = {group.name: max(group.multiple, group.fewest) for group in network.groups}
    return {group.name: torch.arange(group.size)[-least_counts[group.name] :] for group in network.groups}


def _with_programs(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> Network | None:
    """Return the network in which modules run programs, for all groups or for those that fail alone."""
    if isinstance(trials.model, fx.GraphModule):
        return None
    network_with_programs = with_module_programs(trials, network, shares, failure)
    if network_with_programs is not None:
        return network_with_programs
    if failure.path is None:
        culprits = [*bisect_failures(trials, network, network.groups, shares)]
    else:
        near_groups = candidate_groups(network, next(iter(ancestors(failure.path))))
        culprits = [group.name for group in failing_groups(trials, network, near_groups, shares, failure)]
    for name in culprits:
        kept = {name: shares[name]}
        failure_alone = trials.run(network_with_programs or network, kept, {})
        if failure_alone is not None:
            network_with_programs = (
                with_module_programs(trials, network_with_programs or network, kept, failure_alone)
                or network_with_programs
            )
    return network_with_programs
