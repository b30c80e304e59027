"""Weights that are computed before each forward: weight norm, spectral norm, masks, any parametrization.

They are traced, cut and saved as the plain weights that they compute; the small model has no parametrization left.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateur.graph.contexts import evaluation_mode
from secateur.graph.model_copies import copy_model
from secateur.graph.wrappers import holds_wrappers, plain_path, unwrap_children


def is_computed(module: nn.Module) -> bool:
    """Return whether a module's own weights are computed from others."""
    return parametrize.is_parametrized(module) or any(_weight_norm_hooks(module))


def needs_folding(model: nn.Module) -> bool:
    """Return whether some weights of a model are computed from others."""
    return any(is_computed(module) for module in model.modules())


def bake_parametrizations(model: nn.Module) -> nn.Module:
    """Return a plain copy of a model with computed weights or wrapped modules, else the model itself."""
    if not needs_folding(model) and not holds_wrappers(model):
        return model
    baked_model = copy_model(model, {})
    bake_in_place(baked_model)
    return baked_model


def bake_in_place(model: nn.Module) -> None:
    """Replace computed weights by their values, and wrapped modules by plain ones, in place."""
    unwrap_children(model)
    with evaluation_mode(model):
        for module in model.modules():
            for hook in _weight_norm_hooks(module):
                hook.remove(module)
            for key in [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, KINDS)]:
                del module._forward_pre_hooks[key]
            if parametrize.is_parametrized(module):
                _fold_parametrizations(module)


KINDS = (WeightNorm, SpectralNorm, BasePruningMethod)


def plain_names(model: nn.Module) -> tuple[dict[str, str], frozenset[str]]:
    """Return what the parameters of a model are called in its plain copy.

    Returns:
        The names in the copy by the names in the model; of a parameter that a weight is computed from, the name of that
        weight. And the names of these computed weights.
    """
    computed_weights = dict(_computed_weights(model))
    names = {
        name: plain_path(model, computed_weights.get(name, name))
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
    return names, frozenset(names[name] for name in names if name in computed_weights)


def _computed_weights(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield each parameter from which a weight is computed, with the name of the weight."""
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if parametrize.is_parametrized(module):
            for name, chain in module.parametrizations.items():
                for inner, _ in chain.named_parameters():
                    yield f"{prefix}parametrizations.{name}.{inner}", f"{prefix}{name}"
        for hook in _weight_norm_hooks(module):
            weight = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
            for suffix in ("_g", "_v", "_orig"):
                yield f"{prefix}{weight}{suffix}", f"{prefix}{weight}"


def _weight_norm_hooks(module: nn.Module) -> list[Any]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, KINDS)]


def _fold_parametrizations(module: Any) -> None:
    values = {}
    for name, chain in module.parametrizations.items():
        learned_parameters = list(chain.parameters(recurse=False))
        values[name] = (
            getattr(module, name).detach().clone(),
            bool(learned_parameters),
            any(t.requires_grad for t in learned_parameters),
        )
    hooks = module._load_state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if "weight_norm_compat_hook" in str(getattr(hook, "hook", hook))]:
        del hooks[key]  # it would look for what is no longer there, and can't be pickled
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, (value, is_parameter, requires_grad) in values.items():
        if is_parameter:
            module.register_parameter(name, nn.Parameter(value, requires_grad))
        else:
            module.register_buffer(name, value)
