"""Networks and layers in onnxruntime: the same results, times under a key of their own, errors with their remedy."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.data.conversion import as_batches
from secateur.evaluation import operator_calls
from secateur.evaluation.measured_latency import measure_latency
from secateur.evaluation.onnx_layers import layer_model
from secateur.evaluation.onnx_times import onnx_layer_times
from secateur.evaluation.runtimes import export_onnx, kernel_times, new_session, repeatable_call
from secateur.evaluation.smaller_layers import smaller_call, weights_of
from secateur.evaluation.timing import Stopwatch
from secateur.graph.program import OpOverride
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.masking.operands import operand

pytestmark = untrained_networks


class Called(nn.Module):
    """Takes inputs by place and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, scale: Tensor, shift: Tensor) -> Tensor:
        result: Tensor = self.layer(x) * scale - shift
        return result


class Unexportable(nn.Module):
    """Uses an operator that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layers(x))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, groups=24), nn.Conv2d(24, 20, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(20 * 36, 5),
    ).eval()  # fmt: skip


def test_a_model_gives_the_same_in_both_runtimes() -> None:
    model, x = Called().eval(), torch.randn(2, 4)
    batch = Batch((x,), {"shift": torch.randn(3), "scale": torch.randn(2, 1)})
    with torch.no_grad():
        expected = repeatable_call(model, batch)()
        (output,) = repeatable_call(model, batch, "onnxruntime")()
    assert np.allclose(output, expected.numpy(), atol=1e-6)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "stride and dilation": (nn.Conv2d(6, 8, 3, stride=2, padding=1, dilation=2), (2, 6, 9, 9)),
    "padding of the same size": (nn.Conv2d(6, 8, (4, 3), padding="same", bias=False), (2, 6, 9, 9)),
    "no padding by name": (nn.Conv1d(6, 8, 3, padding="valid"), (2, 6, 9)),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8, padding=(1, 0)), (2, 8, 9, 9)),
    "groups": (nn.Conv1d(8, 12, 3, groups=2), (2, 8, 9)),
    "volume": (nn.Conv3d(4, 6, 2), (2, 4, 5, 5, 5)),
    "rows": (nn.Linear(6, 8), (2, 6)),
    "sequences": (nn.Linear(6, 8), (2, 5, 6)),
    "sequences without a bias": (nn.Linear(6, 8, bias=False), (2, 5, 6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_the_model_of_a_layer_computes_what_it_computes(name: str) -> None:
    """Whole and with some of its channels, against torch's own operator."""
    module, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(module, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).eval()
    model(x)
    network = sc.trace(model, x)
    layer = next(layer for layer in layers_of(network) if layer.name == "0")
    seen: list[tuple[LinearLayer, Any, tuple[Any, ...], dict[str, Any]]] = []

    def handler(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append((layer, target, args, kwargs))
        return target(*args, **kwargs)

    handlers: dict[Any, OpOverride] = {layer.node: handler}
    with torch.no_grad():
        network.program.forward(network.example, handlers)
        _, target, args, kwargs = seen[0]
        for read, outputs in ((len(layer.inputs), len(layer.outputs)), (4, len(layer.outputs) // 2)):
            if layer.groups == 2 and read == 4:
                continue
            args, kwargs = smaller_call(layer, args, kwargs, read, outputs)
            inputs, tensors = operand(layer, args, kwargs), list(weights_of(layer, args, kwargs).values())
            bias = next((tensor for tensor in tensors if tensor.dim() == 1), None)
            content = layer_model(layer, inputs, tensors[0], bias)
            (output,) = new_session(content).run(None, {"x": inputs.contiguous().numpy()})
            assert np.allclose(output, target(*args, **kwargs).numpy(), atol=1e-5)


def test_times_in_onnxruntime_have_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    model, x = convolutions(), torch.randn(2, 3, 8, 8)
    network, batch = sc.trace(model, x), as_batches(x)[0]
    eager = measure_latency(network, batch)
    table = measure_latency(network, batch, "onnxruntime", total=1.0)
    assert len(list(tmp_path.glob("times-*.json"))) == 2
    assert [layer.name for layer in table.layers] == [layer.name for layer in eager.layers]
    assert table.dense_seconds == pytest.approx(1.0)
    assert [layer.beside > 0 for layer in table.layers] == [True, False, True, False]
    assert all(float(layer.seconds.min()) > 0 for layer in table.layers)
    monkeypatch.setattr(operator_calls, "layer_seconds", lambda *_: pytest.fail("measured again"))
    again = measure_latency(network, batch, "onnxruntime", total=1.0)
    assert all(torch.equal(a.seconds, b.seconds) for a, b in zip(table.layers, again.layers, strict=True))


def test_time_goes_to_the_modules_that_it_belongs_to() -> None:
    model, x = convolutions(), torch.randn(2, 3, 8, 8)
    small = sc.cut(model, sc.plan(network := sc.trace(model, x), sc.score(network, by="l2"), {"macs": 0.5}))
    exported = [export_onnx(exported_model, as_batches(x)[0]) for exported_model in (model, small.eval())]
    times = onnx_layer_times(exported[0], exported[1], [name for name, _ in model.named_modules()])
    by_name = {time.name: time for time in times}
    layers = {"0", "3", "4", "7"}
    assert layers <= set(by_name) <= {*layers, "5", "6", ""}
    assert all(by_name[name].dense > 0 and by_name[name].pruned > 0 for name in layers)


def test_kernels_are_timed_run_by_run() -> None:
    exported = export_onnx(nn.Linear(4, 3).eval(), as_batches(torch.randn(2, 4))[0])
    times = kernel_times(exported.content, exported.inputs, 4)
    assert [len(seconds) for seconds in times.values()] == [4] * len(times)
    assert {operator for _, operator in times} == {"Gemm"}


def test_prune_for_half_of_the_time_in_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = convolutions(), torch.randn(40, 3, 8, 8)
    monkeypatch.setattr(operator_calls, "layer_seconds", lambda layer, x, weight, bias: weight.numel() * 1e-9)
    monkeypatch.setattr(Stopwatch, "dense_ms", lambda _: [sum(p.numel() for p in model.parameters()) * 1e-6])

    def time_ratio(self: Stopwatch, small: nn.Module) -> float:
        """Parameters stand for time: other work on the machine must not decide what a test says."""
        assert self.runtime == "onnxruntime"
        return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())

    monkeypatch.setattr(Stopwatch, "time_ratio", time_ratio)
    result = sc.prune(
        model, x, {"latency": 0.7}, by="l2", target="onnxruntime", allocation="uniform", repair=None, progress=False
    )
    assert result.report.settings["runtime"] == "onnxruntime"
    assert re.search(r"\bthreads?, in onnxruntime", str(result.report))
    assert {layer["name"] for layer in result.report.settings["layers"]} >= {"0", "3", "4", "7"}


def test_without_onnxruntime_an_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)), torch.randn(40, 6)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    options: dict[str, Any] = {"by": "l2", "target": "onnxruntime", "repair": None, "progress": False}
    with pytest.raises(
        sc.SecateurError, match=r"needs the package onnxruntime .*pip install 'secateur\[onnxruntime\]'"
    ):
        sc.prune(model, x, {"speedup": 2}, **options)
    counted = sc.prune(model, x, {"macs": 0.5}, **options)  # needs no time to be measured
    assert counted.report.settings["runtime"] == "eager"


def test_a_model_that_onnx_can_not_say() -> None:
    model, x = Unexportable().eval(), torch.randn(40, 6)
    options: dict[str, Any] = {"by": "l2", "target": "onnxruntime", "repair": None, "progress": False}
    with pytest.raises(sc.SecateurError, match=r"Unexportable can't be timed by onnxruntime .*give target='cpu'"):
        sc.prune(model, x, {"latency": 0.5}, **options)
    counted = sc.prune(model, x, {"macs": 0.5}, **options)
    assert any("times are those of torch's own kernels" in note for note in counted.report.settings["notes"])
