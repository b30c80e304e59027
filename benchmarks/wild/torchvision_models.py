"""torchvision: classification, segmentation and video."""

from typing import Any

from torch import nn

from wild.definitions import Definition, clips, images


def _torchvision_model(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, **{"num_classes": 10, **options})


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)


def _swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    blocks = {1: (swin.SwinTransformerBlock, swin.PatchMerging), 2: (swin.SwinTransformerBlockV2, swin.PatchMergingV2)}
    block, merge = blocks[version]
    return swin.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10, block=block, downsample_layer=merge)


def _maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 2)], num_classes=10)


def _mvit() -> nn.Module:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [
        MSBlockConfig(1, 16, 16, [3, 3, 3], [3, 3, 3], [1, 4, 4], [1, 1, 1]),
        MSBlockConfig(2, 16, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
        MSBlockConfig(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
    ]
    return MViT((32, 32), 4, blocks, residual_pool=False, residual_with_cls_embed=True, rel_pos_embed=False,
                proj_after_attn=False, num_classes=10)  # fmt: skip


def _swin3d() -> nn.Module:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 24, [2, 2], [2, 4], [2, 4, 4], num_classes=10)


def _torchvision_definition(name: str, size: int = 64, **options: Any) -> Definition:
    return Definition(lambda: _torchvision_model(name, **options), images(size))


def _segmentation(name: str) -> Definition:
    return _torchvision_definition(name, 64, weights_backbone=None)


def _video(name: str, frames: int = 4, size: int = 32) -> Definition:
    return Definition(lambda: _torchvision_model(name), clips(frames, size))


DEFINITIONS = {
    f"torchvision/{name}": definition
    for name, definition in {
        "alexnet": _torchvision_definition("alexnet"),
        "vgg11_bn": _torchvision_definition("vgg11_bn"),
        "resnet18": _torchvision_definition("resnet18"),
        "resnet50": _torchvision_definition("resnet50"),
        "resnext50_32x4d": _torchvision_definition("resnext50_32x4d"),
        "densenet121": _torchvision_definition("densenet121"),
        "googlenet": _torchvision_definition("googlenet", aux_logits=False, init_weights=False),
        "inception_v3": _torchvision_definition("inception_v3", 96, aux_logits=False, init_weights=False),
        "squeezenet1_1": _torchvision_definition("squeezenet1_1"),
        "shufflenet_v2_x0_5": _torchvision_definition("shufflenet_v2_x0_5"),
        "mobilenet_v2": _torchvision_definition("mobilenet_v2"),
        "mobilenet_v3_small": _torchvision_definition("mobilenet_v3_small"),
        "mnasnet0_5": _torchvision_definition("mnasnet0_5"),
        "efficientnet_b0": _torchvision_definition("efficientnet_b0"),
        "regnet_x_400mf": _torchvision_definition("regnet_x_400mf"),
        "regnet_y_400mf": _torchvision_definition("regnet_y_400mf"),
        "convnext": Definition(_convnext, images()),
        "vit": Definition(_vit, images()),
        "swin": Definition(lambda: _swin(1), images()),
        "swin_v2": Definition(lambda: _swin(2), images()),
        "maxvit": Definition(_maxvit, images()),
        "fcn_resnet50": _segmentation("fcn_resnet50"),
        "deeplabv3_mobilenet_v3_large": _segmentation("deeplabv3_mobilenet_v3_large"),
        "lraspp_mobilenet_v3_large": _segmentation("lraspp_mobilenet_v3_large"),
        "r3d_18": _video("r3d_18"),
        "r2plus1d_18": _video("r2plus1d_18"),
        "s3d": _video("s3d", 16, 224),
        "mvit": Definition(_mvit, clips(4, 32)),
        "swin3d": Definition(_swin3d, clips(4, 32)),
    }.items()
}  # fmt: skip
