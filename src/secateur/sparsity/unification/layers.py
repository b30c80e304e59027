"""Selection of the layers that get blocks, and the reasons why others do not."""

from collections.abc import Mapping

from torch import nn

from secateur.errors import SurgeryError
from secateur.options.selections import Selection, match_layers

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
LARGE_SHARE = 0.5  # a first layer with so much of all weights is not left out


def weights_to_structure(
    model: nn.Module, only: Selection | None, skip: Selection | None
) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """Return the weights to structure, and the reasons why those of other layers are not, by layer.

    Raises:
        NameMatchError: a glob matches no layer.
        SurgeryError: there is none.
    """
    weights: dict[str, nn.Parameter] = {}
    modules, title = dict(model.named_modules()), type(model).__name__
    for name, module in modules.items():
        weight = module._parameters.get("weight")
        if isinstance(module, LAYERS) and weight is not None:
            weights[name] = weight
    if only is None:
        left_out = _left_out(model, weights)
    else:
        selected_names = match_layers(only, weights, "layer", modules, title)
        left_out = {name: "it is not named in only=" for name in weights if name not in selected_names}
    if skip is not None:
        left_out |= dict.fromkeys(match_layers(skip, weights, "layer", modules, title), "it is named in skip=")
    selected_weights = {name: weight for name, weight in weights.items() if name not in left_out}
    if not selected_weights:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        raise SurgeryError(f"there is no layer to structure among {reasons or 'none'}; name some with only=")
    total = sum(weight.numel() for weight in weights.values())
    shares = {name: weights[name].numel() / total for name in left_out}
    return selected_weights, {
        name: f"{reason} ({shares[name]:.1%} of the weights)" for name, reason in left_out.items()
    }


def _left_out(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Return the first layer where it is small, the last, and depthwise convolutions."""
    names = list(weights)
    groups = {name: getattr(model.get_submodule(name), "groups", 1) for name in names}
    reasons = {name: "it is depthwise" for name in names if groups[name] > 1 and weights[name].shape[1] == 1}
    total = sum(weight.numel() for weight in weights.values())
    if names and weights[names[0]].numel() < LARGE_SHARE * total:
        reasons[names[0]] = "it is the first"
    return reasons | dict.fromkeys(names[-1:], "it is the last")
