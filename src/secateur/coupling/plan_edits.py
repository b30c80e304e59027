"""Changes to a plan by hand."""

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from secateur.coupling.effective_macs import effective_macs
from secateur.coupling.group_sizes import Sizes, kept_units, requested_sizes
from secateur.coupling.residual_blocks import blocks_of, groups_inside
from secateur.errors import BudgetError

if TYPE_CHECKING:
    from secateur.coupling.network import Kept, Network
    from secateur.coupling.plan import Plan


def edited_plan(plan: "Plan", sizes: Sizes) -> "Plan":
    """Return a plan with other units kept of some groups, and the costs of these.

    Raises:
        SecateurError: as `requested_sizes` and `kept_units` raise, or a group lies in a block that is left out.
    """
    network = plan.network
    requests = requested_sizes(network, sizes)
    changed_groups = {
        name: kept_units(network[name], request, plan.ranked.get(name)) for name, request in requests.items()
    }
    kept = _without_groups_in_dropped_blocks(network, {**plan.kept, **changed_groups}, changed_groups)
    means = bool(plan.means)
    effective = plan.effective and effective_macs(network, kept, plan.effective.step)
    lengths = ", ".join(f"{name} {len(units)} of {network[name].size}" for name, units in changed_groups.items())
    notes = (*plan.notes, f"changed by hand: {lengths or 'nothing'}")
    return replace(plan, kept=kept, cost=network.cost(kept, means), effective=effective, notes=notes, change=None)


def _without_groups_in_dropped_blocks(network: "Network", kept: "Kept", changed_groups: "Kept") -> dict[str, Tensor]:
    """Return the kept units without those of groups in blocks that are left out, which count as whole.

    Raises:
        BudgetError: one of these groups was changed by hand.
    """
    blocks = blocks_of(network)
    if blocks is None or blocks.name not in kept:
        return dict(kept)
    present = set(kept[blocks.name].tolist())
    dropped_paths = [path for index, path in enumerate(blocks.block_paths) if index not in present]
    inner_groups = {group.name for group in groups_inside(network, dropped_paths)}
    for name in changed_groups:
        if name in inner_groups:
            raise BudgetError(
                f"{name} lies in a block that the plan leaves out: {', '.join(dropped_paths)}; keep the block"
            )
    return {name: units for name, units in kept.items() if name not in inner_groups}
