"""Advice on texts for `--model` and `--data` that name no object of Python code."""

import ast
from pathlib import Path

FORM = "package.module:name or file.py:name"
WEIGHTS = "a file of weights holds no code: name the model's code by --model file.py:name, and the file by --weights"
MODEL_FILES = {
    **dict.fromkeys((".bin", ".ckpt", ".pt", ".pth", ".safetensors"), WEIGHTS),
    ".pt2": "a program of torch.export is given by --program",
    ".onnx": "an ONNX file holds operators of another runtime: name the code of the module that it was exported from",
}
"""What to give in place of a file as the model, by its suffix."""
MOST_NAMES = 6


def advice_on_model_source(source: str) -> str:
    """Return what to give in place of a text that is no source of a model, in words.

    Examples:
        >>> advice_on_model_source("small.pt2")
        'a program of torch.export is given by --program'
        >>> advice_on_model_source("resnet18")
        'give package.module:name or file.py:name, hf:FOLDER, timm:NAME or torchvision:NAME'
    """
    path = Path(source)
    if path.suffix == ".py":
        return _advice_on_code(path)
    if path.suffix in MODEL_FILES:
        return MODEL_FILES[path.suffix]
    if (path / "config.json").is_file():
        return f"for a folder that save_pretrained wrote, give hf:{source}"
    if (path / "recipe.json").is_file():
        return "for a folder that Secateur wrote, name a function that returns secateur.load(model, folder)"
    return f"give {FORM}, hf:FOLDER, timm:NAME or torchvision:NAME"


def advice_on_data_source(source: str) -> str:
    """Return what to give in place of a text that is no source of data, in words.

    Examples:
        >>> advice_on_data_source("images.npy")
        'name a function that reads it and returns batches: file.py:name'
    """
    path = Path(source)
    if path.suffix == ".py":
        return _advice_on_code(path)
    if path.exists() or path.suffix:
        return "name a function that reads it and returns batches: file.py:name"
    return f"give {FORM}"


def _advice_on_code(path: Path) -> str:
    """Return what to give in place of a file of Python code: the names that it binds."""
    names = _bound_names(path)
    if not names:
        return f"name what the file holds: {path}:name"
    name_list = ", ".join(names[:MOST_NAMES]) + (" and others" if len(names) > MOST_NAMES else "")
    return f"name what the file holds: {path}:{names[0]} (it has {name_list})"


def _bound_names(path: Path) -> list[str]:
    """Return the public names of functions, classes and values of a file, without running it; none if it has errors."""
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return []
    names = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]
