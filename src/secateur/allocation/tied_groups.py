"""Groups that lose units together, planned as one group: for layouts that one number of a configuration says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.allocation.budget import UNIT_COUNT
from secateur.allocation.strategies import LOSSES
from secateur.coupling.config_layout import TiedGroups
from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.coupling.plan import Budget, Plan
from secateur.coupling.regroup import renumber_units
from secateur.errors import OptionError
from secateur.importance.scores import GroupScores, Scores

RESIDUAL = "residual"


@dataclass(frozen=True, eq=False)
class TiedNetwork:
    """A network in which tied groups are one group, whose units are the steps in which they lose units.

    Which units a group loses at a step is up to its scores: the first step takes the least important units of each.

    Args:
        source: the network with its own groups.
        network: the network to plan for.
        scores: of its groups; those of a step are the sums of its units' scores. Scores that are accumulated losses are
            those at the end of the step, added up over the groups.
        steps: for each tied group of the source the step in which each unit is removed. (units of the group,)
        names: the name of the group to plan for, by the name of the source's group.
    """

    source: Network
    network: Network
    scores: Scores
    steps: Mapping[str, Tensor]
    names: Mapping[str, str]

    @property
    def is_tied(self) -> bool:
        """True if some groups lose units together."""
        return bool(self.steps)

    def budget(self, keep: Budget) -> Budget:
        """Return a budget with a number of the source's units as a fraction of them: the planned network has others."""
        is_number = keep.get(UNIT_COUNT, 0.0) > 1
        return {**keep, UNIT_COUNT: min(keep[UNIT_COUNT] / self.source.units, 1.0)} if is_number else keep

    def separate(self, plan: Plan) -> Plan:
        """Return a plan for the groups of the source."""
        if self.network is self.source:
            return plan
        kept = {name: indices for name, indices in plan.kept.items() if name not in self.names.values()}
        for name, steps in self.steps.items():
            if self.names[name] in plan.kept:
                kept[name] = torch.nonzero(torch.isin(steps, plan.kept[self.names[name]])).flatten()
        ordered_kept = {group.name: kept[group.name] for group in self.source.groups if group.name in kept}
        return replace(plan, network=self.source, kept=ordered_kept)


def tie_groups(network: Network, scores: Scores) -> TiedNetwork:
    """Return a network with tied groups as one; groups that are not tied, or not all scored, are as they were.

    Args:
        network: the network; its layout says which groups are tied.
        scores: of its groups.
    """
    layout = () if network.layout is None else network.layout.ties
    if not layout:
        return TiedNetwork(network, network, scores, {}, {})
    ties = [tie for tie in layout if all(name in scores for name in tie.groups)]
    names_of_whole = {name for tie in layout if tie not in ties for name in tie.groups}
    free_scores = {name: values for name, values in scores.groups.items() if name not in names_of_whole}
    steps = {
        name: _steps_of(scores[name].values, network[name].size // tie.steps) for tie in ties for name in tie.groups
    }
    names = {name: tie.groups[0] for tie in ties for name in tie.groups}
    tied_scores = {tie.groups[0]: GroupScores.exact(_step_scores(tie, scores, steps)) for tie in ties}
    groups = {**{name: values for name, values in free_scores.items() if name not in names}, **tied_scores}
    merged_network = _merge_ties(network, ties, steps)
    return TiedNetwork(network, merged_network, replace(scores, groups=groups, of=""), steps, names)


def _steps_of(values: Tensor, units: int) -> Tensor:
    """Return the step in which each unit of a group is removed, (units,).

    Args:
        values: the scores of the units.
        units: how many of them are removed in a step.
    """
    ranks = torch.argsort(torch.argsort(values.double(), stable=True))
    return ranks // units


def _step_scores(tie: TiedGroups, scores: Scores, steps: Mapping[str, Tensor]) -> Tensor:
    """Return the scores of each step, (steps,): sums over its units, or losses when all of them are removed."""
    total = torch.zeros(tie.steps, dtype=torch.float64)
    for name in tie.groups:
        values, of_group = scores[name].values.double(), torch.zeros_like(total)
        reduce = "amax" if scores.by in LOSSES else "sum"
        total += of_group.scatter_reduce(0, steps[name], values, reduce, include_self=False)
    return total


def _merge_ties(network: Network, ties: Sequence[TiedGroups], steps: Mapping[str, Tensor]) -> Network:
    """Return the network in which each tie is one group, in the place of its first group."""
    tie_of = {tie.groups[0]: tie for tie in ties}
    tied_names = {name for tie in ties for name in tie.groups}
    number = torch.full((network.units + 1,), -1)
    groups, offset = [], 0
    for group in network.groups:
        if group.name in tie_of:
            tie = tie_of[group.name]
            for name in tie.groups:
                number[network[name].span] = offset + steps[name]
            groups.append(_tied_group(network, tie))
        elif group.name not in tied_names:
            number[group.span] = torch.arange(offset, offset + group.size)
            groups.append(group)
        else:
            continue
        offset += groups[-1].size
    return replace(renumber_units(network, groups, number), layout=None)


def _tied_group(network: Network, tie: TiedGroups) -> Group:
    """Return one group for those of a tie; a residual width among them gives it its kind."""
    groups = [network[name] for name in tie.groups]
    per_step = [group.size // tie.steps for group in groups]
    kinds = {group.kind for group in groups}
    return replace(
        groups[0],
        size=tie.steps,
        kind=RESIDUAL if RESIDUAL in kinds else groups[0].kind,
        members=tuple(dict.fromkeys(member for group in groups for member in group.members)),
        dropouts=tuple(dict.fromkeys(path for group in groups for path in group.dropouts)),
        fewest=max(math.ceil(group.fewest / units) for group, units in zip(groups, per_step, strict=True)),
        multiple=math.lcm(
            *(group.multiple // math.gcd(group.multiple, units) for group, units in zip(groups, per_step, strict=True))
        ),
    )


def check_even(network: Network, kept: Kept) -> None:
    """Check that groups whose sizes are given keep to the layout of a network.

    Args:
        network: the network.
        kept: the units that are kept, of groups whose sizes are given.

    Raises:
        OptionError: groups that are tied keep other fractions, or only some of them have a size.
    """
    for tie in () if network.layout is None else network.layout.ties:
        fractions = {name: len(kept[name]) / network[name].size if name in kept else None for name in tie.groups}
        steps = {None if fraction is None else fraction * tie.steps for fraction in fractions.values()}
        even = len(steps) == 1 and all(step is None or step.is_integer() for step in steps)
        if not even:
            sizes = ", ".join(f"{name} {len(kept[name])}" for name in tie.groups if name in kept)
            raise OptionError(
                f"layout='config': {', '.join(tie.fields)} of the configuration says one size for {len(tie.groups)} "
                f"groups, in steps of 1/{tie.steps}, but the sizes given are {sizes}; give all of {tie.groups[0]} ... "
                f"{tie.groups[-1]} the same fraction, or leave layout= out"
            )
