"""Models that can't be cut: one line that names the module, the operator or the line of code, and a fitting remedy."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import secateur as sc

X = torch.randn(4, 3, 8, 8)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def lazy() -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


def dynamically_quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(body(), {nn.Linear})


def quantization_aware() -> nn.Module:
    model = body().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
        return torch.ao.quantization.prepare_qat(model)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Identity(), torch.jit.script(body()))


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(body(), X)


def faked() -> nn.Module:
    with FakeTensorMode():
        return body()


def on_meta(offloaded: bool) -> nn.Module:
    model = body()
    model[3] = nn.Linear(8 * 36, 5, device="meta")
    if offloaded:
        model[3]._hf_hook = object()
    return model


UNSUPPORTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lazy, r"0 \(LazyConv2d\) is a lazy module that has seen no data.*Run the model on one batch first"),
    "TorchScript within a model": (scripted, r"1 \(RecursiveScriptModule\) is TorchScript.*Give the Python module"),
    "traced": (traced, r"TopLevelTracedModule is TorchScript.*Give the Python module"),
    "fake tensors": (faked, r"0 \(Conv2d\) has fake tensors.*outside of FakeTensorMode"),
    "quantized": (dynamically_quantized, r"3 \(Linear\) is quantized.*Prune the floating-point model"),
    "quantization-aware": (quantization_aware, r"0\.\w+ \(\w+\) is an observer.*Prune before"),
    "meta": (lambda: on_meta(False), r"3 \(Linear\) is on the meta device.*to_empty"),
    "offloaded": (lambda: on_meta(True), r"3 \(Linear\) is offloaded.*remove_hook_from_module"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_kinds_are_refused_with_their_remedy(kind: str) -> None:
    make, message = UNSUPPORTED[kind]
    model = make()
    classes = [type(module) for module in model.modules()]
    with pytest.raises(sc.SecateurError, match=message):
        sc.trace(model, X)
    assert [type(module) for module in model.modules()] == classes


def test_lazy_models_work_before_and_after_their_first_batch(tmp_path: Path) -> None:
    model = lazy()
    with pytest.raises(sc.SecateurError, match="seen no data"):
        sc.prune(model, X, {"macs": 0.6}, by="l1", repair=None, progress=False)
    model(X)
    result = sc.prune(model, X, {"macs": 0.6}, by="l1", repair=None, progress=False)
    assert result.plan.cost.macs < result.plan.dense.macs
    result.save(tmp_path)
    fresh = lazy()
    with pytest.raises(sc.SecateurError, match="Run the model on one batch first"):
        sc.load(fresh, tmp_path)
    fresh(X)
    assert torch.equal(sc.load(fresh, tmp_path)(X), result.model.eval()(X))


def test_loaded_models_are_in_evaluation_mode(tmp_path: Path) -> None:
    fresh = body().train()
    sc.prune(copy.deepcopy(fresh), X, {"macs": 0.6}, by="l1", repair=None, progress=False).save(tmp_path)
    assert not any(module.training for module in sc.load(fresh, tmp_path).modules())
