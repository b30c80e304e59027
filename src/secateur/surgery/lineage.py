"""The lineage of a cut model: all cuts that lead to it from the dense model's class."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from secateur.coupling.network import Network
from secateur.graph.model_copies import copy_model
from secateur.graph.parametrizations import bake_in_place, needs_folding
from secateur.graph.program import Program
from secateur.graph.wrappers import unwrap_children
from secateur.surgery.input_form import InputForm, input_form
from secateur.surgery.recipe import Recipe

KEY = "_secateur_lineage"
UNKNOWN = ""


@dataclass(frozen=True, eq=False)
class CutStep:
    """A cut.

    Args:
        recipe: how the model was cut.
        shapes: of its parameters and buffers before the cut, weights that were computed from others folded.
        inputs: the form of the inputs that the program was exported with, where a program was cut.
        graph: a digest of that program's operators.
    """

    recipe: Recipe
    shapes: Mapping[str, tuple[int, ...]]
    inputs: InputForm | None = None
    graph: str = ""


@dataclass(frozen=True, eq=False)
class Lineage:
    """The cuts that lead from a dense model to a small one, in order.

    Args:
        title: the dense model's class; UNKNOWN where version 0.7 saved a program.
        steps: at least one.
    """

    title: str
    steps: tuple[CutStep, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters and buffers after the last cut."""
        step = self.steps[-1]
        recipe, prefixes = step.recipe, tuple(f"{path}." for path in step.recipe.skipped)
        shapes = {
            recipe.renamed(name): tuple(
                len(recipe.slices.get(name, {}).get(axis, range(length))) for axis, length in enumerate(shape)
            )
            for name, shape in step.shapes.items()
            if not name.startswith(prefixes)
        }
        return shapes | {name: (length,) for name, length in recipe.biases.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Lineage":
        return self


def lineage_of(model: nn.Module) -> Lineage | None:
    """Return the lineage of a model, None if it was never cut."""
    lineage = vars(model).get(KEY)
    if lineage is None and isinstance(model, fx.GraphModule):
        lineage = model.meta.get(KEY)
    return lineage if isinstance(lineage, Lineage) else None


def attach_lineage(model: nn.Module, lineage: Lineage) -> None:
    """Attach a lineage to a model, as a plain attribute, which `copy.deepcopy`, `pickle` and training keep."""
    vars(model)[KEY] = lineage
    if isinstance(model, fx.GraphModule):
        model.meta[KEY] = lineage  # what a copy of such a module keeps


def record_cut(small: nn.Module, source: nn.Module, network: Network, recipe: Recipe) -> None:
    """Append a cut to the lineage of the model that was cut, and attach it to the small model.

    Args:
        small: the cut model.
        source: the model that was cut, as the person has it.
        network: its trace.
        recipe: how it was cut.
    """
    lineage_before = lineage_of(source)
    shapes = {tensor.name: tuple(tensor.shape) for tensor in network.tensors}
    recipe = replace(recipe, folded=needs_folding(source) and not network.as_program, program=network.as_program)
    form = input_form(network.example) if network.as_program else None
    step = CutStep(recipe, shapes, form, graph_digest(network.program) if network.as_program else "")
    attach_lineage(
        small, Lineage(type(source).__name__, (step,)) if lineage_before is None else add_step(lineage_before, step)
    )


def add_step(lineage: Lineage, step: CutStep) -> Lineage:
    """Append a cut to a lineage."""
    return replace(lineage, steps=(*lineage.steps, step))


def folded_copy(model: nn.Module) -> nn.Module:
    """Return a plain copy of a model with computed weights or wrapped modules; its lineage records this step."""
    work = copy_model(model, {})
    unwrap_children(work)
    if needs_folding(model):
        bake_in_place(work)
        tensors = (*work.named_parameters(), *work.named_buffers())
        step = CutStep(
            Recipe({}, {}, {}, {}, {}, {}, {}, folded=True), {name: tuple(tensor.shape) for name, tensor in tensors}
        )
        lineage_before = lineage_of(model)
        attach_lineage(
            work, Lineage(type(model).__name__, (step,)) if lineage_before is None else add_step(lineage_before, step)
        )
    return work


def graph_digest(program: Program) -> str:
    """Compute a digest of a program's operators and their connections, without its numbers."""
    digest = hashlib.sha256()
    for node in program.exported.graph.nodes:
        inputs = [argument.name for argument in node.all_input_nodes]
        digest.update(f"{node.name} {node.op} {node.target} {' '.join(inputs)}\n".encode())
    return digest.hexdigest()
