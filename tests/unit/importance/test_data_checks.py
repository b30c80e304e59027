"""Faults of data and losses are reported before anything is traced, and nothing of the user's is changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from checked_examples import CLASSES, EXAMPLES, CheckedNetwork, prune_quickly
from expected_warnings import untrained_networks

pytestmark = untrained_networks


def with_nan(model: CheckedNetwork, value: float = float("nan")) -> CheckedNetwork:
    with torch.no_grad():
        model.first.weight[2, 1] = value
    return model


UNUSABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "double precision": (
        lambda: prune_quickly(data=EXAMPLES.double()),
        r"float64.*\n.*parameters are torch.float32.*x.to\(torch",
    ),
    "integers": (lambda: prune_quickly(data=EXAMPLES.long()), r"int64.*\n.*parameters are torch.float32"),
    "half precision": (lambda: prune_quickly(data=EXAMPLES.half()), r"float16.*\n.*parameters are torch.float32"),
    "a model in double precision": (lambda: prune_quickly(CheckedNetwork().double()), r"x.to\(torch.float64\)"),
    "trace in double precision": (
        lambda: sc.trace(CheckedNetwork(), EXAMPLES.double()),
        "the example: CheckedNetwork refuses inputs",
    ),
    "repair in double precision": (
        lambda: sc.repair(CheckedNetwork(), CheckedNetwork(), plan(), EXAMPLES.double()),
        "batch 0 of data: CheckedNetwork refuses",
    ),
    "another width": (
        lambda: prune_quickly(data=[EXAMPLES, torch.randn(4, 5)]),
        r"batch 1 of data: CheckedNetwork refuses inputs \(4, 5\)",
    ),
    "a test of another width": (
        lambda: prune_quickly(test=torch.randn(5, 4)),
        r"batch 0 of test: CheckedNetwork refuses inputs \(5, 4\)",
    ),
    "compare on another width": (
        lambda: sc.compare(CheckedNetwork(), EXAMPLES, by=("l2",), test=torch.randn(5, 4)),
        "batch 0 of test: CheckedNetwork refuses",
    ),
    "score of another width": (
        lambda: sc.score(sc.trace(CheckedNetwork(), EXAMPLES[:2]), [EXAMPLES, torch.randn(4, 5)], progress=False),
        r"batch 1 of data: .*\(4, 5\)",
    ),
    "no batch axis": (lambda: prune_quickly(data=EXAMPLES[0]), r"shape \(3,\) for 6 examples.*x.unsqueeze\(0\)"),
    "a list of examples": (lambda: prune_quickly(data=list(EXAMPLES)), r"batch 0 of data.*x.unsqueeze\(0\)"),
    "meta tensors": (lambda: prune_quickly(data=EXAMPLES.to("meta")), "batch 0 is a tensor on the meta device"),
    "sparse tensors": (
        lambda: prune_quickly(data=EXAMPLES.to_sparse()),
        "batch 0 is a sparse tensor; give tensor.to_dense",
    ),
    "nested tensors": (
        lambda: prune_quickly(data=[torch.nested.nested_tensor([EXAMPLES, EXAMPLES[:3]])]),
        "nested tensor.*pad it",
    ),
    "packed sequences": (
        lambda: prune_quickly(data=[(nn.utils.rnn.pack_sequence([EXAMPLES, EXAMPLES]), CLASSES)]),
        "a packed sequence can't be taken apart.*pad_packed_sequence",
    ),
    "a packed sequence alone": (
        lambda: prune_quickly(data=[nn.utils.rnn.pack_sequence([EXAMPLES, EXAMPLES])]),
        "a packed sequence can't be taken apart",
    ),
    "NaN in weights": (
        lambda: prune_quickly(with_nan(CheckedNetwork())),
        r"first.weight of this CheckedNetwork has NaN in 1 of 72 entries",
    ),
    "infinity in weights": (
        lambda: prune_quickly(with_nan(CheckedNetwork(), -float("inf"))),
        r"first.weight of this CheckedNetwork has infinity in 1 of 72 entries",
    ),
    "trace of NaN": (
        lambda: sc.trace(with_nan(CheckedNetwork()), EXAMPLES),
        r"first.weight of this CheckedNetwork has NaN",
    ),
    "repair of NaN": (
        lambda: sc.repair(with_nan(CheckedNetwork()), CheckedNetwork(), plan(), EXAMPLES),
        r"first.weight of this CheckedNetwork has NaN",
    ),
    "NaN in outputs": (lambda: prune_quickly(CheckedNetwork(lambda y: y * 0 / (y * 0))), "output of shape .* has NaN"),
    "no output": (lambda: prune_quickly(CheckedNetwork(lambda y: None)), "the network returns None"),
    "trace of no output": (lambda: sc.trace(CheckedNetwork(lambda y: None), EXAMPLES), "the network returns None"),
    "labels out of range": (
        lambda: prune_quickly(
            data=[(EXAMPLES, CLASSES), (EXAMPLES, torch.where(CLASSES == 0, 255, CLASSES))], by="taylor"
        ),
        r"label 255 is out of range: the network has 3 classes.*-100.*or give loss=",
    ),
    "labels of one output": (
        lambda: prune_quickly(CheckedNetwork(lambda y: y[:, :1]), [(EXAMPLES, CLASSES > 0)], by="taylor"),
        "for one output give",
    ),
    "one-hot integers": (
        lambda: prune_quickly(data=[(EXAMPLES, F.one_hot(CLASSES))], by="taylor"),
        r"class numbers are target.argmax\(1\)",
    ),
    "labels as text": (
        lambda: prune_quickly(data=[(x, "cat") for x in EXAMPLES], by="taylor"),
        "targets are texts, where .*give loss=",
    ),
    "boxes": (
        lambda: prune_quickly(data=[(EXAMPLES, [{"box": EXAMPLES[:1]}] * 40)], by="taylor"),
        "targets are a list.*give loss=",
    ),
    "several heads": (
        lambda: prune_quickly(data=[(EXAMPLES, {"a": CLASSES, "b": CLASSES})], by="shapley"),
        "targets are a dict.*give loss=",
    ),
    "boxes and a bound": (
        lambda: prune_quickly(data=[(EXAMPLES, {"a": CLASSES})], keep={"accuracy": -0.1}),
        "targets are a dict.*loss=",
    ),
    "a bound on the accuracy of measurements": (
        lambda: prune_quickly(data=[(EXAMPLES, torch.randn(40, 3))], keep={"accuracy": -0.1}),
        "a bound on the accuracy needs class numbers, but the targets of batch 0 are of torch.float32",
    ),
    "a loss that fails": (
        lambda: prune_quickly(data=[(EXAMPLES, {"a": CLASSES})], loss=lambda output, target: target["b"]),
        "loss= fails for a Tensor as the output and a dict as the target: KeyError: 'b'",
    ),
    "a loss of one number": (lambda: prune_quickly(loss=lambda output, target: output.sum()), "one value per example"),
    "a loss that gives nothing": (lambda: prune_quickly(loss=lambda output, target: None), "gave NoneType"),
    "a loss in numpy": (lambda: prune_quickly(loss=lambda output, target: output.sum(1).numpy()), "gave ndarray"),
    "a loss of NaN": (
        lambda: prune_quickly(loss=lambda output, target: output.sum(1) * float("nan")),
        "is NaN or infinite",
    ),
    "a loss without gradients": (
        lambda: prune_quickly(by="taylor", loss=lambda output, target: output.detach().sum(1)),
        r"loss= has no gradient.*leave out .detach\(\)",
    ),
    "targets that can't be split": (
        lambda: prune_quickly(
            data=[(EXAMPLES, {"boxes": torch.zeros(90, 4)})], loss=lambda output, target: output.square().sum(1)
        ),
        "no entry for each example",
    ),
}


def plan() -> sc.Plan:
    network = sc.trace(CheckedNetwork(), EXAMPLES[:2])
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
