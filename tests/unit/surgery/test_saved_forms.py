"""The form in which files store blocks that are left out and a model's inputs."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.errors import StorageError
from secateur.surgery.input_form import example_of, input_form
from secateur.surgery.recipe import Recipe
from secateur.surgery.recipe_checks import check_recipe

EMPTY = Recipe({}, {}, {}, {}, {}, {}, {})


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class Own(nn.Module):
    """A block whose weights are its own, in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


MODEL = nn.Sequential(OrderedDict(stem=nn.Linear(4, 4), block=Inner(), scale=Own(), pair=nn.Sequential(nn.ReLU())))


@pytest.mark.parametrize("path", ["block", "scale", "pair"])
def test_a_block_can_be_left_out(path: str) -> None:
    check_recipe(MODEL, replace(EMPTY, skipped=[path]))


@pytest.mark.parametrize("path", ["", "stem", "block.linear", "nowhere"])
def test_the_model_itself_and_layers_are_no_blocks(path: str) -> None:
    with pytest.raises(StorageError, match="is no block that can be left out"):
        check_recipe(MODEL, replace(EMPTY, skipped=[path]))


NESTED = {
    "a list of pairs": [(torch.ones(2, 3), 1), (torch.zeros(1, dtype=torch.int64), None)],
    "dicts in dicts": {"pixels": torch.ones(2, 3, dtype=torch.float16), "sizes": {"height": 3, "scale": 0.5}},
    "plain values": [True, "words", 2, None],
}


@pytest.mark.parametrize("value", NESTED.values(), ids=NESTED)
def test_inputs_of_the_same_form_are_made_again(value: Any) -> None:
    form = input_form(Batch((value,), {"option": value}))
    assert form is not None
    batch = example_of(form, torch.device("cpu"))
    for made_again in (batch.args[0], batch.kwargs["option"]):
        assert _structure(made_again) == _structure(value)


@pytest.mark.parametrize("value", [{1: torch.ones(1)}, OrderedDict(x=torch.ones(1)), {1, 2}, torch.nn.ReLU()])
def test_inputs_that_no_file_holds_have_no_form(value: Any) -> None:
    assert input_form(Batch((value,), {})) is None


def _structure(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, dict):
        return {name: _structure(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_structure(item) for item in value)
    return type(value), value
