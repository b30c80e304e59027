"""Models with adapters, as the library peft makes them: they are cut with the layers that they adapt."""

import copy
from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.errors import OptionError, StorageError

pytestmark = untrained_networks

ADAPTED = ("q_proj", "down_proj")
OPTIONS: dict[str, Any] = {"by": "l2", "allocation": "uniform", "repair": None, "progress": False}


class Adapter(nn.Module):
    """A linear layer with low-rank products that are added to its result."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base_layer = layer
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
        self.in_features, self.out_features = sizes.values()
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.active, self.scaling = "first", 2.0
        for name in ("first", "second"):
            self.lora_A[name] = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_B[name] = nn.Linear(rank, layer.out_features, bias=False)

    def merge(self) -> None:
        self.base_layer.weight.data += self.scaling * self.lora_B[self.active].weight @ self.lora_A[self.active].weight

    def forward(self, values: Tensor) -> Tensor:
        change: Tensor = self.lora_B[self.active](self.lora_A[self.active](values))
        result: Tensor = self.base_layer(values) + change * self.scaling
        return result


def adapted_llama(adapters: int = 1) -> tuple[Any, dict[str, Tensor]]:
    model, batch = tiny_transformer("llama")
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in ADAPTED:
            adapter = Adapter(layer)
            if adapters == 1:
                del adapter.lora_A["second"], adapter.lora_B["second"]
            setattr(model.get_submodule(parent), name, adapter)
    return model.eval(), batch


def with_merged_weights(model: Any) -> Any:
    model = copy.deepcopy(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, Adapter):
            module.merge()
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, module.base_layer)
    return model


def test_adapters_are_cut_with_their_layers() -> None:
    model, batch = adapted_llama()
    small = sc.prune(model, batch, {"params": 0.7}, kinds=("neurons", "heads"), skip="*lora_A*", **OPTIONS).model
    adapters = [module for module in small.modules() if isinstance(module, Adapter)]
    assert len(adapters) == 4
    for adapter in adapters:
        outputs, inputs = adapter.base_layer.weight.shape
        assert adapter.lora_A["first"].weight.shape == (4, inputs)
        assert adapter.lora_B["first"].weight.shape == (outputs, 4)
    assert any(adapter.base_layer.weight.numel() < 32 * 32 for adapter in adapters)
    with torch.no_grad():
        torch.testing.assert_close(with_merged_weights(small)(**batch).logits, small(**batch).logits)
    assert small.generate(batch["input_ids"][:1], max_new_tokens=3, pad_token_id=0).shape == (1, 13)


def test_configurations_do_not_say_adapters(tmp_path: Any) -> None:
    model, batch = adapted_llama()
    advice = r"q_proj is an adapter, .*: merge adapters into the weights before pruning .*, or "
    with pytest.raises(OptionError, match=f"{advice}leave layout= out"):
        sc.prune(model, batch, {"params": 0.8}, layout="config", kinds="neurons", **OPTIONS)
    result = sc.prune(model, batch, {"params": 0.8}, kinds="neurons", **OPTIONS)
    with pytest.raises(StorageError, match=f"{advice}use `save`"):
        result.save_pretrained(tmp_path / "small")


def test_adapters_that_do_not_run_are_named() -> None:
    model, batch = adapted_llama(adapters=2)
    with pytest.warns(sc.SecateurWarning, match=r"q_proj.lora_A.second and 7 more parts of adapters do not run"):
        sc.trace(model, batch, kinds=("neurons", "heads"))
