"""transformers: further models of images, of clips, and of images with text, each a tiny configuration."""

import torch
from torch import Tensor

from wild.definitions import Definition
from wild.transformers_models import LLAMA, WIDTH, model_of, pixels

VISION = {**WIDTH, "image_size": 32, "patch_size": 8}
IMAGE = 95
"""The token whose places the features of an image take."""


def _mgp_str() -> Definition:
    make = model_of("MgpstrConfig", "MgpstrForSceneTextRecognition", image_size=[32, 32], patch_size=8, hidden_size=48,
                  num_hidden_layers=2, num_attention_heads=4, max_token_length=5, num_character_labels=9,
                  num_bpe_labels=11, num_wordpiece_labels=12)  # fmt: skip
    return Definition(make, pixels())


def _llava() -> Definition:
    make = model_of("LlavaConfig", "LlavaForConditionalGeneration", image_token_index=IMAGE, vision_feature_layer=-1,
                  vision_config={"model_type": "clip_vision_model", **VISION},
                  text_config={"model_type": "llama", **LLAMA})  # fmt: skip
    return Definition(make, _tokens_and_images)


def _tokens_and_images() -> dict[str, Tensor]:
    patches = (VISION["image_size"] // VISION["patch_size"]) ** 2
    tokens = torch.tensor([[5, *[IMAGE] * patches, 7, 8, 9]]).repeat(2, 1)
    return {"input_ids": tokens, "pixel_values": torch.randn(2, 3, 32, 32)}


def _clips() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 4, 3, 32, 32)}


FAMILIES = {
    "deit": Definition(model_of("DeiTConfig", "DeiTForImageClassification", **VISION, num_labels=6), pixels()),
    "dinov3": Definition(model_of("DINOv3ViTConfig", "DINOv3ViTModel", **VISION, num_register_tokens=4), pixels()),
    "mgp_str": _mgp_str(),
    "timesformer": Definition(
        model_of("TimesformerConfig", "TimesformerForVideoClassification", **VISION, num_labels=6, num_frames=4), _clips
    ),
    "llava": _llava(),
}

DEFINITIONS = {f"transformers/{name}": definition for name, definition in FAMILIES.items()}
