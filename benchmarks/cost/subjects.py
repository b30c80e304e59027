"""The networks that are pruned, with their examples, and measures of the small network's quality."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks.pixels import normalise_pixels
from networks.trained import trained
from safetensors.torch import load_file
from torch import Tensor, nn

from cost.definitions import InlineShortcutResNet, ResNet18
from secateur import demo
from secateur.evaluation.divergence import divergence

TESTED = 2_000


@dataclass(frozen=True)
class CostSubject:
    """A network to prune.

    Args:
        model: the network in evaluation mode.
        batches: the examples.
        keep: the budget.
        quality: returns figures of the small network by their names.
    """

    model: nn.Module
    batches: list[Any]
    keep: Mapping[str, float]
    quality: Callable[[nn.Module], dict[str, float]]

    def run(self, batch: Any) -> Any:
        """Run the network on a batch."""
        return self.model(**batch) if isinstance(batch, dict) else self.model(batch)


def _accuracies_of_both(images: Tensor, labels: Tensor, dense: nn.Module, small: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        outputs = [torch.cat([model(batch) for batch in images.split(250)]) for model in (dense, small)]
    predictions = [output.argmax(1) for output in outputs]
    return {
        "divergence": float(divergence(outputs[1], outputs[0]).mean()),
        "dense": float((predictions[0] == labels).double().mean()),
        "accuracy": float((predictions[1] == labels).double().mean()),
        "agreement": float((predictions[0] == predictions[1]).double().mean()),
    }


def _no_quality(small: nn.Module) -> dict[str, float]:
    return {}


def network_of_benchmarks(
    data: Path | None, name: str = "residual", seed: int = 0, examples: int = 256, keep: float = 0.5
) -> CostSubject:
    """A network of `benchmarks/networks` and the images that ship with Secateur."""
    model = trained(name, seed).to(memory_format=torch.channels_last)
    tests = list(zip(*demo.test(), strict=True))
    test = torch.cat(tests[0]), torch.cat(tests[1])
    images = torch.cat(demo.calibration())[:examples]
    return CostSubject(model, list(images.split(32)), {"macs": keep}, partial(_accuracies_of_both, *test, model))


def cifar_network(data: Path | None, blocks: int = 3, examples: int = 256) -> CostSubject:
    """A trained CIFAR ResNet, and images of CIFAR-10."""
    if data is None:
        raise SystemExit("--data DIR is needed for the CIFAR networks")
    model = InlineShortcutResNet(blocks)
    model.load_state_dict(load_file(data / f"cifar10_resnet{6 * blocks + 2}.safetensors"))
    model = model.eval().to(memory_format=torch.channels_last)
    with np.load(data / "cifar10.npz") as arrays:
        train, test = (_images(arrays[name]) for name in ("xtrain", "xtest"))
        labels = torch.from_numpy(arrays["ytest"]).long()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:examples]
    step = len(test) // TESTED  # the file has one class after another
    quality = partial(_accuracies_of_both, test[::step], labels[::step], model)
    return CostSubject(model, list(train[order].split(32)), {"macs": 0.5}, quality)


def _images(raw: np.ndarray) -> Tensor:
    return normalise_pixels(raw).contiguous(memory_format=torch.channels_last)


def network_on_noise(build: Callable[[], nn.Module], size: int, examples: int, batch: int = 32) -> CostSubject:
    """Return a network with random weights on noise, on which its costs hardly depend.

    Args:
        build: returns the network.
        size: the side of the images.
        examples: the number of images.
        batch: the number of images in a batch.
    """
    torch.manual_seed(0)
    model = build().eval().to(memory_format=torch.channels_last)
    images = torch.randn(examples, 3, size, size)
    return CostSubject(model, list(images.split(batch)), {"macs": 0.5}, _no_quality)


def resnet18(data: Path | None, examples: int = 256) -> CostSubject:
    """ResNet-18 with random weights on noise of 64 x 64."""
    return network_on_noise(ResNet18, 64, examples)


def mobilenet_on_noise(data: Path | None, examples: int = 512, size: int = 224) -> CostSubject:
    """MobileNetV2 with random weights on noise."""
    from pretrained.mobilenet import MobileNetV2  # noqa: PLC0415 (needs packages that the others don't)

    return network_on_noise(MobileNetV2, size, examples)


def bert(data: Path | None, examples: int = 256, layers: int = 12, width: int = 768, length: int = 64) -> CostSubject:
    """BERT with random weights on sequences of random tokens; by default the sizes of BERT-base, and 64 tokens.

    Half of the width with half of the tokens costs about as many passes: systems of equations have an eighth of the
    operations, as passes have.
    """
    from transformers import BertConfig, BertModel  # noqa: PLC0415 (needs packages that the others don't)

    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    model = BertModel(BertConfig(num_hidden_layers=layers, attn_implementation="eager", **sizes)).eval()
    tokens = torch.randint(0, 30_000, (examples, length))
    return CostSubject(model, [{"input_ids": sequences} for sequences in tokens.split(32)], {"macs": 0.5}, _no_quality)


def small_llama(data: Path | None, examples: int = 64, layers: int = 8, length: int = 32) -> CostSubject:
    """A Llama with random weights and grouped queries on sequences of random tokens; its embeddings are tied."""
    sizes = {"vocab_size": 1600, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": layers}
    return _random_llama({**sizes, "num_attention_heads": 6, "num_key_value_heads": 2}, examples, length, 16)


def words_llama(data: Path | None, examples: int = 16, layers: int = 2, length: int = 64) -> CostSubject:
    """A Llama with the widths of SmolLM2 and random weights; its outputs over the vocabulary are too large to keep."""
    sizes = {"vocab_size": 16384, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": layers}
    return _random_llama({**sizes, "num_attention_heads": 9, "num_key_value_heads": 3}, examples, length, 8)


def _random_llama(sizes: dict[str, int], examples: int, length: int, batch_size: int) -> CostSubject:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 (needs packages that the others don't)

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).eval()
    tokens = torch.randint(0, sizes["vocab_size"], (examples, length))
    batches = [{"input_ids": sequences} for sequences in tokens.split(batch_size)]
    return CostSubject(model, batches, {"params": 0.8}, _no_quality)


SUBJECTS: dict[str, Callable[[Path | None], CostSubject]] = {
    "demo": network_of_benchmarks,
    "demo-25": partial(network_of_benchmarks, keep=0.25),
    "demo-64": partial(network_of_benchmarks, examples=64),
    **{f"{name}-{seed}": partial(network_of_benchmarks, name=name, seed=seed)
       for name in ("vgg", "residual", "separable") for seed in (0, 1, 2)},
    **{f"{name}-{seed}-25": partial(network_of_benchmarks, name=name, seed=seed, keep=0.25)
       for name in ("vgg", "residual", "separable") for seed in (0, 1, 2)},
    "resnet20": cifar_network,
    "resnet56": partial(cifar_network, blocks=9),
    "resnet18": resnet18,
    "resnet18-64": partial(resnet18, examples=64),
    "mobilenet": mobilenet_on_noise,
    "mobilenet-128": partial(mobilenet_on_noise, examples=128),
    "mobilenet-64": partial(mobilenet_on_noise, examples=64, size=128),
    "bert": bert,
    "bert-1": partial(bert, layers=1),
    "bert-2": partial(bert, layers=2),
    "bert-half": partial(bert, width=384, length=32),
    "bert-half-2": partial(bert, layers=2, width=384, length=32),
    "bert-half-6": partial(bert, layers=6, width=384, length=32),
    "bert-64": partial(bert, examples=64, layers=2),
    "llama": small_llama,
    "llama-words": words_llama,
    "llama-long": partial(small_llama, examples=128, layers=4, length=256),
}  # fmt: skip
