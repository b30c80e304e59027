"""The networks that are pruned, with their examples, and what tells the small one's quality."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks.trained import trained
from safetensors.torch import load_file
from torch import Tensor, nn

from cost.definitions import CifarResNet, ResNet18
from secateur import demo
from secateur.evaluation.divergence import divergence

CIFAR_MEAN, CIFAR_STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TESTED = 2_000


@dataclass(frozen=True)
class Subject:
    """A network to prune.

    Args:
        model: in evaluation mode.
        batches: the examples.
        keep: the budget.
        quality: figures of the small network.
    """

    model: nn.Module
    batches: list[Any]
    keep: Mapping[str, float]
    quality: Callable[[nn.Module], dict[str, float]]

    def run(self, batch: Any) -> Any:
        return self.model(**batch) if isinstance(batch, dict) else self.model(batch)


def _accuracy(images: Tensor, labels: Tensor, dense: nn.Module, small: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        outputs = [torch.cat([each(part) for part in images.split(250)]) for each in (dense, small)]
    tops = [each.argmax(1) for each in outputs]
    return {
        "divergence": float(divergence(outputs[1], outputs[0]).mean()),
        "dense": float((tops[0] == labels).double().mean()),
        "accuracy": float((tops[1] == labels).double().mean()),
        "agreement": float((tops[0] == tops[1]).double().mean()),
    }


def _nothing(small: nn.Module) -> dict[str, float]:
    return {}


def fashion(
    data: Path | None, name: str = "residual", seed: int = 0, examples: int = 256, keep: float = 0.5
) -> Subject:
    """A network of `benchmarks/networks` and the images that ship with Secateur."""
    model = trained(name, seed).to(memory_format=torch.channels_last)
    parts = list(zip(*demo.test(), strict=True))
    test = torch.cat(parts[0]), torch.cat(parts[1])
    images = torch.cat(demo.calibration())[:examples]
    return Subject(model, list(images.split(32)), {"macs": keep}, partial(_accuracy, *test, model))


def cifar(data: Path | None, blocks: int = 3, examples: int = 256) -> Subject:
    """A trained CIFAR ResNet, and images of CIFAR-10."""
    if data is None:
        raise SystemExit("--data DIR is needed for the CIFAR networks")
    model = CifarResNet(blocks)
    model.load_state_dict(load_file(data / f"cifar10_resnet{6 * blocks + 2}.safetensors"))
    model = model.eval().to(memory_format=torch.channels_last)
    with np.load(data / "cifar10.npz") as arrays:
        train, test = (_images(arrays[name]) for name in ("xtrain", "xtest"))
        labels = torch.from_numpy(arrays["ytest"]).long()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:examples]
    step = len(test) // TESTED  # the file has one class after another
    quality = partial(_accuracy, test[::step], labels[::step], model)
    return Subject(model, list(train[order].split(32)), {"macs": 0.5}, quality)


def _images(raw: np.ndarray) -> Tensor:
    values = (torch.from_numpy(raw).float() / 255 - CIFAR_MEAN) / CIFAR_STD
    return values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def noise(build: Callable[[], nn.Module], size: int, examples: int, batch: int = 32) -> Subject:
    """A network with random weights on noise: what it costs does not depend on them much."""
    torch.manual_seed(0)
    model = build().eval().to(memory_format=torch.channels_last)
    images = torch.randn(examples, 3, size, size)
    return Subject(model, list(images.split(batch)), {"macs": 0.5}, _nothing)


def resnet18(data: Path | None, examples: int = 256) -> Subject:
    return noise(ResNet18, 64, examples)


def mobilenet(data: Path | None, examples: int = 512, size: int = 224) -> Subject:
    from pretrained.mobilenet import MobileNetV2  # noqa: PLC0415 (needs packages that the others don't)

    return noise(MobileNetV2, size, examples)


def bert(data: Path | None, examples: int = 256, layers: int = 12) -> Subject:
    """BERT-base with random weights on sequences of 64 random tokens."""
    from transformers import BertConfig, BertModel  # noqa: PLC0415 (needs packages that the others don't)

    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=layers, attn_implementation="eager")).eval()
    tokens = torch.randint(0, 30_000, (examples, 64))
    return Subject(model, [{"input_ids": part} for part in tokens.split(32)], {"macs": 0.5}, _nothing)


def llama(data: Path | None, examples: int = 64, layers: int = 8) -> Subject:
    """A Llama with random weights and grouped queries on sequences of 32 random tokens; its embeddings are tied."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 (needs packages that the others don't)

    torch.manual_seed(0)
    sizes = {"vocab_size": 1600, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).eval()
    tokens = torch.randint(0, 1600, (examples, 32))
    return Subject(model, [{"input_ids": part} for part in tokens.split(16)], {"params": 0.8}, _nothing)


SUBJECTS: dict[str, Callable[[Path | None], Subject]] = {
    "demo": fashion,
    "demo-25": partial(fashion, keep=0.25),
    "demo-64": partial(fashion, examples=64),
    **{f"{name}-{seed}": partial(fashion, name=name, seed=seed) for name in ("vgg", "residual", "separable")
       for seed in (0, 1, 2)},
    **{f"{name}-{seed}-25": partial(fashion, name=name, seed=seed, keep=0.25)
       for name in ("vgg", "residual", "separable") for seed in (0, 1, 2)},
    "resnet20": cifar,
    "resnet56": partial(cifar, blocks=9),
    "resnet18": resnet18,
    "resnet18-64": partial(resnet18, examples=64),
    "mobilenet": mobilenet,
    "mobilenet-128": partial(mobilenet, examples=128),
    "mobilenet-64": partial(mobilenet, examples=64, size=128),
    "bert": bert,
    "bert-64": partial(bert, examples=64, layers=2),
    "llama": llama,
}  # fmt: skip
