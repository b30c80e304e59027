"""VGG-16 and a LeNet, the networks of the papers' experiments."""

from torch import Tensor, nn

VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Vgg16(nn.Module):
    """VGG-16 with batch norm.

    Images of 32 x 32 pixels have one linear layer behind the convolutions, larger ones three.

    Args:
        classes: the number of outputs.
        size: the side of the images, in pixels.
        width: the factor of the published numbers of channels.
    """

    def __init__(self, classes: int, size: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for published_width in VGG16:
            if not published_width:
                layers.append(nn.MaxPool2d(2))
                continue
            out_channels = round(published_width * width)
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        wide = [nn.Linear(channels * (size // 32) ** 2, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(
            *(wide if size > 32 else []), nn.Linear(channels if size <= 32 else 4096, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class Lenet(nn.Module):
    """Two convolutions and two linear layers, without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for channels, width in ((1, 32), (32, 64)):
            convolutions += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*convolutions)
        self.classifier = nn.Sequential(nn.Linear(64 * 49, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
