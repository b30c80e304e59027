"""Clips of Speech Commands as mel spectrograms, the logarithm to base two."""

import io
import wave
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from published.bcresnet import load_bcresnet
from published.subject import PublishedSubject

RATE, FFT, HOP, BANDS = 16_000, 1024, 512, 40
FLOOR = 1e-9
CLIPS = 400  # to prune with


def read_clips(path: Path) -> tuple[Tensor, Tensor]:
    """Read the words of an archive of folders named after words.

    Returns:
        Spectrograms (clips, 1, 40, 32) and the numbers of the words in alphabetical order (clips,), in an order drawn
        once.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".wav") and not name.startswith("_silence_")]
        words = sorted({_word(name) for name in names})
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
        names = [names[index] for index in order]
        waves = torch.stack([_samples(archive.read(name)) for name in names])
    return log_mel(waves), torch.tensor([words.index(_word(name)) for name in names])


def _word(name: str) -> str:
    """Return the word of a file: its folder, or in the folder of unknown words the start of its name."""
    folder, _, file = name.partition("/")
    return file.split("_")[0] if folder == "_unknown_" else folder


def _samples(content: bytes) -> Tensor:
    """Return one second of samples from -1 to 1, (16000,)."""
    with wave.open(io.BytesIO(content)) as file:
        values = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    return torch.from_numpy(np.pad(values, (0, max(0, RATE - len(values))))[:RATE])


def log_mel(waves: Tensor) -> Tensor:
    """Return mel spectrograms, as logarithms to base two, (clips, 1, 40, 32), of waves (clips, 16000)."""
    window, filters = torch.hann_window(FFT), mel_filters()
    spectrograms = []
    for clips in waves.split(256):
        spectra = torch.stft(clips, FFT, HOP, window=window, return_complex=True).abs().square()
        spectrograms.append((filters @ spectra + FLOOR).log2())  # (clips, bands, steps)
    return torch.cat(spectrograms)[:, None]


def mel_filters() -> Tensor:
    """Return triangular filters on the HTK mel scale from 0 to 8 kHz, (bands, frequencies)."""
    frequencies = torch.linspace(0, RATE / 2, FFT // 2 + 1)
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, float(top), BANDS + 2) / 2595) - 1)
    slopes = edges[:, None] - frequencies  # (edges, frequencies)
    widths = edges.diff()[:, None]
    return torch.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]).clamp_min(0)


def speech_subject(folder: Path) -> PublishedSubject:
    """Return BC-ResNet-2 with clips of the archive: 400 to draw from, the others to test on."""
    clips, words = read_clips(folder / "speech_commands.zip")
    model = load_bcresnet(folder / "speech_commands_bcresnet2.safetensors")
    return PublishedSubject("BC-ResNet-2", clips[:CLIPS], clips[CLIPS:], words[CLIPS:], model)
