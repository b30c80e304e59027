"""timm: one small member of each family."""

from typing import Any

import torch
from torch import Tensor, nn

from wild.definitions import Definition, images


def _make(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options)


def _definition(name: str, size: int = 64, **options: Any) -> Definition:
    return Definition(lambda: _make(name, options), images(size))


def _patches() -> dict[str, Tensor]:
    """Images of 4 x 6 and 5 x 3 patches as NaFlex loaders give them: flat patches, their places, which are real."""
    coordinates = [
        torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in ((4, 6), (5, 3))
    ]
    places = nn.utils.rnn.pad_sequence(coordinates, batch_first=True)
    valid = torch.arange(places.shape[1]) < torch.tensor([[len(each)] for each in coordinates])
    return {"x": torch.randn(2, places.shape[1], 16 * 16 * 3), "patch_coord": places, "patch_valid": valid}


NAFLEX = {"depth": 2, "embed_dim": 96, "num_heads": 4}

FAMILIES = {
    "resnet18": _definition("resnet18"),
    "resnet26d": _definition("resnet26d"),
    "resnetv2_50": _definition("resnetv2_50"),
    "seresnet18": _definition("legacy_seresnet18"),
    "skresnet18": _definition("skresnet18"),
    "resnest14d": _definition("resnest14d"),
    "res2net50": _definition("res2net50_14w_8s"),
    "ecaresnet": _definition("ecaresnet26t"),
    "botnet26t": _definition("botnet26t_256", 256),
    "nf_regnet_b0": _definition("nf_regnet_b0"),
    "regnety_002": _definition("regnety_002"),
    "cspresnet50": _definition("cspresnet50"),
    "ese_vovnet": _definition("ese_vovnet19b_slim_dw"),
    "dla34": _definition("dla34"),
    "dpn48b": _definition("dpn48b"),
    "hrnet_w18_small": _definition("hrnet_w18_small"),
    "selecsls42": _definition("selecsls42"),
    "xception41": _definition("xception41"),
    "repvgg_a0": _definition("repvgg_a0"),
    "densenet121": _definition("densenet121"),
    "efficientnet_lite0": _definition("efficientnet_lite0"),
    "efficientnetv2_b0": _definition("tf_efficientnetv2_b0"),
    "mobilenetv3_small": _definition("mobilenetv3_small_050"),
    "mobilenetv4_conv_small": _definition("mobilenetv4_conv_small"),
    "mobilenetv4_hybrid_medium": _definition("mobilenetv4_hybrid_medium"),
    "ghostnet_050": _definition("ghostnet_050"),
    "ghostnetv2_100": _definition("ghostnetv2_100"),
    "lcnet_050": _definition("lcnet_050"),
    "rexnet_100": _definition("rexnet_100"),
    "convnext": _definition("convnext_atto", depths=(1, 1, 2, 1)),
    "convnextv2": _definition("convnextv2_atto", depths=(1, 1, 2, 1)),
    "inception_next": _definition("inception_next_atto", depths=(1, 1, 2, 1)),
    "repvit_m0_9": _definition("repvit_m0_9"),
    "fastvit_t8": _definition("fastvit_t8"),
    "starnet_s1": _definition("starnet_s1"),
    "convmixer": _definition("convmixer_768_32", 28),
    "poolformer_s12": _definition("poolformer_s12"),
    "vit": _definition("vit_tiny_patch16_224", img_size=64, depth=2),
    "deit3": _definition("deit3_small_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=3),
    "deit_distilled": _definition("deit_tiny_distilled_patch16_224", img_size=64, depth=2),
    "beit": _definition("beit_base_patch16_224", img_size=64, depth=2, embed_dim=96, num_heads=3),
    "eva02": _definition("eva02_tiny_patch14_224", 56, img_size=56, depth=2),
    "cait": _definition("cait_xxs24_224", img_size=64, depth=2),
    "xcit": _definition("xcit_nano_12_p16_224", depth=2),
    "swin": _definition("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6),
                        embed_dim=48),
    "swinv2": _definition("swinv2_tiny_window8_256", 64, img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6),
                          embed_dim=48),
    "pit": _definition("pit_ti_224", 64, img_size=64),
    "pvt_v2": _definition("pvt_v2_b0", 64, depths=(1, 1, 1, 1)),
    "twins_svt": _definition("twins_svt_small", 224, depths=(1, 1, 2, 1)),
    "levit": _definition("levit_128s", 64, img_size=64),
    "mobilevit": _definition("mobilevit_xxs"),
    "mobilevitv2": _definition("mobilevitv2_050"),
    "edgenext": _definition("edgenext_xx_small"),
    "efficientformer": _definition("efficientformer_l1", 224),
    "efficientvit_b0": _definition("efficientvit_b0"),
    "coatnet": _definition("coatnet_nano_rw_224", 64, img_size=64),
    "maxvit": _definition("maxvit_rmlp_pico_rw_256", 64, img_size=64),
    "davit": _definition("davit_tiny", 64, depths=(1, 1, 1, 1)),
    "focalnet": _definition("focalnet_tiny_srf", 64),
    "gcvit": _definition("gcvit_xxtiny", 224),
    "hiera": _definition("hiera_tiny_224", 224),
    "mixer": _definition("mixer_s32_224", 64, img_size=64),
    "resmlp": _definition("resmlp_12_224", 64, img_size=64),
    "gmlp": _definition("gmlp_ti16_224", 64, img_size=64),
    "sequencer2d": _definition("sequencer2d_s", 64, img_size=64, layers=(1, 1, 1, 1)),
    "nest": _definition("nest_tiny", 224),
    "crossvit": _definition("crossvit_tiny_240", 240),
    "visformer": _definition("visformer_tiny", 64, img_size=64),
    "convnextv2_nano": _definition("convnextv2_nano", depths=(1, 1, 2, 1)),
    "efficientvit_m0": _definition("efficientvit_m0", 224),
    "fastvit_sa12": _definition("fastvit_sa12", 128, layers=(1, 1, 1, 1)),
    "mobilenetv4_conv_medium": _definition("mobilenetv4_conv_medium"),
    "naflexvit": Definition(lambda: _make("naflexvit_base_patch16_gap", NAFLEX), images(64)),
    "naflexvit_patches": Definition(lambda: _make("naflexvit_base_patch16_gap", NAFLEX), _patches),
    "samvit": _definition("samvit_base_patch16", 64, img_size=64, patch_size=8, depth=2, embed_dim=48, num_heads=4,
                          window_size=4, global_attn_indexes=(1,)),
    "bit_resnetv2": _definition("resnetv2_50x1_bit"),
    "nfnet_l0": _definition("nfnet_l0"),
}  # fmt: skip

DEFINITIONS = {f"timm/{name}": definition for name, definition in FAMILIES.items()}
