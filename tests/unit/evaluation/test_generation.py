"""Phases of text generation: what their calls compute, which operators they run, and budgets in their time."""

import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.conversion import as_batches
from secateur.errors import BudgetError
from secateur.evaluation import latency_measurement, measured_latency, operator_calls, timing
from secateur.evaluation.generation import DECODE, PREFILL, GenerationPhase, cached_inputs, generation_phase
from secateur.evaluation.generation_calls import generation_calls
from secateur.evaluation.measured_latency import measure_generation
from secateur.evaluation.operator_calls import OperatorCall
from secateur.evaluation.timing import Stopwatch

pytestmark = untrained_networks

PLAIN: dict[str, Any] = {"by": "l2", "ablation": "zero", "repair": None, "allocation": "uniform", "progress": False}
LENGTH = 7  # longer than the sliding window of the tiny Gemma


def phase_of(model: Any, batch: dict[str, Tensor], name: str) -> GenerationPhase:
    return generation_phase(name, model, as_batches(batch)[0], LENGTH)


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "t5"])
def test_a_token_with_a_cache_is_computed_as_without_one_each_time(name: str) -> None:
    model, batch = tiny_transformer(name, 2)
    phase = phase_of(model, batch, DECODE)
    with torch.no_grad():
        decode, prefill = phase.call(model), phase_of(model, batch, PREFILL).call(model)
        first = decode().logits[:, -1]
        key = "decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"
        tokens = torch.cat([phase.tokens, phase.tokens[:, -1:]], 1)
        whole = model(**{**phase.encoder_inputs, key: tokens}).logits[:, -1]
        assert torch.allclose(first, whole, atol=1e-5)
        assert torch.equal(decode().logits[:, -1], first) and torch.equal(decode().logits[:, -1], first)
        prompt = model(**{**phase.encoder_inputs, key: phase.tokens}).logits[:, -1]
        assert torch.allclose(prefill().logits[:, -1], prompt, atol=1e-5)


def test_layers_run_on_one_token_and_attention_reads_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: Counter[str] = Counter()

    def count(call: OperatorCall) -> float:
        shapes = [tuple(value.shape) for value in call.args if isinstance(value, Tensor)]
        timed[f"{call.target} {shapes}"] += 1
        return 1e-6

    monkeypatch.setenv("SECATEUR_CACHE", "")
    for module in (operator_calls, latency_measurement):
        monkeypatch.setattr(module, "call_seconds", count)
    swept: list[int] = []
    monkeypatch.setattr(
        measured_latency, "sweep_seconds", lambda calls, _, total: swept.append(len(calls)) or total / 2
    )
    model, batch = tiny_transformer("llama", 4)
    network = sc.trace(model, batch)
    phase = phase_of(model, batch, DECODE)
    table = measure_generation(network, as_batches(batch)[0], model, phase, 1.0)
    assert any("scaled_dot_product_attention" in words and f"{LENGTH}, 8)" in words for words in timed)
    linear = [words for words in timed if "linear" in words]
    assert linear and all("(1, 1, " in words for words in linear)
    assert table.dense_seconds == pytest.approx(1.0) and table.other_seconds == 0  # all else is a part of layers
    assert swept == [len(table.layers)]
    bytes_of = {layer.name: layer.weight_bytes for layer in table.layers}
    assert bytes_of == {path: 4 * module.weight.numel() for path, module in model.named_modules()
                        if isinstance(module, nn.Linear)}  # fmt: skip
    assert {layer.name for layer in table.layers} == {
        path for path, module in model.named_modules() if isinstance(module, nn.Linear)
    }


def test_layers_one_after_another_are_timed_in_turn_with_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busier than when the network was timed slows down both, and changes nothing."""
    now, speed = [0.0], [1.0]

    def lasting(seconds: float) -> Callable[[], None]:
        def call() -> None:
            now[0] += seconds * speed[0]
            speed[0] *= 1.01  # other work increases

        return call

    monkeypatch.setattr(timing, "runtime_clock", lambda: lambda: now[0])
    layers = [lasting(0.1), lasting(0.3), lasting(0.2)]
    assert timing.sweep_seconds(layers, lasting(1.0), total=2.0) == pytest.approx(1.2, rel=0.03)


def test_layers_of_an_encoder_take_no_time_while_a_token_is_decoded() -> None:
    model, batch = tiny_transformer("t5", 2)
    decoded = generation_calls(model, phase_of(model, batch, DECODE)).rows
    assert not any(path.startswith("encoder.block") for path in decoded)
    assert "decoder.block.0.layer.1.EncDecAttention.k" not in decoded  # its result is in the cache
    assert {decoded[f"decoder.block.{index}.layer.2.DenseReluDense.wi"] for index in range(2)} == {1}
    prompt = generation_calls(model, phase_of(model, batch, PREFILL)).rows
    assert prompt["decoder.block.0.layer.2.DenseReluDense.wi"] == LENGTH
    assert prompt["encoder.block.0.layer.1.DenseReluDense.wi"] == batch["input_ids"].shape[1]
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("unit", [DECODE, PREFILL])
def test_a_budget_in_the_time_of_generation_is_planned_timed_and_reported(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of parameters stand for times: other work on the machine must not decide what a test says."""
    model, batch = tiny_transformer("llama", 32)
    total = sum(parameter.numel() for parameter in model.parameters())
    phases = []

    def fraction(stopwatch: Stopwatch, small: nn.Module) -> float:
        assert stopwatch.phase is not None
        phases.append((stopwatch.phase.name, stopwatch.phase.length))
        return sum(parameter.numel() for parameter in small.parameters()) / total

    monkeypatch.setattr(Stopwatch, "time_ratio", fraction)

    def entries(call: OperatorCall) -> float:
        return sum(value.numel() for value in call.args if isinstance(value, Tensor)) * 1e-6

    monkeypatch.setattr(Stopwatch, "dense_ms", lambda _: [1.0])
    monkeypatch.setenv("SECATEUR_CACHE", "")
    for module in (operator_calls, latency_measurement):
        monkeypatch.setattr(module, "call_seconds", entries)
    monkeypatch.setattr(measured_latency, "sweep_seconds", lambda calls, *_: 2 * sum(map(entries, calls)))
    kinds = ("neurons", "heads", "residual")
    result = sc.prune(model, batch, {unit: "80%"}, context_length=5, kinds=kinds, **PLAIN)
    assert 0.7 < sum(parameter.numel() for parameter in result.model.parameters()) / total <= 0.82
    assert set(phases) == {(unit, 5)} and result.plan.keep == {unit: 0.8}
    words = "ms for a token, 5 in the cache" if unit == DECODE else "ms for a prompt of 5"
    assert words in str(result.report)
    saved = json.loads(result.report.to_json())["settings"]["generation"]
    assert saved["phase"] == unit and saved["length"] == 5 and saved["dense"]["median"] > 0


class NoModel(nn.Sequential):
    """A network of no library."""


def test_what_can_not_be_timed_is_refused_before_the_model_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.pruning.request.trace", lambda *_, **__: pytest.fail("traced"))
    plain, x = NoModel(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(32, 4)
    with pytest.raises(BudgetError, match="NoModel is no model of the transformers library that generates text"):
        sc.prune(plain, x, {DECODE: 0.5}, **PLAIN)
    model, batch = tiny_transformer("gpt2", 16)
    with pytest.raises(BudgetError, match=r"with 80 tokens: .*; give context_length="):  # 64 positions
        sc.prune(model, batch, {DECODE: 0.5}, context_length=80, **PLAIN)
    with pytest.raises(BudgetError, match="gives the time twice"):
        sc.prune(model, batch, {DECODE: 0.5, PREFILL: 0.5}, **PLAIN)
    with pytest.raises(BudgetError, match="above 0 and at most 1"):
        sc.prune(model, batch, {DECODE: 2}, **PLAIN)
    with pytest.raises(BudgetError, match="leave as_program=True"):
        sc.prune(model, batch, {PREFILL: 0.5}, as_program=True, **PLAIN)


def test_plan_needs_the_model_for_the_time_of_generation() -> None:
    model, batch = tiny_transformer("llama", 16)
    network = sc.trace(model, batch)
    with pytest.raises(BudgetError, match="give model="):
        sc.plan(network, sc.score(network, by="l2"), {DECODE: 0.5}, data=batch)


@pytest.mark.parametrize("unit", ["bytes", "macs"])
def test_units_of_several_kinds_share_one_budget(unit: str) -> None:
    model, batch = tiny_transformer("llama", 32)
    kinds = ["neurons", "heads", "residual", "blocks"]
    result = sc.prune(model, batch, {unit: 0.6}, kinds=kinds, by="l2", repair=None, progress=False)
    cost, dense = result.plan.cost, result.plan.dense
    assert 0.45 * getattr(dense, unit) < getattr(cost, unit) <= 0.6 * getattr(dense, unit)
    assert cost.params == sum(parameter.numel() for parameter in result.model.parameters())
    traced = sc.trace(result.model, batch)
    assert traced.cost().macs == cost.macs  # of the small model, counted anew
    assert {result.plan.network[name].kind for name in result.plan.kept} <= set(kinds)


@pytest.mark.parametrize("returned", ["cache", "past_key_values"])
def test_a_cache_is_handed_on_by_the_name_that_the_model_takes_it_by(returned: str) -> None:
    class New(nn.Module):
        def forward(self, input_ids: Tensor, cache: object = None) -> None: ...

    class Old(nn.Module):
        def forward(self, input_ids: Tensor, past_key_values: object = None) -> None: ...

    output = SimpleNamespace(**{returned: "keys and values"})
    assert cached_inputs(New(), output) == {"cache": "keys and values"}
    assert cached_inputs(Old(), output) == {"past_key_values": "keys and values"}
    assert cached_inputs(New(), SimpleNamespace(**{returned: None})) == {}
