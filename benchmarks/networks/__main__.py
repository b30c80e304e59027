"""Train a network of the benchmarks on Fashion-MNIST, and store its weights in half precision in `networks/weights`.

    python -m benchmarks networks --data DIR --network vgg --seed 0

DIR holds the four files that `examples/train_demo_network.py` names. Five to fifteen minutes each on one core.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from train_demo_network import accuracy, normalised, read_all, train

from networks.trained import FOLDER, NETWORKS, trained


def main() -> None:
    """Read the options, train, and store the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    images, labels, test_images, test_labels = read_all(args.data)
    torch.manual_seed(args.seed)
    model = NETWORKS[args.network]()
    train(model, normalised(images), torch.tensor(labels).long(), args.epochs, 128, args.seed)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    FOLDER.mkdir(exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in half.items()}, FOLDER / f"{args.network}-{args.seed}.safetensors"
    )
    test_accuracy = accuracy(trained(args.network, args.seed), test_images, test_labels)
    print(f"{args.network} {args.seed}: test accuracy {test_accuracy:.4f}")


if __name__ == "__main__":
    main()
