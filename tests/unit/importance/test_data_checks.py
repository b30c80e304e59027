"""Faults of data and losses are reported before anything is traced, and nothing of the user's is changed."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(40) % 3


class Net(nn.Module):
    """A network with any last step."""

    def __init__(self, last: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 3), last
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(F.relu(self.first(x))))


def with_nan(model: Net, value: float = float("nan")) -> Net:
    with torch.no_grad():
        model.first.weight[2, 1] = value
    return model


def prune(model: nn.Module | None = None, data: Any = X, **options: Any) -> sc.Result:
    options = {"keep": {"units": 0.5}, "by": "l2", "progress": False, **options}
    return sc.prune(Net() if model is None else model, data, **options)


UNUSABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "double precision": (lambda: prune(data=X.double()), r"float64.*\n.*parameters are torch.float32.*x.to\(torch"),
    "integers": (lambda: prune(data=X.long()), r"int64.*\n.*parameters are torch.float32"),
    "half precision": (lambda: prune(data=X.half()), r"float16.*\n.*parameters are torch.float32"),
    "a model in double precision": (lambda: prune(Net().double()), r"x.to\(torch.float64\)"),
    "trace in double precision": (lambda: sc.trace(Net(), X.double()), "the example: Net refuses inputs"),
    "repair in double precision": (lambda: sc.repair(Net(), Net(), plan(), X.double()), "batch 0 of data: Net refuses"),
    "another width": (lambda: prune(data=[X, torch.randn(4, 5)]), r"batch 1 of data: Net refuses inputs \(4, 5\)"),
    "a test of another width": (lambda: prune(test=torch.randn(5, 4)), r"batch 0 of test: Net refuses inputs \(5, 4\)"),
    "compare on another width": (
        lambda: sc.compare(Net(), X, by=("l2",), test=torch.randn(5, 4)),
        "batch 0 of test: Net refuses",
    ),
    "score of another width": (
        lambda: sc.score(sc.trace(Net(), X[:2]), [X, torch.randn(4, 5)], progress=False),
        r"batch 1 of data: .*\(4, 5\)",
    ),
    "no batch axis": (lambda: prune(data=X[0]), r"shape \(3,\) for 6 examples.*x.unsqueeze\(0\)"),
    "a list of examples": (lambda: prune(data=list(X)), r"batch 0 of data.*x.unsqueeze\(0\)"),
    "meta tensors": (lambda: prune(data=X.to("meta")), "batch 0 is a tensor on the meta device"),
    "sparse tensors": (lambda: prune(data=X.to_sparse()), "batch 0 is a sparse tensor; give tensor.to_dense"),
    "nested tensors": (lambda: prune(data=[torch.nested.nested_tensor([X, X[:3]])]), "nested tensor.*pad it"),
    "packed sequences": (
        lambda: prune(data=[(nn.utils.rnn.pack_sequence([X, X]), Y)]),
        "a packed sequence can't be taken apart.*pad_packed_sequence",
    ),
    "a packed sequence alone": (
        lambda: prune(data=[nn.utils.rnn.pack_sequence([X, X])]),
        "a packed sequence can't be taken apart",
    ),
    "NaN in weights": (lambda: prune(with_nan(Net())), r"first.weight of this Net has NaN in 1 of 72 entries"),
    "infinity in weights": (
        lambda: prune(with_nan(Net(), -float("inf"))),
        r"first.weight of this Net has infinity in 1 of 72 entries",
    ),
    "trace of NaN": (lambda: sc.trace(with_nan(Net()), X), r"first.weight of this Net has NaN"),
    "repair of NaN": (lambda: sc.repair(with_nan(Net()), Net(), plan(), X), r"first.weight of this Net has NaN"),
    "NaN in outputs": (lambda: prune(Net(lambda y: y * 0 / (y * 0))), "output of shape .* has NaN"),
    "no output": (lambda: prune(Net(lambda y: None)), "the network returns None"),
    "trace of no output": (lambda: sc.trace(Net(lambda y: None), X), "the network returns None"),
    "labels out of range": (
        lambda: prune(data=[(X, Y), (X, torch.where(Y == 0, 255, Y))], by="taylor"),
        r"label 255 is out of range: the network has 3 classes.*-100.*or give loss=",
    ),
    "labels of one output": (lambda: prune(Net(lambda y: y[:, :1]), [(X, Y > 0)], by="taylor"), "for one output give"),
    "one-hot integers": (lambda: prune(data=[(X, F.one_hot(Y))], by="taylor"), r"class numbers are target.argmax\(1\)"),
    "labels as text": (
        lambda: prune(data=[(x, "cat") for x in X], by="taylor"),
        "targets are texts, where .*give loss=",
    ),
    "boxes": (lambda: prune(data=[(X, [{"box": X[:1]}] * 40)], by="taylor"), "targets are a list.*give loss="),
    "several heads": (lambda: prune(data=[(X, {"a": Y, "b": Y})], by="shapley"), "targets are a dict.*give loss="),
    "boxes and a bound": (lambda: prune(data=[(X, {"a": Y})], keep={"accuracy": -0.1}), "targets are a dict.*loss="),
    "a bound on the accuracy of measurements": (
        lambda: prune(data=[(X, torch.randn(40, 3))], keep={"accuracy": -0.1}),
        "a bound on the accuracy needs class numbers, but the targets of batch 0 are of torch.float32",
    ),
    "a loss that fails": (
        lambda: prune(data=[(X, {"a": Y})], loss=lambda output, target: target["b"]),
        "loss= fails for a Tensor as the output and a dict as the target: KeyError: 'b'",
    ),
    "a loss of one number": (lambda: prune(loss=lambda output, target: output.sum()), "one value per example"),
    "a loss that gives nothing": (lambda: prune(loss=lambda output, target: None), "gave NoneType"),
    "a loss in numpy": (lambda: prune(loss=lambda output, target: output.sum(1).numpy()), "gave ndarray"),
    "a loss of NaN": (lambda: prune(loss=lambda output, target: output.sum(1) * float("nan")), "is NaN or infinite"),
    "a loss without gradients": (
        lambda: prune(by="taylor", loss=lambda output, target: output.detach().sum(1)),
        r"loss= has no gradient.*leave out .detach\(\)",
    ),
    "targets that can't be split": (
        lambda: prune(data=[(X, {"boxes": torch.zeros(90, 4)})], loss=lambda output, target: output.square().sum(1)),
        "no entry for each example",
    ),
}


def plan() -> sc.Plan:
    network = sc.trace(Net(), X[:2])
    return sc.plan(network, sc.score(network, by="l2"), {"units": 0.5})


prototype_of_nested_tensors = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")


@prototype_of_nested_tensors
@pytest.mark.parametrize("case", UNUSABLE)
def test_what_can_not_be_used_is_refused_with_its_remedy(case: str) -> None:
    call, message = UNUSABLE[case]
    with pytest.raises(sc.SecateurError, match=message):
        call()


@prototype_of_nested_tensors
@pytest.mark.parametrize("case", [case for case in UNUSABLE if case not in ("trace in double precision",)])
def test_it_is_refused_before_the_network_is_traced(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not UNUSABLE[case][0].__code__.co_names[0].startswith("prune"):
        pytest.skip("traces by itself")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was traced")

    monkeypatch.setattr("secateur.pruning.request.trace", never)
    with pytest.raises(sc.SecateurError):
        UNUSABLE[case][0]()


USABLE: dict[str, Callable[[], Any]] = {
    "labels of 32 bits": lambda: (X, Y.int()),
    "labels of 16 bits": lambda: (X, Y.short()),
    "labels of 8 bits": lambda: (X, Y.to(torch.uint8)),
    "a list of labels": lambda: [(X, Y.tolist())],
}


@pytest.mark.parametrize("kind", USABLE)
@pytest.mark.parametrize("by", ["obs", "taylor"])
def test_labels_of_any_integer_type_are_class_numbers(kind: str, by: str) -> None:
    expected, result = (prune(data=data, by=by) for data in ((X, Y), USABLE[kind]()))
    assert result.report.dense.loss == pytest.approx(expected.report.dense.loss)
    assert result.report.dense.accuracy == expected.report.dense.accuracy
    assert all(torch.equal(result.plan.kept[name], expected.plan.kept[name]) for name in expected.plan.kept)


def test_truth_values_are_class_numbers() -> None:
    model = Net(lambda y: y[:, :2])
    as_numbers, as_truth = (prune(model, [(X, labels)], by="taylor") for labels in ((Y > 0).long(), Y > 0))
    assert as_truth.report.dense.accuracy == as_numbers.report.dense.accuracy
    assert as_truth.report.dense.loss == as_numbers.report.dense.loss


@pytest.mark.parametrize("target", [[{"box": X[:1]}] * 40, {"a": Y, "b": X}, ["cat"] * 40, [Y, None], Y[:7], Y + 200])
def test_targets_that_nothing_needs_are_left_out_with_a_warning(target: Any) -> None:
    with pytest.warns(UserWarning, match="targets are left out, as no criterion needs them"):
        result = prune(data=[(X, target)], by="obs")
    expected = prune(data=[X], by="obs")
    assert torch.equal(result.model.first.weight, expected.model.first.weight)
    assert result.report.dense.loss == expected.report.dense.loss


def test_one_hot_labels_are_named() -> None:
    one_hot = F.one_hot(Y).float()
    with pytest.warns(UserWarning, match=r"look like one-hot labels.*target.argmax\(1\)"):
        sc.score(sc.trace(Net(), X[:2]), [(X, one_hot)], by="taylor", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.score(sc.trace(Net(), X[:2]), [(X, one_hot * 0.9)], by="taylor", progress=False)


def test_tune_does_without_targets_of_another_kind() -> None:
    data = [(X, torch.randn(40, 7))]
    with pytest.warns(UserWarning, match="tune trains without targets: targets have shape"):
        prune(data=data, loss=lambda output, target: output.square().sum(1), repair="tune", tuning={"steps": 2})


class Writing(nn.Module):
    """A network whose forward writes to what is not its own."""

    def __init__(self, to: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.to = nn.Linear(6, 12), nn.Linear(12, 3), to
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.to == "input":
            F.relu(x, inplace=True)
        if self.to == "parameter":
            with torch.no_grad():
                self.first.weight.mul_(0.9)
        if self.to == "data":
            self.first.weight.data.mul_(0.9)
        if self.to == "memory":
            self.first.weight.data = torch.renorm(self.first.weight.data, 2, 0, 0.3)
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


@pytest.mark.parametrize("to", ["input", "parameter", "data", "memory"])
def test_what_a_forward_writes_to_is_left_as_it_was(to: str) -> None:
    model, x = Writing(to), X.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    memory = model.first.weight.data_ptr()
    try:
        result = prune(model, [(x, Y)], by="obs", repair=["refit", "tune"], tuning={"steps": 2})
        sc.compare(model, x, by=("taylor", "l2"), keep={"units": 0.5}, progress=False)
        sc.repair(sc.cut(model, result.plan), model, result.plan, x, progress=False)
    except sc.SecateurError:
        assert to in ("data", "memory")  # torch can't export these
    assert torch.equal(x, X)
    assert model.first.weight.data_ptr() == memory
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("mode", "by"), [(torch.no_grad, "taylor"), (torch.inference_mode, "obs"), (torch.inference_mode, "shapley")]
)
def test_the_callers_mode_changes_nothing(mode: Any, by: str) -> None:
    model = Net()
    expected = prune(model, [(X, Y)], by=by)
    with mode():
        result = prune(model, [(X.clone(), Y.clone())], by=by)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), expected.model.parameters(), strict=True))
    result.model(X).sum().backward()
