"""Models that a command line names: in Python code, and by name from libraries."""

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from secateur.errors import NameMatchError, OptionError, StorageError
from secateur.utils.plurals import number_of

LIBRARIES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}


def library_model(source: str, has_weights: bool) -> Any:
    """Return the model of a library, or None where the text names none: `hf:FOLDER`, `timm:NAME`, `torchvision:NAME`.

    Args:
        source: what `--model` gives.
        has_weights: whether a file of weights is given beside it; else the published weights are loaded.

    Raises:
        OptionError: the library is not installed.
        NameMatchError: the library has no model of that name; the nearest are offered.
        StorageError: the folder, or the published weights, can't be read.
    """
    prefix, _, name = source.partition(":")
    if prefix not in LOADERS or not name:
        return None
    try:
        library = importlib.import_module(LIBRARIES[prefix])
    except ImportError as failure:
        raise OptionError(
            f"--model {source} needs the package {LIBRARIES[prefix]}, which can't be imported ({failure}); run "
            f"pip install {LIBRARIES[prefix]}"
        ) from failure
    return LOADERS[prefix](library, name, has_weights)


def _transformers_model(transformers: Any, name: str, has_weights: bool) -> Any:
    """Load a folder of `save_pretrained`, as the class that its configuration names."""
    if not (Path(name) / "config.json").is_file():
        raise StorageError(f"hf:{name} is no folder with a config.json; give one that save_pretrained wrote")
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
        architecture = (config.architectures or ["AutoModel"])[0]
        model_class = getattr(transformers, architecture, transformers.AutoModel)
        if has_weights:
            return model_class(config) if model_class is not transformers.AutoModel else model_class.from_config(config)
        return model_class.from_pretrained(name, local_files_only=True)
    except Exception as failure:  # transformers raises many types on damaged folders
        raise StorageError(f"hf:{name} can't be loaded: {_reason_line(failure)}") from failure


def _timm_model(timm: Any, name: str, has_weights: bool) -> Any:
    _check_listed("timm", name.partition(".")[0], timm.list_models())
    return _with_published_weights("timm", name, lambda: timm.create_model(name, pretrained=not has_weights))


def _torchvision_model(torchvision: Any, name: str, has_weights: bool) -> Any:
    models = importlib.import_module("torchvision.models")
    _check_listed("torchvision", name, models.list_models())
    weights = None if has_weights else "DEFAULT"
    return _with_published_weights("torchvision", name, lambda: models.get_model(name, weights=weights))


LOADERS: Mapping[str, Callable[[Any, str, bool], Any]] = {
    "hf": _transformers_model,
    "timm": _timm_model,
    "torchvision": _torchvision_model,
}


def _check_listed(prefix: str, name: str, known_names: list[str]) -> None:
    if name not in known_names:
        close_names = get_close_matches(name, known_names, 3)
        hint = (
            f"the nearest are {', '.join(close_names)}"
            if close_names
            else f"it has {number_of(len(known_names), 'other')}"
        )
        raise NameMatchError(f"{prefix} has no model {name!r}; {hint}")


def _with_published_weights(prefix: str, name: str, make: Callable[[], Any]) -> Any:
    """Make a model with its published weights, which the library may have to download.

    Raises:
        StorageError: they can't be had.
    """
    try:
        return make()
    except Exception as failure:  # downloads fail in many ways
        raise StorageError(
            f"{prefix}:{name} can't be made with its published weights: {_reason_line(failure)}; give --weights"
        ) from failure


def _reason_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0][:300] if lines else 'no reason is given'}"
