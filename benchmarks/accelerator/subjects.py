"""The networks that are pruned on both devices, with their examples."""

import copy
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks.trained import trained
from torch import Tensor, nn

from accelerator import language
from secateur import demo

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class AcceleratorSubject:
    """A network to prune on two devices.

    Args:
        build: returns the network in evaluation mode, with the same weights at each call.
        calibration: batches of examples to prune with.
        test: batches of other examples.
        options: the options of `prune`.
        quality: returns further figures of a network by their names.
    """

    build: Callable[[], nn.Module]
    calibration: list[Any]
    test: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    quality: Callable[[nn.Module], dict[str, float]] = lambda model: {}


def residual_on_fashion(data: Path | None) -> AcceleratorSubject:
    """The residual network and the images that ship with Secateur."""
    images = torch.cat([inputs for inputs, _ in demo.test()])
    calibration = list(torch.cat(demo.calibration())[:256].split(64))
    return AcceleratorSubject(
        lambda: trained("residual", 0), calibration, list(images.split(250)), {"keep": {"macs": 0.5}}
    )


def mobilenet_on_photos(data: Path | None, examples: int = 500) -> AcceleratorSubject:
    """MobileNetV2 with its ImageNet weights and photos of ten classes."""
    from pretrained.mobilenet import mobilenet_v2  # noqa: PLC0415 (needs packages that the others don't)

    if data is None:
        raise SystemExit("mobilenet needs --data DIR with imagenette.zip")
    calibration, test = (archive_photos(data / "imagenette.zip", folder) for folder in ("training", "validation"))
    order = torch.randperm(len(calibration), generator=torch.Generator().manual_seed(0))
    calibration = calibration[order[:examples]]
    return AcceleratorSubject(mobilenet_v2, list(calibration.split(32)), list(test.split(50)), {"keep": {"macs": 0.75}})


def archive_photos(archive: Path, folder: str) -> Tensor:
    """Return the normalised photos of one folder of an archive, (images, 3, 224, 224)."""
    from PIL import Image  # noqa: PLC0415 (needs packages that the others don't)

    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.startswith(f"{folder}/") and name.endswith(".JPEG"))
        pixels = [np.asarray(Image.open(BytesIO(files.read(name))).convert("RGB"), np.float32) for name in names]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    return (images - MEAN[:, None, None]) / STD[:, None, None]


def llama_on_random_tokens(data: Path | None) -> AcceleratorSubject:
    """A Llama of SmolLM2-135M's shape with random weights, on random tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 (needs packages that the others don't)

    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        tie_word_embeddings=True,
        use_cache=False,
    )

    def build() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return LlamaForCausalLM(config).eval()

    tokens = torch.randint(0, 49_152, (48, 128), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": sequences} for sequences in tokens.split(8)]
    options = {"keep": {"params": 0.8}, "by": "l2", "kinds": "neurons", "repair": "refit", "allocation": "uniform"}
    return AcceleratorSubject(build, batches[:4], batches[4:], options)


def smollm2_on_wikitext(data: Path | None, sequences: int = 32) -> AcceleratorSubject:
    """SmolLM2-135M and sequences of 128 tokens of WikiText-2; a fifth of the blocks' parameters is removed."""
    if data is None:
        raise SystemExit("smollm2 needs --data DIR with SmolLM2-135M-Instruct.Q4_1.gguf and wikitext2.zip")
    dense, calibration, test = language.load_smollm2(data)
    batches = list(calibration[: sequences * 128].view(-1, 128).split(8))
    blocks = sum(parameter.numel() for parameter in dense.model.layers.parameters())
    keep = {"params": 1 - 0.2 * blocks / sum(parameter.numel() for parameter in dense.parameters())}
    options = {"keep": keep, "kinds": "neurons", "allocation": "uniform", "repair": "refit"}
    windows = test[:8192].view(-1, 512)
    perplexity = partial(language.perplexity, windows=windows)
    return AcceleratorSubject(
        lambda: copy.deepcopy(dense),
        [{"input_ids": batch} for batch in batches],
        [{"input_ids": window} for window in windows[:4].split(1)],
        options,
        perplexity,
    )


SUBJECTS: dict[str, Callable[[Path | None], AcceleratorSubject]] = {
    "fashion": residual_on_fashion,
    "mobilenet": mobilenet_on_photos,
    "mobilenet-128": partial(mobilenet_on_photos, examples=128),
    "llama": llama_on_random_tokens,
    "smollm2": smollm2_on_wikitext,
}
