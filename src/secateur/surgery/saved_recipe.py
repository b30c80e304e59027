"""Recipes in recipe.json: the schema, and the conversion to it and back."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from torch import Tensor

from secateur.files import Record
from secateur.files.records import CanonicalRecord, Checksum, Fraction, Natural
from secateur.surgery.input_form import InputForm
from secateur.surgery.lineage import UNKNOWN, CutStep, Lineage
from secateur.surgery.program_json import Name, SavedModuleProgram, program_from_saved, program_to_saved
from secateur.surgery.recipe import Recipe
from secateur.version import __version__

RECIPE, WEIGHTS, PROGRAM = "recipe.json", "weights.safetensors", "model.pt2"

Axis = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,2}$")]
Positions = Annotated[list[Natural], msgspec.Meta(min_length=1)]
Attributes = dict[Name, dict[Name, bool | int | float | list[int]]]


class CutFields(Record, frozen=True, kw_only=True):
    """A cut: the fields of `Recipe` and `CutStep`; `dense` are the shapes before the cut."""

    kept: dict[Name, list[Natural]]
    slices: dict[Name, dict[Axis, Positions]]
    attributes: Attributes
    biases: dict[Name, Natural]
    dropouts: dict[Name, Fraction]
    literals: dict[Name, dict[Name, dict[Name, int]]]
    was: Attributes
    dropins: list[Name]
    skipped: list[Name]
    folded: bool
    program: bool
    dense: dict[Name, list[Natural]]


class SavedCut(CutFields, frozen=True, kw_only=True):
    """A cut with what is needed to export its program again, and the programs of modules."""

    inputs: InputForm | None = None
    graph: str = ""
    module_programs: dict[Name, SavedModuleProgram] = msgspec.field(default_factory=dict)
    config: dict[Name, Natural] = msgspec.field(default_factory=dict)
    layer_lists: dict[Name, Name] = msgspec.field(default_factory=dict)


class SavedRecipe(SavedCut, frozen=True, kw_only=True):
    """recipe.json: the last cut, the earlier ones, and the digests of the files that belong to it."""

    FORMAT: ClassVar[str] = "secateur recipe/3"

    format: str
    secateur: str
    torch: str
    model: Name
    earlier: list[SavedCut]
    files: dict[Name, Checksum]
    checksum: str = ""


class SavedRecipe2(CutFields, CanonicalRecord, frozen=True, kw_only=True):
    """recipe.json of version 0.7, with one cut and the digest of the weights alone."""

    FORMAT: ClassVar[str] = "secateur recipe 2"

    format: str
    secateur: str
    torch: str
    model: Name
    weights: Checksum
    checksum: str


def lineage_to_saved(lineage: Lineage, digests: Mapping[str, str]) -> SavedRecipe:
    """Convert a lineage to its saved form.

    Args:
        lineage: the cuts.
        digests: of the files that belong to it, by name.
    """
    *earlier, last = [_fields(step) for step in lineage.steps]
    return SavedRecipe(
        format=SavedRecipe.FORMAT,
        secateur=__version__,
        torch=str(torch.__version__),
        model=lineage.title,
        earlier=[SavedCut(**fields) for fields in earlier],
        files=dict(digests),
        **last,
    )


def lineage_from_saved(record: SavedRecipe | SavedRecipe2) -> Lineage:
    """Convert a saved recipe to a lineage."""
    earlier = record.earlier if isinstance(record, SavedRecipe) else []
    title = UNKNOWN if isinstance(record, SavedRecipe2) and record.program else record.model
    return Lineage(title, (*map(_cut_step, earlier), _cut_step(record)))


def _fields(step: CutStep) -> dict[str, Any]:
    return {
        **_recipe_fields(step.recipe),
        "dense": {name: list(shape) for name, shape in step.shapes.items()},
        "inputs": step.inputs,
        "graph": step.graph,
    }


def _recipe_fields(recipe: Recipe) -> dict[str, Any]:
    return {
        "kept": {name: indices.tolist() for name, indices in recipe.kept.items()},
        "slices": {
            name: {str(axis): positions.tolist() for axis, positions in axes.items()}
            for name, axes in recipe.slices.items()
        },
        "attributes": _as_lists(recipe.attributes),
        "biases": dict(recipe.biases),
        "dropouts": dict(recipe.dropouts),
        "literals": {
            node: {name: dict(positions) for name, positions in arguments.items()}
            for node, arguments in recipe.literals.items()
        },
        "was": _as_lists(recipe.was),
        "dropins": list(recipe.dropins),
        "skipped": list(recipe.skipped),
        "folded": recipe.folded,
        "program": recipe.program,
        "config": dict(recipe.config),
        "layer_lists": dict(recipe.layer_lists),
        "module_programs": {path: program_to_saved(program) for path, program in recipe.module_programs.items()},
    }


def _cut_step(cut: CutFields) -> CutStep:
    slices: dict[str, dict[int, Tensor]] = {
        name: {int(axis): torch.tensor(positions, dtype=torch.long) for axis, positions in axes.items()}
        for name, axes in cut.slices.items()
    }
    recipe = Recipe(
        kept={name: torch.tensor(indices, dtype=torch.long) for name, indices in cut.kept.items()},
        slices=slices,
        attributes=_as_tuples(cut.attributes),
        biases=cut.biases,
        dropouts=cut.dropouts,
        literals=cut.literals,
        was=_as_tuples(cut.was),
        dropins=tuple(cut.dropins),
        skipped=tuple(cut.skipped),
        folded=cut.folded,
        program=cut.program,
        module_programs={path: program_from_saved(saved) for path, saved in _module_programs(cut).items()},
        config=cut.config if isinstance(cut, SavedCut) else {},
        layer_lists=cut.layer_lists if isinstance(cut, SavedCut) else {},
    )
    shapes = {name: tuple(shape) for name, shape in cut.dense.items()}
    return CutStep(recipe, shapes, *((cut.inputs, cut.graph) if isinstance(cut, SavedCut) else ()))


def _module_programs(cut: CutFields) -> Mapping[str, SavedModuleProgram]:
    return cut.module_programs if isinstance(cut, SavedCut) else {}


def _as_lists(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        path: {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
        for path, changed in attributes.items()
    }


def _as_tuples(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        path: {name: tuple(value) if isinstance(value, list) else value for name, value in changed.items()}
        for path, changed in attributes.items()
    }
