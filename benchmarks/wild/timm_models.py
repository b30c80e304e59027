"""timm: one small member of each family."""

from typing import Any

import torch
from torch import Tensor, nn

from wild.definitions import Definition, images


def _timm_model(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options)


def _timm_entry(name: str, size: int = 64, **options: Any) -> Definition:
    return Definition(lambda: _timm_model(name, options), images(size))


def _patches() -> dict[str, Tensor]:
    """Return images of 4 x 6 and 5 x 3 patches as NaFlex loaders do: flat patches, their positions, and a mask."""
    coordinates = [
        torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in ((4, 6), (5, 3))
    ]
    positions = nn.utils.rnn.pad_sequence(coordinates, batch_first=True)
    valid = torch.arange(positions.shape[1]) < torch.tensor([[len(grid)] for grid in coordinates])
    return {"x": torch.randn(2, positions.shape[1], 16 * 16 * 3), "patch_coord": positions, "patch_valid": valid}


NAFLEX = {"depth": 2, "embed_dim": 96, "num_heads": 4}

FAMILIES = {
    "resnet18": _timm_entry("resnet18"),
    "resnet26d": _timm_entry("resnet26d"),
    "resnetv2_50": _timm_entry("resnetv2_50"),
    "seresnet18": _timm_entry("legacy_seresnet18"),
    "skresnet18": _timm_entry("skresnet18"),
    "resnest14d": _timm_entry("resnest14d"),
    "res2net50": _timm_entry("res2net50_14w_8s"),
    "ecaresnet": _timm_entry("ecaresnet26t"),
    "botnet26t": _timm_entry("botnet26t_256", 256),
    "nf_regnet_b0": _timm_entry("nf_regnet_b0"),
    "regnety_002": _timm_entry("regnety_002"),
    "cspresnet50": _timm_entry("cspresnet50"),
    "ese_vovnet": _timm_entry("ese_vovnet19b_slim_dw"),
    "dla34": _timm_entry("dla34"),
    "dpn48b": _timm_entry("dpn48b"),
    "hrnet_w18_small": _timm_entry("hrnet_w18_small"),
    "selecsls42": _timm_entry("selecsls42"),
    "xception41": _timm_entry("xception41"),
    "repvgg_a0": _timm_entry("repvgg_a0"),
    "densenet121": _timm_entry("densenet121"),
    "efficientnet_lite0": _timm_entry("efficientnet_lite0"),
    "efficientnetv2_b0": _timm_entry("tf_efficientnetv2_b0"),
    "mobilenetv3_small": _timm_entry("mobilenetv3_small_050"),
    "mobilenetv4_conv_small": _timm_entry("mobilenetv4_conv_small"),
    "mobilenetv4_hybrid_medium": _timm_entry("mobilenetv4_hybrid_medium"),
    "ghostnet_050": _timm_entry("ghostnet_050"),
    "ghostnetv2_100": _timm_entry("ghostnetv2_100"),
    "lcnet_050": _timm_entry("lcnet_050"),
    "rexnet_100": _timm_entry("rexnet_100"),
    "convnext": _timm_entry("convnext_atto", depths=(1, 1, 2, 1)),
    "convnextv2": _timm_entry("convnextv2_atto", depths=(1, 1, 2, 1)),
    "inception_next": _timm_entry("inception_next_atto", depths=(1, 1, 2, 1)),
    "repvit_m0_9": _timm_entry("repvit_m0_9"),
    "fastvit_t8": _timm_entry("fastvit_t8"),
    "starnet_s1": _timm_entry("starnet_s1"),
    "convmixer": _timm_entry("convmixer_768_32", 28),
    "poolformer_s12": _timm_entry("poolformer_s12"),
    "vit": _timm_entry("vit_tiny_patch16_224", img_size=64, depth=2),
    "deit3": _timm_entry("deit3_small_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=3),
    "deit_distilled": _timm_entry("deit_tiny_distilled_patch16_224", img_size=64, depth=2),
    "beit": _timm_entry("beit_base_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=3),
    "eva02": _timm_entry("eva02_tiny_patch14_224", 56, img_size=56, depth=2),
    "cait": _timm_entry("cait_xxs24_224", img_size=64, depth=2),
    "xcit": _timm_entry("xcit_nano_12_p16_224", depth=2),
    "swin": _timm_entry("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6),
                        embed_dim=48),
    "swinv2": _timm_entry("swinv2_tiny_window8_256", 64, img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6),
                          embed_dim=48),
    "pit": _timm_entry("pit_ti_224", 64, img_size=64),
    "pvt_v2": _timm_entry("pvt_v2_b0", 64, depths=(1, 1, 1, 1)),
    "twins_svt": _timm_entry("twins_svt_small", 224, depths=(1, 1, 2, 1)),
    "levit": _timm_entry("levit_128s", 64, img_size=64),
    "mobilevit": _timm_entry("mobilevit_xxs"),
    "mobilevitv2": _timm_entry("mobilevitv2_050"),
    "edgenext": _timm_entry("edgenext_xx_small"),
    "efficientformer": _timm_entry("efficientformer_l1", 224),
    "efficientvit_b0": _timm_entry("efficientvit_b0"),
    "coatnet": _timm_entry("coatnet_nano_rw_224", 64, img_size=64),
    "maxvit": _timm_entry("maxvit_rmlp_pico_rw_256", 64, img_size=64),
    "davit": _timm_entry("davit_tiny", 64, depths=(1, 1, 1, 1)),
    "focalnet": _timm_entry("focalnet_tiny_srf", 64),
    "gcvit": _timm_entry("gcvit_xxtiny", 224),
    "hiera": _timm_entry("hiera_tiny_224", 224),
    "mixer": _timm_entry("mixer_s32_224", 64, img_size=64),
    "resmlp": _timm_entry("resmlp_12_224", 64, img_size=64),
    "gmlp": _timm_entry("gmlp_ti16_224", 64, img_size=64),
    "sequencer2d": _timm_entry("sequencer2d_s", 64, img_size=64, layers=(1, 1, 1, 1)),
    "nest": _timm_entry("nest_tiny", 224),
    "crossvit": _timm_entry("crossvit_tiny_240", 240),
    "visformer": _timm_entry("visformer_tiny", 64, img_size=64),
    "convnextv2_nano": _timm_entry("convnextv2_nano", depths=(1, 1, 2, 1)),
    "efficientvit_m0": _timm_entry("efficientvit_m0", 224),
    "fastvit_sa12": _timm_entry("fastvit_sa12", 128, layers=(1, 1, 1, 1)),
    "mobilenetv4_conv_medium": _timm_entry("mobilenetv4_conv_medium"),
    "naflexvit": Definition(lambda: _timm_model("naflexvit_base_patch16_gap", NAFLEX), images(64)),
    "naflexvit_patches": Definition(lambda: _timm_model("naflexvit_base_patch16_gap", NAFLEX), _patches),
    "samvit": _timm_entry("samvit_base_patch16", 64, img_size=64, patch_size=8, depth=2, embed_dim=48, num_heads=4,
                          window_size=4, global_attn_indexes=(1,)),
    "bit_resnetv2": _timm_entry("resnetv2_50x1_bit"),
    "nfnet_l0": _timm_entry("nfnet_l0"),
}  # fmt: skip

DEFINITIONS = {f"timm/{name}": definition for name, definition in FAMILIES.items()}
