"""Models that are built from a configuration: their shapes, and their output beside that of a cut model."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from secateur.coupling.network import Network
from secateur.graph.contexts import isolated_evaluation, run_seeded
from secateur.surgery.model_config import KeptLayers, config_copy
from secateur.surgery.program_modules import original_class
from secateur.surgery.verify import compare_outputs
from secateur.utils.devices import comparable_arithmetic

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of_state(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a model that its state has, those that are tied included."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def configured_shapes(model: nn.Module, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model that the class of a model builds from a configuration, which it may change.

    Returns:
        The shapes by name; empty where the class refuses the configuration.
    """
    try:
        with torch.device("meta"):
            return shapes_of_state(original_class(type(model))(config))
    except Exception:  # noqa: BLE001 (a configuration that its own class refuses is not the one)
        return {}


class ConfiguredShapes:
    """The shapes of the models that the class of a model builds from changed copies of its configuration.

    Args:
        model: the model.
        config: its configuration.
    """

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.model, self.config = model, config

    def of(self, numbers: Mapping[str, int], kept_layers: KeptLayers | None = None) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a model with other numbers in its configuration, and fewer layers; empty if refused."""
        config = self.changed_config(numbers, kept_layers)
        return {} if config is None else configured_shapes(self.model, config)

    def changed_config(self, numbers: Mapping[str, int], kept_layers: KeptLayers | None = None) -> Any:
        """Return a copy of the configuration with other numbers; None where its own checks refuse it."""
        try:
            config, _ = config_copy(self.config, numbers, kept_layers or {})
            validate = getattr(config, "validate", None)
            if callable(validate):
                validate()
        except Exception:  # noqa: BLE001 (checks of a configuration may raise anything)
            return None
        return config


def build_configured(small: nn.Module, config: Any) -> Any:
    """Build a model from a configuration, with the weights of a cut model, whose memory both share.

    Raises:
        RuntimeError: the model has other shapes.
    """
    with parameters_on_meta():
        fresh: Any = original_class(type(small))(copy.deepcopy(config))
    fresh.load_state_dict(small.state_dict(), assign=True)
    if hasattr(fresh, "tie_weights"):
        fresh.tie_weights()
    fresh.to(next(small.parameters()).device)
    buffers = dict(small.named_buffers())
    for name, buffer in fresh.named_buffers():
        if name in buffers:  # those that are not in the state, such as rotary frequencies
            buffer.data = buffer.data.to(buffers[name].dtype)
    return fresh


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Move each parameter to torch's meta device when a module gets it, so that a model is built without its memory."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.data.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    with patch.object(nn.Module, "register_parameter", register_on_meta):
        yield


def difference_from_cut(small: nn.Module, fresh: nn.Module, network: Network) -> float:
    """Return how much the output of a model that was built from a configuration differs from a cut model's.

    The two run the same code on the same weights, so that the difference is usually exactly 0.

    Args:
        small: the cut model.
        fresh: the model that was built.
        network: the trace of the dense model, with the example to run.

    Returns:
        The largest difference relative to the largest output.

    Raises:
        SecateurError: the model that was built can't be run, or the difference is more than float noise.
    """
    writes = network.program.writes
    with (
        isolated_evaluation(small, writes),
        isolated_evaluation(fresh, writes),
        comparable_arithmetic(),
        torch.random.fork_rng(devices=[]),
    ):
        outputs = run_seeded(fresh, network.example), run_seeded(small, network.example)
    return compare_outputs(*outputs, type(small).__name__, network.program.lowest_type)
