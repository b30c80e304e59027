"""Models as other libraries give them: caches among outputs, inputs by any keyword, outputs of unknown classes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.evaluation.generation import cached_inputs
from secateur.graph.export import export_program

IDS = torch.randint(3, 60, (4, 9), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}


def llama() -> tuple[Any, dict[str, Tensor]]:
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=48, num_key_value_heads=2, **SIZES)
    return transformers.LlamaForCausalLM(config), {"input_ids": IDS}


def t5() -> tuple[Any, dict[str, Tensor]]:
    config = transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    config.decoder_start_token_id = 0
    return transformers.T5ForConditionalGeneration(config), {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]}


@pytest.mark.parametrize("make", [llama, t5])
def test_decoders_with_their_default_configuration(make: Callable[[], tuple[Any, dict[str, Tensor]]]) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    configuration = model.config.to_dict()
    assert configuration["use_cache"] or model.config.use_cache
    result = sc.prune(model, [inputs], {"params": 0.85}, by="l1", repair=None, progress=False)
    assert model.config.to_dict() == configuration
    assert "forward" not in vars(model)
    assert {"neurons", "heads"} <= {group.kind for group in result.plan.network.groups}
    prompt = {"inputs": IDS[:1], "max_new_tokens": 4, "do_sample": False}
    cached, plain = (result.model.generate(use_cache=cache, **prompt) for cache in (True, False))
    assert torch.equal(cached, plain)
    assert cached_inputs(result.model, result.model(**inputs, use_cache=True))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None, *, use_cache: bool = True) -> Any:
        y = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        y = y if scale is None else y * scale
        return (y, Cache(y)) if use_cache else (y,)


class Cache:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Wrapper(nn.Module):
    """A forward as adapters and training libraries write it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


X, SCALE = torch.randn(16, 6), torch.rand(16, 1)


@pytest.mark.parametrize(
    "data", [[X], [{"x": X}], [{"x": X, "scale": SCALE}], [{"scale": SCALE, "x": X}], [((X, SCALE), None)]]
)
@untrained_networks
def test_inputs_of_forwards_that_take_any(data: Any) -> None:
    model = Wrapper(Wrapper(Inner()))
    result = sc.prune(model, data, {"params": 0.7}, progress=False)
    assert {group.name for group in result.plan.network.groups} == {"inner.inner.a", "inner.inner.b"}
    assert result.plan.network.program.batched is not None
    assert isinstance(result.model(X)[1], Cache)


@dataclass
class Prediction:
    logits: Tensor
    cache: Any


class Predicting(Inner):
    def forward(self, x: Tensor) -> Any:
        return Prediction(super().forward(x, use_cache=False)[0], Cache(x))


@untrained_networks
def test_outputs_of_a_dataclass_that_torch_does_not_know() -> None:
    result = sc.prune(Predicting(), X, {"params": 0.7}, progress=False)
    assert result.report.pruned.agreement is not None  # the logits were seen
    assert isinstance(result.model(X), Prediction)


class WithoutTensors(Inner):
    def forward(self, x: Tensor) -> Any:
        return Cache(super().forward(x, use_cache=False)[0])


def test_outputs_without_tensors_are_refused() -> None:
    with pytest.raises(sc.SecateurError, match="returns a Cache without a tensor"):
        sc.trace(WithoutTensors(), X)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        y = self.first(x, use_cache=False)[0]
        return self.packed(y) if kind.numel() == 1 else self.branch(y)

    def branch(self, y: Tensor) -> Tensor:
        return y if y.sum() > 0 else -y

    def packed(self, y: Tensor) -> Tensor:
        lengths = torch.full((len(y),), 1)
        packed = nn.utils.rnn.pack_padded_sequence(y[:, None], lengths, batch_first=True)
        return self.cell(packed)[1][0][-1]


class Detour(Inner):
    def forward(self, x: Tensor) -> Any:
        return torch.from_numpy(self.a(x).numpy())


@pytest.mark.parametrize(
    ("model", "inputs", "message", "absent"),
    [
        (Branching(), (X, torch.zeros(2)), r"in branch: return y if y.sum\(\) > 0 else -y\nRewrite that line", "numpy"),
        (Branching(), (X, torch.zeros(1)), r"in packed: .*\n.*run the recurrent layer on the padded batch", "where"),
        (Detour(), (X,), r"in forward: return torch.from_numpy.*\nnumpy computes outside of torch", "torch.where"),
    ],
)
def test_what_can_not_be_exported(
    model: nn.Module, inputs: Any, message: str, absent: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(sc.SecateurError, match=message) as error:
        sc.trace(model, inputs)
    assert "test_calls.py" in str(error.value)
    assert absent not in str(error.value)
    assert capfd.readouterr() == ("", "")


class Logging(Inner):
    def forward(self, x: Tensor) -> Any:
        logging.getLogger("mine").warning("of the model")
        logging.getLogger("torch.export").warning("of torch")
        return super().forward(x, use_cache=False)


def test_records_of_torch_are_dropped_where_nobody_asked(caplog: pytest.LogCaptureFixture) -> None:
    export_program(Logging(), Batch((X,), {}))
    assert "of the model" in caplog.text
    assert "of torch" not in caplog.text
    with caplog.at_level(logging.INFO, logger="torch.export"):
        export_program(Logging(), Batch((X,), {}))
    assert "of torch" in caplog.text
