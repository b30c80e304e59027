"""Train the network that `secateur demo` prunes, and write the images it is tried on.

    python examples/train_demo_network.py --data DIR --out src/secateur/demo

DIR holds the four Fashion-MNIST files (`train-images-idx3-ubyte.gz`, ...), as the authors publish them and as Debian's
package `dataset-fashion-mnist` installs them. About ten minutes on two cores.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from secateur.demo.network import FashionNet

MEAN, STD = 0.2860, 0.3530
CALIBRATION, TEST = 256, 2000


def read_idx(path: Path) -> np.ndarray:
    """One IDX file of unsigned bytes: two zeros, type, rank, the sizes as big-endian integers, the values."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_all(folder: Path) -> list[np.ndarray]:
    """Training images and labels, test images and labels."""
    files = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [read_idx(folder / f"{name}-ubyte.gz") for name in files]


def normalised(images: np.ndarray) -> Tensor:
    return ((torch.tensor(images).unsqueeze(1) / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def shifted_and_flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to two pixels and mirrored half the time."""
    batch, _, height, width = images.shape  # (batch, channels, height, width)
    padded = F.pad(images, (2, 2, 2, 2), value=-MEAN / STD)
    dy, dx = torch.randint(0, 5, (2, batch, 1), generator=generator)
    columns = torch.arange(width).expand(batch, -1)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, width - 1 - columns, columns) + dx
    rows = torch.arange(height) + dy
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, batch: int, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    progress = tqdm(total=steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)[: len(images) // batch * batch]
        for index in order.view(-1, batch):
            loss = F.cross_entropy(model(shifted_and_flipped(images[index], generator)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    predicted = torch.cat([model(batch) for batch in normalised(images).split(500)]).argmax(1)
    return float((predicted == torch.tensor(labels)).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train_images, train_labels, test_images, test_labels = read_all(args.data)
    torch.manual_seed(args.seed)
    labels = torch.tensor(train_labels).long()
    model = train(FashionNet(), normalised(train_images), labels, args.epochs, args.batch, args.seed)
    print(f"test accuracy {accuracy(model, test_images, test_labels):.4f}")
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, args.out / "fashion.safetensors"
    )
    np.savez_compressed(
        args.out / "fashion.npz",
        calibration_images=train_images[:CALIBRATION],
        calibration_labels=train_labels[:CALIBRATION],
        test_images=test_images[:TEST],
        test_labels=test_labels[:TEST],
    )


if __name__ == "__main__":
    main()
