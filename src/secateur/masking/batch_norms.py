"""Batch norms behind layers."""

from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments


def norm_behind(node: Node) -> Node | None:
    """Return the batch norm that alone uses an operator's result and keeps running statistics, if there is one."""
    users = list(node.users)
    if (
        len(users) != 1
        or rule_of(users[0]).norm != "batch"
        or not isinstance(arguments(users[0]).get("running_mean"), Node)
    ):
        return None
    return users[0]


def has_own_statistics(norm: Node) -> bool:
    """Return whether a batch norm has running statistics that no other call reads: they can take what it alone needs.

    Args:
        norm: the operator of the batch norm; a module that is called twice has two.
    """
    mean = arguments(norm).get("running_mean")
    return isinstance(mean, Node) and len(mean.users) == 1


def norms_of(network: Network) -> dict[Node, Tensor]:
    """Find the batch norms behind producers of units, with the units along their axis, -1 where it is frozen."""
    units = {member.tensor: member.units for member in network.members if member.axis == 0}
    norms = {}
    for node in network.program.nodes:
        if rule_of(node).norm == "batch":
            by_name = arguments(node)
            nodes = (by_name.get(name) for name in ("weight", "running_mean"))
            names = [network.program.state_names.get(node, "") for node in nodes if isinstance(node, Node)]
            norm_units = next((units[name] for name in names if name in units), None)
            if norm_units is not None and by_name.get("running_mean") is not None:
                norms[node] = norm_units
    return norms
