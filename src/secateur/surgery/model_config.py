"""Configurations of models of the transformers library: their numbers, and changed copies of them."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from secateur.errors import OptionError

INDEX = "layer_idx"
ABSENT = ("head_dim",)  # read where a configuration has it, by models whose configurations do not name it
KeptLayers = Mapping[str, Sequence[int]]
"""For each field of a configuration that counts layers, the layers that are kept."""


def config_of(model: nn.Module) -> Any:
    """Return the configuration of a model.

    Raises:
        OptionError: it is not a model of the transformers library.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(model, "save_pretrained") or not hasattr(config, "to_dict"):
        raise OptionError(
            f"layout='config' needs a model of the transformers library, whose configuration says its shape; this is a "
            f"{type(model).__name__}: leave layout= out"
        )
    return config


def sub_configs(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a configuration and those within it, with the prefix of their fields' names ("text_config.")."""
    yield prefix, config
    for name, value in _attributes_of(config).items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from sub_configs(value, f"{prefix}{name}.")


def _attributes_of(config: Any) -> dict[str, Any]:
    return vars(config) if hasattr(config, "__dict__") else {}


def config_numbers(config: Any) -> dict[str, int]:
    """Return the whole numbers of a configuration by name, those of configurations within it included."""
    return {
        f"{prefix}{name}": value
        for prefix, inner in sub_configs(config)
        for name, value in _attributes_of(inner).items()
        if type(value) is int and not name.startswith("_")
    }


def open_numbers(config: Any) -> Iterator[str]:
    """Yield the names of the numbers that a configuration leaves open, or that models read where it has them."""
    for prefix, inner in sub_configs(config):
        names = [name for name, value in _attributes_of(inner).items() if value is None]
        absent = [name for name in ABSENT if not hasattr(inner, name)]
        yield from (f"{prefix}{name}" for name in (*names, *absent) if not name.startswith("_") and "token" not in name)


def config_copy(config: Any, numbers: Mapping[str, int], kept_layers: KeptLayers) -> tuple[Any, dict[int, Any]]:
    """Copy a configuration with other numbers and fewer layers.

    Lists with an entry for each layer (`layer_types`) keep the entries of the layers that are kept.

    Args:
        config: the configuration.
        numbers: new values by name.
        kept_layers: the layers that are kept, by the name of the number that counts them.

    Returns:
        The copy, and for the id of each configuration within the old one its copy.
    """
    memo: dict[int, Any] = {}
    copied_config = copy.deepcopy(config, memo)
    inner = dict(sub_configs(copied_config))
    for name, value in numbers.items():
        prefix, dot, attribute = name.rpartition(".")
        setattr(inner[prefix + dot], attribute, value)
    for name, kept in kept_layers.items():
        prefix, dot, attribute = name.rpartition(".")
        _keep_layers(inner[prefix + dot], attribute, kept)
    return copied_config, {id(other): memo[id(other)] for _, other in sub_configs(config)}


def _keep_layers(config: Any, attribute: str, kept: Sequence[int]) -> None:
    """Set a number of layers, and drop the entries of other layers from lists that have one for each."""
    count = getattr(config, attribute)
    lists = {
        name: [value[index] for index in kept]
        for name, value in _attributes_of(config).items()
        if isinstance(value, list | tuple) and len(value) == count > 0 and not name.startswith("_")
    }
    setattr(config, attribute, len(kept))
    for name, entries in lists.items():
        setattr(config, name, type(getattr(config, name))(entries))


def configure(model: nn.Module, numbers: Mapping[str, int], kept_layers: KeptLayers) -> None:
    """Give a model and its modules changed copies of their configurations; the old ones are not changed.

    Modules may have copies of the model's configuration (encoders and decoders); the numbers that they share with it
    change likewise.
    """
    root: Any = getattr(model, "config", None)
    if root is None or not (numbers or kept_layers):
        return
    old = {**config_numbers(root), **{name: None for name in numbers if name not in config_numbers(root)}}
    _, copies = config_copy(root, numbers, kept_layers)
    for module in model.modules():
        config: Any = vars(module).get("config")
        if config is None or not hasattr(config, "to_dict"):
            continue
        if id(config) not in copies:
            numbers_of_config = config_numbers(config)
            equal_names = {name for name in {*numbers, *kept_layers} if numbers_of_config.get(name) == old.get(name)}
            _, inner = config_copy(
                config,
                {name: value for name, value in numbers.items() if name in equal_names},
                {name: kept for name, kept in kept_layers.items() if name in equal_names},
            )
            copies |= inner
        module.config = copies[id(config)]


def number_layers(layers: nn.Module) -> None:
    """Give the layers of a list, and the modules within them, their new positions, which caches go by."""
    for index, layer in enumerate(layers.children()):
        for module in layer.modules():
            if type(vars(module).get(INDEX)) is int:
                setattr(module, INDEX, index)
