"""transformers with the flags of the default configuration, such as the cache of decoders, and tiny widths."""

from typing import Any

import torch
from torch import Tensor

from wild.definitions import Definition
from wild.transformers_models import TEXT, WIDTH, causal, model_of, pairs, pixels

GROUPED = {**TEXT, "num_key_value_heads": 2}
SEQUENCE = {"vocab_size": 99, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80}  # fmt: skip


def _caching_causal(config: str, model: str, **options: Any) -> Definition:
    return Definition(model_of(config, model, **options), causal())


def _speech() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 20, 32), "decoder_input_ids": torch.randint(3, 90, (2, 5))}


def _mask2former() -> Definition:
    from transformers import SwinConfig

    backbone = SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4],
                          window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    make = model_of("Mask2FormerConfig", "Mask2FormerForUniversalSegmentation", backbone_config=backbone,
                       feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64,
                       encoder_layers=2, decoder_layers=3, num_attention_heads=4, dim_feedforward=64,
                       num_queries=10)  # fmt: skip
    return Definition(make, pixels(64))


def _detr_variant(config: str, model: str, width: int = 48, heads: int = 4) -> Definition:
    from transformers import ResNetConfig

    backbone = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
                            out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    options = {"d_model": width, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80,
               "encoder_attention_heads": heads, "decoder_attention_heads": heads, "num_queries": 7}  # fmt: skip
    make = model_of(config, model, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
                    backbone_config=backbone, **options)  # fmt: skip
    return Definition(make, pixels(64))


def _default_decoders() -> dict[str, Definition]:
    """Return decoders of text."""
    return {
        "llama": _caching_causal("LlamaConfig", "LlamaForCausalLM", **GROUPED),
        "mistral": _caching_causal("MistralConfig", "MistralForCausalLM", **GROUPED),
        "gpt2": _caching_causal("GPT2Config", "GPT2LMHeadModel", vocab_size=99, n_embd=48, n_layer=2, n_head=4,
                                n_positions=64),
        "gemma3": _caching_causal("Gemma3TextConfig", "Gemma3ForCausalLM", **GROUPED, head_dim=12),
        "qwen3": _caching_causal("Qwen3Config", "Qwen3ForCausalLM", **GROUPED, head_dim=12),
        "phi3": _caching_causal("Phi3Config", "Phi3ForCausalLM", **GROUPED, pad_token_id=0),
        "falcon": _caching_causal("FalconConfig", "FalconForCausalLM", **TEXT),
        "mamba": _caching_causal("MambaConfig", "MambaForCausalLM", vocab_size=99, hidden_size=48, num_hidden_layers=2),
    }  # fmt: skip


def _default_sequence_models() -> dict[str, Definition]:
    """Return encoders with decoders."""
    return {
        "t5": Definition(model_of("T5Config", "T5ForConditionalGeneration", vocab_size=99, d_model=48, d_kv=12,
                                     d_ff=80, num_layers=2, num_heads=4), pairs),
        "bart": Definition(model_of("BartConfig", "BartForConditionalGeneration", **SEQUENCE,
                                       max_position_embeddings=64), pairs),
        "whisper": Definition(model_of("WhisperConfig", "WhisperForConditionalGeneration", **SEQUENCE,
                                          num_mel_bins=20, max_source_positions=16, max_target_positions=32,
                                          pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),
                              _speech),
    }  # fmt: skip


def _default_vision_models() -> dict[str, Definition]:
    """Return models of images."""
    return {
        "segformer_b0": Definition(model_of("SegformerConfig", "SegformerForSemanticSegmentation"), pixels(64)),
        "conditional_detr": _detr_variant("ConditionalDetrConfig", "ConditionalDetrForObjectDetection"),
        "detr_segmentation": _detr_variant("DetrConfig", "DetrForSegmentation", width=128, heads=8),
        "mask2former": _mask2former(),
        "sam_encoder": Definition(model_of("SamVisionConfig", "SamVisionModel", hidden_size=48, output_channels=24,
                                              num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8,
                                              window_size=4, global_attn_indexes=[1], mlp_dim=80), pixels(64)),
        "vit_mae": Definition(model_of("ViTMAEConfig", "ViTMAEForPreTraining", **WIDTH, image_size=32, patch_size=8,
                                          decoder_num_attention_heads=4, decoder_hidden_size=32,
                                          decoder_num_hidden_layers=1, decoder_intermediate_size=48), pixels()),
    }  # fmt: skip


DEFINITIONS = {
    f"transformers-defaults/{name}": definition
    for definitions in (_default_decoders(), _default_sequence_models(), _default_vision_models())
    for name, definition in definitions.items()
}
