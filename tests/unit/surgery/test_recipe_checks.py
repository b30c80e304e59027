"""Checks of saved recipes: one change at a time to a recipe that fits, and the refusal that it gets."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.errors import StorageError
from secateur.surgery.apply_recipe import apply_recipe
from secateur.surgery.diagnose import groups_inside_module
from secateur.surgery.lineage import CutStep
from secateur.surgery.recipe import Recipe, recipe_of
from secateur.surgery.recipe_checks import check_recipe, check_recipe_fits

X = torch.randn(2, 4)


def plain_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)
    ).eval()


def recipe_for(model: nn.Module, example: torch.Tensor) -> Recipe:
    network = sc.trace(model, example)
    return recipe_of(model, sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.5}))


def with_attribute(recipe: Recipe, path: str, name: str, value: Any, old: Any) -> Recipe:
    """The recipe with another value of an attribute, and its old value."""
    attributes = {**recipe.attributes, path: {**recipe.attributes.get(path, {}), name: value}}
    was = {**recipe.was, path: {**recipe.was.get(path, {}), name: old}}
    return replace(recipe, attributes=attributes, was=was)


def is_accepted(model: nn.Module, recipe: Recipe) -> bool:
    try:
        check_recipe(model, recipe)
    except StorageError:
        return False
    return True


@pytest.mark.parametrize(
    ("value", "accepted"),
    [(0.25, True), (0.5, True), (0.0, True), (0.75, False), (-0.1, False), (True, False), ("x", False)],
)
def test_the_rate_of_a_dropout_gets_smaller(value: object, accepted: bool) -> None:
    model = plain_model()
    recipe = recipe_for(model, torch.randn(2, 4))
    assert is_accepted(model, recipe)
    assert is_accepted(model, with_attribute(recipe, "1", "p", value, 0.5)) is accepted


@pytest.mark.parametrize(
    ("path", "name", "value"), [("0", "out_features", 3), ("0", "p", 0.25), ("2", "inplace", True)]
)
def test_other_attributes_keep_to_what_the_tensors_say(path: str, name: str, value: object) -> None:
    model = plain_model()
    recipe = recipe_for(model, torch.randn(2, 4))
    old = getattr(dict(model.named_modules())[path], name, None)
    assert not is_accepted(model, with_attribute(recipe, path, name, value, old))


@pytest.mark.parametrize("path", ["", "0", "nowhere"])
def test_layers_and_the_model_itself_are_no_blocks(path: str) -> None:
    model = plain_model()
    recipe = replace(recipe_for(model, torch.randn(2, 4)), skipped=(path,))
    with pytest.raises(StorageError, match="is no block that can be left out"):
        check_recipe(model, recipe)


def test_a_new_bias_has_as_many_entries_as_the_layer_has_outputs() -> None:
    model = plain_model()
    recipe = recipe_for(model, torch.randn(2, 4))
    outputs = len(recipe.kept["3"])
    assert is_accepted(model, replace(recipe, biases={"3.bias": outputs}))
    for biases in ({"3.bias": outputs + 1}, {"0.bias": len(recipe.kept["0"])}, {"2.bias": 4}, {"nowhere.bias": 4}):
        assert not is_accepted(model, replace(recipe, biases=biases)), biases


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 4, batch_first=True)
        self.after = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.before(x)
        return self.after(self.attention(h, h, h)[0])


def test_the_flag_of_a_replaced_module_is_cleared_and_that_of_others_is_not() -> None:
    model = Attention().eval()
    recipe = recipe_for(model, torch.randn(2, 5, 3))
    assert recipe.attributes["attention"]["_qkv_same_embed_dim"] is False
    assert is_accepted(model, recipe)
    assert not is_accepted(model, with_attribute(recipe, "attention", "_qkv_same_embed_dim", True, True))
    assert not is_accepted(model, with_attribute(recipe, "before", "_qkv_same_embed_dim", False, None))


def test_a_model_of_another_shape_is_named_with_both_shapes() -> None:
    model = plain_model()
    recipe = recipe_for(model, torch.randn(2, 4))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    check_recipe_fits(model, CutStep(recipe, shapes), "Sequential")
    with pytest.raises(StorageError, match=r"whose 0.bias has shape none; this model has \(8,\)"):
        step = CutStep(recipe, {name: shape for name, shape in shapes.items() if name != "0.bias"})
        check_recipe_fits(model, step, "Sequential")
    with pytest.raises(StorageError, match=r"whose 9.bias has shape \(3,\); this model has none"):
        check_recipe_fits(model, CutStep(recipe, {**shapes, "9.bias": (3,)}), "Sequential")


def test_norms_without_parameters_get_the_sizes_of_their_own_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8, elementwise_affine=False), nn.ReLU(), nn.Linear(8, 12),
        nn.RMSNorm(12, elementwise_affine=False), nn.ReLU(), nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    network = sc.trace(model, torch.randn(2, 4))
    kept = {"0": torch.arange(8), "3": torch.arange(5), "6": torch.arange(4)}
    plan = sc.plan(network, sc.score(network, by="l2"), sizes=kept)
    small: Any = sc.cut(model, plan)
    assert [small[at].normalized_shape for at in (1, 4, 7)] == [(8,), (5,), (4,)]


def test_replaced_classes_and_folded_weights_are_those_of_the_recipe_alone() -> None:
    attention = Attention().eval()
    weights = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2)).eval()
    for model, example in ((attention, torch.randn(2, 5, 3)), (weights, torch.randn(2, 4)), (plain_model(), X)):
        network = sc.trace(model, example)
        plan = sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.5})
        small: Any = sc.cut(model, plan)
        recipe = recipe_of(model, plan)
        assert recipe.folded == (model is weights)
        assert recipe.dropins == (("attention",) if model is attention else ())
        assert not any(hasattr(module, "parametrizations") for module in small.modules())
        assert (type(dict(small.named_modules()).get("attention")) is nn.MultiheadAttention) is False
    assert hasattr(weights[0], "parametrizations")


def test_a_recipe_makes_weights_plain_only_where_it_says_so() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2)).eval()
    recipe = recipe_for(model, X)
    apply_recipe(model, recipe)
    assert not hasattr(model[0], "parametrizations")
    assert model[0].weight.shape == (len(recipe.kept["0"]), 4)
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)))
    apply_recipe(computed, Recipe({}, {}, {}, {}, {}, {}, {}))
    assert hasattr(computed[0], "parametrizations")


@pytest.mark.parametrize(
    ("path", "holder", "expected"),
    [("a.b", "a", True), ("a", "a", True), ("ab", "a", False), ("a", "a.b", False), ("a", "", True)],
)
def test_modules_within_a_module(path: str, holder: str, expected: bool) -> None:
    assert groups_inside_module(path, holder) is expected
