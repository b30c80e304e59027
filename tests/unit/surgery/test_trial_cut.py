"""Trial cuts: what decides in them, and what does not."""

import warnings

import torch
from torch import nn

import secateur as sc
from secateur.graph.model_copies import copy_model
from zoo import grow


def test_warnings_of_the_models_code_decide_nothing() -> None:
    """The deviation of one remaining unit makes torch warn, which is an error for who asks for that."""
    model, x = grow("standardised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lenient = sc.trace(model, x)
        warnings.simplefilter("error")
        strict = sc.trace(model, x)
    assert [(group.name, group.size) for group in strict.groups] == [
        (group.name, group.size) for group in lenient.groups
    ]
    assert str(strict) == str(lenient)


def test_a_graph_module_is_copied_where_warnings_are_errors() -> None:
    model = torch.export.export(nn.Linear(3, 2), (torch.randn(4, 3),)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy = copy_model(model, {})
    x = torch.randn(4, 3)
    assert torch.equal(copy(x), model(x))
