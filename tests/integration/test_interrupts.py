"""Interrupts at stages of `prune`: the model, its gradients, hooks and modes, and random numbers are as they were."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks
X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 4


class Interruption:
    """A forward hook that interrupts one of the calls of its module."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.call:
            raise KeyboardInterrupt


def trained_in_part() -> nn.Module:
    """A network in mixed modes, with gradients, of which a layer is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 4)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(X).sum().backward()
    return model


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "values": {name: tensor.clone() for name, tensor in model.state_dict(keep_vars=False).items()},
        "memory": [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "frozen": [parameter.requires_grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [
            (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "random numbers": torch.get_rng_state(),
        "threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
    }


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    values, now = before.pop("values"), after.pop("values")
    assert all(torch.equal(values[name], now[name]) for name in values)
    for one, other in zip(before.pop("gradients"), after.pop("gradients"), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert torch.equal(before.pop("random numbers"), after.pop("random numbers"))
    assert before == after


def prune(model: nn.Module, **options: Any) -> sc.Result:
    return sc.prune(
        model, (X, Y), {"params": 0.7}, by="taylor", repair=["refit", "adapt", "tune"], tuning={"steps": 2},
        progress=False, **options,
    )  # fmt: skip


def calls_of_whole_run() -> int:
    model, counter = trained_in_part(), Interruption(-1)
    model[2].register_forward_hook(counter)
    prune(model)
    return counter.calls


def test_an_interrupt_at_any_stage_leaves_the_model_as_it_was() -> None:
    calls = calls_of_whole_run()
    assert calls > 4
    for call in sorted({1, 2, calls // 3, calls // 2, calls - 1, calls}):
        model = trained_in_part()
        model[2].register_forward_hook(Interruption(call))
        before, examples = state_of(model), X.clone()
        with pytest.raises(KeyboardInterrupt):
            prune(model)
        check_same(before, state_of(model))
        assert torch.equal(X, examples)


def interrupted_metric(outputs: Any, targets: Any) -> float:
    raise KeyboardInterrupt


def interrupted_loss(output: Tensor, target: Tensor) -> Tensor:
    if output.requires_grad:
        raise KeyboardInterrupt
    losses: Tensor = nn.functional.cross_entropy(output, target, reduction="none")
    return losses


def interrupted_repair(*_: Any) -> None:
    raise KeyboardInterrupt


INTERRUPTED: dict[str, Callable[..., Any]] = {
    "metric": lambda model: prune(model, metric=interrupted_metric),
    "loss": lambda model: prune(model, loss=interrupted_loss),
    "repair": lambda model: sc.prune(model, X, {"params": 0.7}, by="l2", repair=interrupted_repair, progress=False),
}


@pytest.mark.parametrize("function", INTERRUPTED)
def test_an_interrupt_in_the_users_own_functions_leaves_the_model_as_it_was(function: str) -> None:
    model = trained_in_part()
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        INTERRUPTED[function](model)
    check_same(before, state_of(model))
