"""Sizes of single layers in a configuration, for classes of the transformers library that read them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.errors import StorageError

pytestmark = untrained_networks

transformers = pytest.importorskip("transformers")
if not hasattr(transformers.PretrainedConfig, "per_layer_config"):
    pytest.skip("this release has no per_layer_config", allow_module_level=True)

CHEAP: dict[str, Any] = {"by": "l2", "ablation": "zero", "repair": None, "progress": False}


class LayeredConfig(transformers.PretrainedConfig):  # type: ignore[misc, name-defined]
    """A configuration with three numbers."""

    model_type = "layered"
    hidden_size: int = 8
    intermediate_size: int = 12
    num_hidden_layers: int = 2


class Block(nn.Module):
    """A feed-forward block beside a residual stream, as wide as its layer's configuration says."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.relu(self.up(x)))
        return y


class LayeredModel(transformers.PreTrainedModel):  # type: ignore[misc, name-defined]
    """A model whose blocks read the configuration of their layer."""

    config_class = LayeredConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(Block(config.per_layer_config[layer]) for layer in layers)
        self.post_init()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_sizes_that_differ_between_layers_are_written_where_the_class_reads_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = LayeredModel(LayeredConfig()).eval(), torch.randn(32, 8)
    result = sc.prune(model, x, sizes={"layers.0.up": 5, "layers.1.up": 9}, kinds="neurons", **CHEAP)
    result.save_pretrained(tmp_path)
    loaded = LayeredModel.from_pretrained(tmp_path).eval()
    assert [layer.up.out_features for layer in loaded.layers] == [5, 9]
    assert torch.equal(loaded(x), result.model(x))
    assert model.config.intermediate_size == 12


def test_a_class_that_reads_one_size_for_all_layers_refuses_and_the_other_ways_are_named(tmp_path: Path) -> None:
    model, batch = tiny_transformer("llama", 32)
    sizes = {"model.layers.0.mlp.gate_proj": 24, "model.layers.1.mlp.gate_proj": 40}
    result = sc.prune(model, batch, sizes=sizes, kinds="neurons", new_biases=False, **CHEAP)
    with pytest.raises(StorageError, match="prune with layout='config'"):
        result.save_pretrained(tmp_path / "library")
    assert not (tmp_path / "library").exists()
    result.save(tmp_path / "recipe")
