"""Gradients through activations that a model detaches or copies."""

from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.program import OpOverride, Program


def straight_through(program: Program) -> dict[Node, OpOverride]:
    """Return overrides by which gradients pass through detached and copied activations."""
    calls = {node: rule_of(node).straight_through for node in program.nodes}
    return {node: call for node, call in calls.items() if call is not None}
