"""Configurations of models with other numbers and fewer layers: the model's own, and copies that its modules have."""

from typing import Any

import pytest
from torch import nn

from secateur.surgery.model_config import configure, open_numbers


class Config:
    """A configuration as models of the transformers library have it."""

    def __init__(self) -> None:
        self.hidden_size, self.num_layers, self.head_dim = 8, 4, None
        self.layer_types, self.pad_token_id, self._private = ["a", "b", "c", "d"], None, None

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Part(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.same, self.none = Part(self.config), nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("numbers", "kept_layers", "expected"),
    [
        ({"hidden_size": 4}, {}, (4, 4, ["a", "b", "c", "d"])),
        ({}, {"num_layers": [0, 2]}, (8, 2, ["a", "c"])),
        ({"hidden_size": 6}, {"num_layers": [3]}, (6, 1, ["d"])),
    ],
)
def test_modules_share_the_changed_copy_and_the_old_one_is_as_it_was(
    numbers: dict[str, int], kept_layers: dict[str, list[int]], expected: tuple[int, int, list[str]]
) -> None:
    model = Model()
    before = model.config
    configure(model, numbers, kept_layers)
    assert model.config is model.same.config
    assert model.config is not before
    assert (model.config.hidden_size, model.config.num_layers, model.config.layer_types) == expected
    assert (before.hidden_size, before.num_layers, before.layer_types) == (8, 4, ["a", "b", "c", "d"])


def test_without_changes_or_a_configuration_nothing_is_copied() -> None:
    model = Model()
    before = model.config
    configure(model, {}, {})
    assert model.config is before
    plain = nn.Linear(2, 2)
    configure(plain, {"hidden_size": 4}, {})
    assert not hasattr(plain, "config")


def test_open_numbers_are_neither_private_nor_tokens() -> None:
    names = set(open_numbers(Config()))
    assert "head_dim" in names
    assert not {name for name in names if name.startswith("_") or "token" in name}
