"""The first pruned model of one's own: python examples/first_model.py [FOLDER]. Put your model and data in place."""

import sys

import torch
from torch import nn

import secateur as sc


def main(folder: str = "out/first-model") -> sc.Result:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    data = torch.randn(128, 3, 16, 16).split(32)  # batches of inputs; a DataLoader is as good, and labels may follow
    result = sc.prune(model, data, keep={"macs": 0.5})
    print(result.report)
    result.save(folder)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
