"""The printed table of a network: its groups, their members, and frozen layers with the reasons."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from secateur.coupling.cost import cost_of
from secateur.data.batch import Batch
from secateur.utils.plurals import number_of
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from secateur.coupling.group import Group
    from secateur.coupling.network import Network

WRAP = 3


def network_table(network: "Network") -> str:
    """Return the table of a network: its cost, its groups with their members, and frozen layers."""
    rows = network_rows(network)
    lines = [network_line(network), ""]
    lines += align_columns(rows, frozenset({0, 2, 5})) if network.groups else ["nothing can be cut"]
    if network.module_programs:
        lines += ["", f"run a cut program in place of their own code: {', '.join(_paths_of_programs(network))}"]
    if network.frozen:
        lines += ["", "frozen:", *align_columns(frozen_rows(network), frozenset({0, 2}))]
    return "\n".join(lines)


def network_line(network: "Network") -> str:
    """Return the costs and the numbers of groups and units in words."""
    dense = network.cost()
    return (
        f"{network.title}: {dense.params:,} parameters, {dense.macs:,} MACs for {example_text(network)}, "
        f"{dense.bytes:,} bytes; {number_of(network.units, 'unit')} in {number_of(len(network.groups), 'group')}"
    )


def network_rows(network: "Network") -> list[list[str]]:
    """Return a row for each group: its size, kind, costs and members, the header first."""
    shares = {group.name: share(network, group) for group in network.groups}
    rows = [["group", "units", "kind", "params", "MACs", "members"]]
    rows += [
        [
            group.name,
            str(group.size),
            group.kind,
            f"{shares[group.name][0]:,}",
            f"{shares[group.name][1]:,}",
            _members_text(group),
        ]
        for group in network.groups
    ]
    return rows


def example_text(network: "Network") -> str:
    """Return the inputs of one example in words, for which MACs are counted."""
    shapes = input_shapes(network)
    named_shapes = [
        f"{name} of {shape}" for name, shape in zip(_input_names(network.example), shapes, strict=True) if name
    ]
    if len(named_shapes) == len(shapes):
        return " and ".join(named_shapes)
    return f"an input of {shapes[0]}" if len(shapes) == 1 else f"inputs of {' and '.join(shapes)}"


def network_dict(network: "Network") -> dict[str, Any]:
    """Return a network's costs, input shapes, groups and frozen layers as plain values."""
    shares = {group.name: share(network, group) for group in network.groups}
    return {
        "title": network.title,
        "dense": asdict(network.cost()),
        "inputs": input_shapes(network),
        "groups": {
            group.name: {
                "units": group.size,
                "kind": group.kind,
                "params": shares[group.name][0],
                "macs": shares[group.name][1],
                "members": [str(member) for member in group.members],
            }
            for group in network.groups
        },
        "frozen": [
            {"name": name.strip(), "units": int(units), "reason": reason}
            for name, units, reason in frozen_rows(network)
        ],
    }


def input_shapes(network: "Network") -> list[str]:
    """Return the shapes of the inputs that MACs are counted for, those of one example where it is possible.

    Examples:
        >>> import secateur as sc
        >>> network = sc.trace(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)), torch.randn(2, 4))
        >>> input_shapes(network)
        ['4']
    """
    batch = network.example
    start = 1 if batch.is_divisible and batch.size else 0
    return [" x ".join(map(str, tensor.shape[start:])) or "1" for tensor in batch.tensors]


def _input_names(batch: Batch) -> list[str]:
    """Return the name of each input tensor where it is a keyword argument of its own, else an empty one."""
    names = {id(value): name for name, value in batch.kwargs.items()}
    return [names.get(id(tensor), "") for tensor in batch.tensors]


def share(network: "Network", group: "Group") -> tuple[int, int]:
    """Return the parameters and MACs that are removed with all units of a group but one."""
    tensors_of_group = {member.tensor for member in group.members}
    tensors = [tensor for tensor in network.tensors if tensor.name in tensors_of_group]
    work = [term for term in network.work if any(group.owns(axis) for axis in term.axes)]
    masks = (network.mask({}), network.mask({group.name: torch.tensor([0])}))
    dense, share_cost = (cost_of(mask, tensors, group.members, work, ()) for mask in masks)
    return dense.params - share_cost.params, dense.macs - share_cost.macs


def _members_text(group: "Group") -> str:
    names = [str(member) for member in group.members]
    rest_text = f" and {len(names) - WRAP} more" if len(names) > WRAP else ""
    return ", ".join(names[:WRAP]) + rest_text


def _paths_of_programs(network: "Network") -> list[str]:
    """Return the modules that run a program."""
    return [path or network.title for path in network.module_programs]


def frozen_rows(network: "Network") -> list[list[str]]:
    """Return a row for each frozen layer: its name, indented, its number of units, and the reason."""
    rows = []
    for frozen in network.frozen:
        location = f" in {frozen.module}" if frozen.module and frozen.module != frozen.name else ""
        cause = f"{frozen.operator}{location}: {frozen.reason}" if frozen.operator else frozen.reason.splitlines()[0]
        rows.append(["  " + frozen.name, str(frozen.units), cause])
    return rows
