"""Bad input: each is a clear error that names the place and the remedy, and leaves the model as it was."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from zoo import grow

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def model() -> nn.Module:
    return grow("mlp")[0]


@pytest.fixture
def network(model: nn.Module) -> sc.Network:
    return sc.trace(model, X)


def nan_in(x: Tensor) -> Tensor:
    x = x.clone()
    x[2, 1] = float("nan")
    return x


DATA: dict[str, tuple[Any, str]] = {
    "no batches": ([], "gave no batches"),
    "a generator that is used up": ((x for x in ()), "gave no batches"),
    "an empty batch": ([(X[:0], Y[:0])], "batch 0 is empty"),
    "a second empty batch": ([(X, Y), (X[:0], Y[:0])], "batch 1 is empty"),
    "not iterable": (7, "data is an int; give an iterable"),
    "a Trainer": (SimpleNamespace(get_train_dataloader=list), r"such as its get_train_dataloader\(\)"),
    "a Lightning DataModule": (SimpleNamespace(train_dataloader=list), r"such as its train_dataloader\(\)"),
    "no tensors": ([("a", "b")], "holds no tensors"),
    "too many items": ([(X, Y, X)], "give \\(inputs, target\\)"),
    "NaN": ([(nan_in(X), Y)], "batch 0 has NaN"),
    "a wrong width": ([(torch.randn(6, 5), Y)], "refuses inputs \\(., 5\\) torch.float32.*RuntimeError"),
    "a wrong type": ([(X.long(), Y)], "refuses inputs \\(6, 6\\) torch.int64"),
    "two inputs": ([((X, X), Y)], "2 inputs"),
    "a dict": ([{"x": X}], "inputs \\['x'\\]"),
    "labels too large": ([(X, Y + 5)], "label 5 is out of range: the network has 3 classes"),
    "labels below zero": ([(X, Y - 1)], "label -1 is out of range"),
    "labels of another number": ([(X, Y[:4])], "labels have shape \\(4,\\)"),
    "targets of another shape": ([(X, torch.randn(6, 2))], "targets have shape \\(6, 2\\)"),
}


@pytest.mark.parametrize("by", ["shapley", "taylor", "leave-one-out"])
@pytest.mark.parametrize("case", DATA)
def test_data(case: str, by: str, network: sc.Network) -> None:
    data, message = DATA[case]
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(network, data, by=by, progress=False)


LOSSES: dict[str, tuple[Callable[..., Any], str]] = {
    "NaN": (lambda output, target: output.sum(1) * float("nan"), "NaN or infinite for"),
    "infinite": (lambda output, target: output.sum(1) / 0, "NaN or infinite for"),
    "one number": (lambda output, target: output.sum(), "one value per example"),
    "one value per output": (lambda output, target: output, "one value per example"),
    "a float": (lambda output, target: 1.0, "float where one value per example"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses(case: str, network: sc.Network) -> None:
    loss, message = LOSSES[case]
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(network, [(X, Y)], loss=loss, progress=False)


NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "criterion": ({"by": "shaply"}, "did you mean 'shapley'\\? known are apoz"),
    "group": ({"only": "layer9.*"}, "no group is named 'layer9\\.\\*'; the nearest are 0, 2"),
    "skipped group": ({"skip": ["0", "nope"]}, "no group is named 'nope'"),
    "estimator": ({"estimator": "magic"}, "estimator='magic' is unknown; known are auto, controlled, exact"),
    "aggregate": ({"aggregate": "median"}, "aggregate='median' is unknown"),
    "ablation": ({"ablation": "noise"}, "ablation='noise' is unknown; known are mean, zero"),
    "protocol": ({"protocol": "other"}, "protocol='other' is unknown"),
    "coalitions": (
        {"coalitions": 0},
        "coalitions=0 .* give a whole number of coalitions from 1 up",
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_and_options(case: str, network: sc.Network) -> None:
    options, message = NAMES[case]
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(network, [(X, Y)], progress=False, **options)


def test_exact_values_of_too_many_units() -> None:
    network = sc.trace(nn.Sequential(nn.Linear(3, 30), nn.ReLU(), nn.Linear(30, 2)), torch.randn(2, 3))
    with pytest.raises(sc.SecateurError, match=r"2\^30 evaluations"):
        sc.score(network, torch.randn(4, 3), estimator="exact", progress=False)


def test_a_criterion_that_needs_examples_and_has_none(network: sc.Network) -> None:
    with pytest.raises(sc.SecateurError, match="'shapley' needs examples"):
        sc.score(network)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "gave nothing for 0"),
        ({"0": torch.zeros(3), "2": torch.zeros(8)}, "scores of shape \\(3,\\) for 0, which has 10 units"),
        ({"0": torch.full((10,), float("nan")), "2": torch.zeros(8)}, "NaN or infinity among them for 0"),
    ],
)
def test_a_criterion_of_ones_own_that_is_wrong(scores: dict[str, Tensor], message: str, network: sc.Network) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(network, by=lambda context: scores)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.sum().item() > 0:
            return y
        return -y


def test_a_network_that_can_not_be_exported() -> None:
    with pytest.raises(sc.SecateurError, match="could not export Branching") as error:
        sc.trace(Branching(), torch.randn(2, 4))
    assert "torch.where" in str(error.value)
    assert "test_bad_input.py" in str(error.value)


def test_the_models_own_error_is_shown() -> None:
    with pytest.raises(sc.SecateurError, match=r"Sequential refuses inputs \(2, 5\).*2x5"):
        sc.trace(grow("mlp")[0], torch.randn(2, 5))


def test_what_is_no_model() -> None:
    with pytest.raises(sc.SecateurError, match=r"not a torch\.nn\.Module"):
        sc.trace(lambda x: x, X)  # type: ignore[arg-type]


def test_a_network_with_nothing_to_cut_lists_the_reasons() -> None:
    with pytest.raises(sc.SecateurError, match="nothing in this network can be cut") as error:
        sc.prune(nn.Linear(3, 2), torch.randn(4, 3), {"macs": 0.5})
    assert "is the network's output" in str(error.value)


def test_prune_looks_at_the_budget_and_the_name_before_it_does_anything(model: nn.Module) -> None:
    for keep, by, message in (({"macs": 7}, "shapley", "out of range"), ({"macs": 0.5}, "shaply", "did you mean")):
        with pytest.raises(sc.SecateurError, match=message):
            sc.prune(model, 7, keep, by)  # type: ignore[arg-type]


def test_an_interrupt_leaves_the_model_as_it_was(model: nn.Module) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def interrupted(output: Any, target: Any) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sc.prune(model, [(X, Y)], {"macs": 0.5}, loss=interrupted, progress=False)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "form",
    [
        lambda: X,
        lambda: [X],
        lambda: (X, Y),
        lambda: [(X, Y)],
        lambda: [[X, Y]],
        lambda: [((X,), Y)],
        lambda: [{"input": X}],
        lambda: [{"input": X, "labels": Y}],
        lambda: torch.utils.data.TensorDataset(X, Y),
        lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4),
        lambda: (batch for batch in [(X[:3], Y[:3]), (X[3:], Y[3:])]),
    ],
)
def test_the_forms_that_data_may_have(form: Callable[[], Any]) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, input: Tensor) -> Tensor:
            return self.fc2(torch.relu(self.fc1(input)))

    data = form()
    as_keywords = isinstance(data, list) and isinstance(data[0], dict)
    network = sc.trace(Named(), {"input": X} if as_keywords else X)
    assert sc.score(network, data, progress=False)["fc1"].values.shape == (5,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none does not exist; give the folder that `save`"),
        ("a file", "a file is a file; give the folder that `save`"),
        ("empty", r"recipe\.json is missing in .*empty; give the folder that `save`"),
        ("pretrained", "holds a model that `save_pretrained` wrote.* load it by `from_pretrained`"),
    ],
)
def test_a_folder_that_is_no_saved_result_is_named_as_what_it_is(
    model: nn.Module, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "a file").touch()
    for folder in ("empty", "pretrained"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pretrained" / "config.json").write_text("{}")
    with pytest.raises(sc.SecateurError, match=message):
        sc.load(model, tmp_path / name)


@pytest.mark.parametrize("level", [95, 1.0, 0.0, -0.5])
def test_a_level_that_is_no_probability_is_refused(network: sc.Network, level: float) -> None:
    scores = sc.score(network, X, by="l2")
    with pytest.raises(sc.SecateurError, match=r"must lie between 0 and 1; give 0\.95"):
        next(iter(scores.values())).interval(level)
