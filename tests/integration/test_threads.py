"""Threads, nested calls and forked processes: the same results, and a process that is as it was."""

import copy
import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo_config
from torch.nn.modules import transformer

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.utils.process_lock import exclusive

pytestmark = untrained_networks

EXAMPLES = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


def pruned(model: nn.Module) -> dict[str, list[int]]:
    plan = sc.prune(model, EXAMPLES, {"units": 0.5}, by="l2", allocation="uniform", progress=False).plan
    return {name: units.tolist() for name, units in plan.kept.items()}


def switches() -> dict[str, Any]:
    return {
        "fast path of attention": torch.backends.mha.get_fastpath_enabled(),
        "causal masks": transformer._detect_is_causal_mask,
        "oneDNN": torch.backends.mkldnn.enabled,
        "cache of shapes": dynamo_config.fake_tensor_cache_enabled,
        "lstm": dict(torch.ops.aten.lstm.input.py_kernels),
        "random state": torch.get_rng_state().tolist(),
    }


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as failure:  # noqa: BLE001 shown by the assertion
            results[index] = failure

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("shared", [False, True], ids=["two models", "one model"])
def test_threads_prune_as_one_does(shared: bool) -> None:
    expected = pruned(linear_stack(6, 12, 10, 3))
    first = linear_stack(6, 12, 10, 3)
    models = [first, first if shared else linear_stack(6, 12, 10, 3), linear_stack(6, 12, 10, 3)]
    weights = [copy.deepcopy(model.state_dict()) for model in models]
    before = switches()
    assert in_threads(*(lambda model=model: pruned(model) for model in models)) == [expected] * 3
    assert switches() == before
    for model, state in zip(models, weights, strict=True):
        assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_loss_may_call_the_library_again() -> None:
    sizes = []

    def loss(output: Tensor, target: Any) -> Tensor:
        if not sizes:
            sizes.append(sc.trace(linear_stack(6, 12, 10, 3), EXAMPLES[:2]).units)
        return output.square().sum(1)

    sc.score(sc.trace(linear_stack(6, 12, 10, 3), EXAMPLES[:2]), EXAMPLES, by="taylor", loss=loss, progress=False)
    assert sizes == [22]


def enters(connection: Any) -> None:
    with exclusive():
        connection.send("entered")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_is_forked_meanwhile_does_not_wait_for_ever() -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive():
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=enters, args=(there,))
    child.start()
    try:
        assert here.poll(20)
    finally:
        child.kill()
        child.join()
        leave.set()
        holder.join()
