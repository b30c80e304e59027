"""diffusers: the parts of latent diffusion, each a small configuration."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wild.definitions import Definition, images


def _model(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import diffusers

        model = getattr(diffusers, name)(**options)
        assert isinstance(model, nn.Module)
        return model

    return make


def _noisy_latents() -> dict[str, Tensor]:
    return {"sample": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([5, 70])}


def _conditioned() -> dict[str, Tensor]:
    return {**_noisy_latents(), "encoder_hidden_states": torch.randn(2, 7, 24)}


def _labelled() -> dict[str, Tensor]:
    classes = torch.tensor([1, 4])
    return {"hidden_states": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([5, 70]), "class_labels": classes}


UNET = {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}

FAMILIES = {
    "unet_condition": Definition(
        _model("UNet2DConditionModel", **UNET, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
               up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=24, attention_head_dim=4),
        _conditioned),
    "unet": Definition(
        _model("UNet2DModel", **UNET, in_channels=4, out_channels=4, attention_head_dim=4,
               down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        _noisy_latents),
    "dit": Definition(
        _model("DiTTransformer2DModel", num_attention_heads=4, attention_head_dim=12, num_layers=2, sample_size=16,
               patch_size=4, num_embeds_ada_norm=10), _labelled),
    "autoencoder_kl": Definition(
        _model("AutoencoderKL", block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
               up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4), images(32)),
}  # fmt: skip

DEFINITIONS = {f"diffusers/{name}": definition for name, definition in FAMILIES.items()}
