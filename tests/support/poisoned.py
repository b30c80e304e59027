"""Saved programs that would run code of an attacker if they were read as programs."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crafted_files import signed

Items = dict[str, bytes]


class Payload:
    """Unpickling it makes an empty file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_sample_inputs(items: Items, mark: Path) -> None:
    name = next(name for name in items if "sample_inputs" in name)
    items[name] = pickled((Payload(mark),))


def in_constants(items: Items, mark: Path) -> None:
    name = next(name for name in items if name.endswith("constants_config.json"))
    constant = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    items[name] = json.dumps({"config": {"c": constant}}).encode()
    items[f"{name.rpartition('/')[0]}/tensor_0"] = pickled(Payload(mark))


def in_expressions(items: Items, mark: Path) -> None:
    """Sizes are read by sympy, which evaluates what stands there."""

    def poisoned(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {
                key: f"open({str(mark)!r}, 'w') and 1" if key == "expr_str" else poisoned(value)
                for key, value in tree.items()
            }
        return [poisoned(value) for value in tree] if isinstance(tree, list) else tree

    name = next(name for name in items if name.endswith("models/model.json"))
    items[name] = json.dumps(poisoned(json.loads(items[name]))).encode()


WAYS: dict[str, Callable[[Items, Path], None]] = {
    "sample inputs": in_sample_inputs,
    "constants": in_constants,
    "expressions": in_expressions,
}


def poison(program: Path, way: str, mark: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        items = {name: archive.read(name) for name in archive.namelist()}
    WAYS[way](items, mark)
    with zipfile.ZipFile(program, "w", zipfile.ZIP_STORED) as archive:
        for name, content in items.items():
            archive.writestr(name, content)


def rewrite(recipe: Path, **fields: Any) -> None:
    """Change a recipe and give it the digest that it then has."""
    content = json.loads(recipe.read_text())
    del content["checksum"]
    recipe.write_bytes(signed({**content, **fields}))
