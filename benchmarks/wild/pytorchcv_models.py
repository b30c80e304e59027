"""pytorchcv: classifiers whose blocks no other library of the table has."""

from torch import nn

from wild.definitions import Definition, images


def _pytorchcv_model(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    model = get_model(name, pretrained=False)
    assert isinstance(model, nn.Module)
    if isinstance(getattr(model.features, "final_pool", None), nn.AvgPool2d):
        model.features.final_pool = nn.AdaptiveAvgPool2d(1)  # else it takes images of 224 x 224 alone
    return model


def _pytorchcv_definition(name: str, size: int = 64) -> Definition:
    return Definition(lambda: _pytorchcv_model(name), images(size))


FAMILIES = {
    "bninception": _pytorchcv_definition("bninception"),
    "bam_resnet18": _pytorchcv_definition("bam_resnet18"),
    "rir": _pytorchcv_definition("rir_cifar10", 32),
}

DEFINITIONS = {f"pytorchcv/{name}": definition for name, definition in FAMILIES.items()}
