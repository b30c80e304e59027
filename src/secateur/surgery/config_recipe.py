"""The numbers of a model's configuration in a recipe, where cuts keep to the configuration."""

from collections.abc import Sequence

from torch import Tensor

from secateur.coupling.network import Network
from secateur.coupling.residual_blocks import groups_inside
from secateur.errors import SurgeryError


def changed_numbers(network: Network, mask: Tensor, skipped: Sequence[str]) -> dict[str, int]:
    """Return the numbers of the configuration that a mask of units changes; lengths of lists are not among them.

    Args:
        network: the network.
        mask: which units are kept (units + 1,).
        skipped: the paths of blocks that are left out; groups within them count for no number.

    Raises:
        SurgeryError: groups that one number counts keep other fractions.
    """
    if network.layout is None:
        return {}
    new_numbers: dict[str, int] = {}
    groups_in_blocks = {group.name for group in groups_inside(network, skipped)}
    for tie in network.layout.ties:
        groups = [network[name] for name in tie.groups if name not in groups_in_blocks]
        steps = {int(mask[group.span].sum()) * tie.steps / group.size for group in groups}
        if len(steps) > 1 or not all(step.is_integer() for step in steps):
            raise SurgeryError(
                f"the plan was made for layout='config', but {', '.join(tie.groups)} do not keep the same fraction, in "
                f"steps of 1/{tie.steps}, as {', '.join(tie.fields)} of the configuration needs; change them alike"
            )
        if steps and min(steps) < tie.steps:
            new_numbers |= {name: value * int(min(steps)) // tie.steps for name, value in tie.fields.items()}
    return {**network.layout.derived, **new_numbers} if new_numbers else {}


def layer_lists_of(network: Network, skipped: Sequence[str]) -> dict[str, str]:
    """Return the lists that get shorter, with the numbers of the configuration that count their layers.

    Args:
        network: the network.
        skipped: the paths of blocks that are left out.
    """
    lists = () if network.layout is None else network.layout.layers
    holders = {path.rpartition(".")[0] for path in skipped}
    return {layers.path: layers.field for layers in lists if layers.path in holders}
