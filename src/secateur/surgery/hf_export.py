"""Small models of the transformers library in its own format, if a configuration can describe their shape."""

import copy
import itertools
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.coupling.plan import Plan
from secateur.errors import SecateurError, StorageError
from secateur.graph.contexts import preserved, run_seeded
from secateur.surgery.program_modules import original_class
from secateur.surgery.verify import compare_outputs
from secateur.utils.devices import comparable_arithmetic

MOST_CONFIGS = 256


def save_pretrained(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write a small model so that `from_pretrained` loads it.

    Numbers in the configuration that equal an old size are tried with the new one until the library builds a model of
    the same shapes, and that model gives the same output.

    Raises:
        StorageError: it is not a model of that library, or no configuration says its shape.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(model, "save_pretrained") or not hasattr(config, "to_dict"):
        raise StorageError(
            f"{type(model).__name__} is not a model of the transformers library; `save` writes a recipe, which `load` "
            "puts onto a fresh model"
        )
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    nearest, refusal = sorted(expected), ""
    for changed in itertools.islice(_candidates(config, plan), MOST_CONFIGS):
        shapes = _shapes(model, changed)
        wrong = sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
        if not wrong:
            refusal = _write_if_equal(model, changed, plan, folder)
            if not refusal:
                return
        nearest = min(nearest, wrong, key=len)
    cause = refusal or f"{nearest[0]} differs at the nearest, and {len(nearest) - 1} more"
    raise StorageError(
        f"no configuration of {type(config).__name__} says this shape: {cause}; cut every layer alike "
        "(allocation='uniform', ablation='zero', round_to=, or only some kinds), or use `save`, whose recipe `load` "
        "puts onto a fresh model"
    )


def _candidates(config: Any, plan: Plan) -> Iterator[Any]:
    """Yield configurations in which new sizes replace old ones, the simplest first."""
    new = _new_sizes(plan)
    numbers = [(name, value) for name, value in vars(config).items() if type(value) is int and value in new]
    choices = [sorted({*new[value], value}) for _, value in numbers]
    for values in sorted(itertools.product(*choices), key=lambda chosen: -sum(map(_differs, chosen, numbers))):
        changed = copy.deepcopy(config)
        for (name, _), value in zip(numbers, values, strict=True):
            setattr(changed, name, value)
        yield changed


def _differs(value: int, number: tuple[str, int]) -> bool:
    return value != number[1]


def _new_sizes(plan: Plan) -> Mapping[int, set[int]]:
    """Map each old size, of groups and of the axes that they own completely, to its new sizes."""
    mask = plan.network.mask(plan.kept)
    new_sizes: defaultdict[int, set[int]] = defaultdict(set)
    for group in plan.network.groups:
        new_sizes[group.size].add(int(mask[group.span].sum()))
        for member in group.members:
            new_sizes[len(member.units)].add(int(mask[member.units].sum()))
    return new_sizes


def _shapes(model: nn.Module, config: Any) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            model_of_config = original_class(type(model))(config)
    except Exception:  # noqa: BLE001 (a configuration that its own class refuses is not the one)
        return {}
    return {name: tuple(tensor.shape) for name, tensor in model_of_config.state_dict().items()}


def _write_if_equal(model: Any, config: Any, plan: Plan, folder: Path) -> str:
    """Write a model of the configuration if it gives the same output; return the obstacle, or ""."""
    fresh: Any = original_class(type(model))(config)
    fresh.load_state_dict(model.state_dict())
    fresh.to(next(model.parameters()).device, next(model.parameters()).dtype)
    batch = plan.network.example
    try:
        with preserved(model), preserved(fresh), comparable_arithmetic():
            outputs = run_seeded(fresh, batch), run_seeded(model, batch)
            compare_outputs(*outputs, type(model).__name__, plan.network.program.lowest_type)
        with tempfile.TemporaryDirectory() as staging:
            fresh.save_pretrained(staging)
            shutil.copytree(staging, folder, dirs_exist_ok=True)
    except (SecateurError, RuntimeError, ValueError, TypeError) as failure:
        return " ".join(str(failure).split())
    return ""
