"""A VGG-like network for 28 x 28 grey images, and how it was trained.

    PYTHONPATH=examples python benchmarks/networks/vgg.py --data DIR

DIR holds the four Fashion-MNIST files, as for `examples/train_demo_network.py`. The weights lie beside this file in
half precision; a quarter of an hour on one core.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("vgg.safetensors")


class Vgg(nn.Module):
    """Three blocks of two 3 x 3 convolutions with batch norm, and one linear layer on what is left."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).flatten(1))
        return logits


def trained() -> Vgg:
    """The trained network, in evaluation mode."""
    model = Vgg()
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return model.eval()


def main() -> None:
    from train_demo_network import normalised, read_idx, train  # noqa: PLC0415 (only training needs it)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    images, labels, test_images, test_labels = (
        read_idx(args.data / f"{part}-ubyte.gz")
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    )
    torch.manual_seed(args.seed)
    model = train(Vgg(), normalised(images), torch.tensor(labels).long(), args.epochs, args.batch, args.seed)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in half.items()}, WEIGHTS)
    with torch.no_grad():
        predicted = torch.cat([trained()(part) for part in normalised(test_images).split(500)]).argmax(1)
    print(f"test accuracy {(predicted == torch.tensor(test_labels)).double().mean():.4f}")


if __name__ == "__main__":
    main()
