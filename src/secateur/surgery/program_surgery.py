"""Exported programs as modules, for models whose own code can't express the cut shape."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from secateur.coupling.network import Network
from secateur.graph.module_program import WHOLE, Literals, ModuleProgram
from secateur.graph.operators import with_argument
from secateur.graph.program import Program
from secateur.surgery.diagnose import candidate_groups


def as_module(program: Program) -> nn.Module:
    """Return a module that runs an exported program, with the model's own parameters."""
    module = program.exported.module(check_guards=False)
    assert isinstance(module, nn.Module)
    return module


def literals_of(network: Network, mask: Tensor) -> Literals:
    """Return the new values of numbers that count cut units, by operator, argument and position."""
    literals: defaultdict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for size in network.sizes:
        if size.remaining(mask) != len(size.units):
            values = {
                WHOLE if position is None else str(position): value for position, value in size.values(mask).items()
            }
            literals[size.node.name].setdefault(size.argument, {}).update(values)
    return dict(literals)


def module_programs_of(network: Network, mask: Tensor) -> dict[str, ModuleProgram]:
    """Return the cut programs of the modules that a cut concerns, by path.

    A number in a module's own code may follow from the units of one group, and count those of another: where only one
    of them is cut, the numbers in the program stay, but the code would compute others.
    """
    if not network.module_programs:
        return {}
    literals = literals_of(network, mask)
    is_cut = {group.name: not bool(mask[group.span].all()) for group in network.groups}
    return {
        path: program.with_literals(literals)
        for path, program in network.module_programs.items()
        if any(is_cut[group.name] for group in candidate_groups(network, path))
        or literals.keys() & program.operators.keys()
    }


def apply_literals(model: nn.Module, literals: Literals) -> None:
    """Write new values into the graph."""
    if not literals or not isinstance(model, fx.GraphModule):
        return
    for node in model.graph.nodes:
        for name, positions in literals.get(node.name, {}).items():
            value = positions[WHOLE] if WHOLE in positions else _replace_literals(node, name, positions)
            node.args, node.kwargs = with_argument(node, node.args, dict(node.kwargs), name, value)
    model.recompile()


def _replace_literals(node: fx.Node, name: str, positions: Mapping[str, int]) -> list[Any]:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    old_value: Any = node.kwargs[name] if name in node.kwargs else node.args[names.index(name)]
    return [positions.get(str(position), value) for position, value in enumerate(old_value)]
