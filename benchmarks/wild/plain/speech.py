"""Networks for sound and for lines of text: Conformer, CREPE, CRNN, a recurrent keyword spotter."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _feedforward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class RelativeAttention(nn.Module):
    """Attention whose scores depend on the distance of two frames, as in Transformer-XL."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.position = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.randn(heads, self.head_width) * 0.1)
        self.position_bias = nn.Parameter(torch.randn(heads, self.head_width) * 0.1)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        batch, frames, _ = x.shape
        query = self.query(x).view(batch, frames, self.heads, self.head_width)
        key = self.key(x).view(batch, frames, self.heads, self.head_width).permute(0, 2, 3, 1)
        value = self.value(x).view(batch, frames, self.heads, self.head_width).transpose(1, 2)
        position = self.position(distances).view(-1, self.heads, self.head_width).permute(1, 2, 0)
        content = torch.matmul((query + self.content_bias).transpose(1, 2), key)
        relative = self._shifted(torch.matmul((query + self.position_bias).transpose(1, 2), position))
        weights = ((content + relative) / math.sqrt(self.head_width)).softmax(-1)
        y = torch.matmul(weights, value).transpose(1, 2).reshape(batch, frames, -1)
        return self.out(y)  # type: ignore[no-any-return]

    def _shifted(self, scores: Tensor) -> Tensor:
        """Row i shifted by i, so that column j holds the score of distance i - j."""
        batch, heads, frames, distances = scores.shape
        padded = F.pad(scores, (1, 0)).view(batch, heads, distances + 1, frames)
        return padded[:, :, 1:].reshape(batch, heads, frames, distances)[..., :frames]


class ConvolutionModule(nn.Module):
    """Pointwise with a gated linear unit, depthwise, batch norm, pointwise."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.project = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.expand(self.norm(x).transpose(1, 2)), 1)
        y: Tensor = self.project(F.silu(self.batch_norm(self.depthwise(x)))).transpose(1, 2)
        return y


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.before, self.after = _feedforward(width), _feedforward(width)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.convolution = RelativeAttention(width, heads), ConvolutionModule(width, kernel)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        x = x + 0.5 * self.before(x)
        x = x + self.attention(self.attention_norm(x), distances)
        x = x + self.convolution(x)
        y: Tensor = self.norm(x + 0.5 * self.after(x))
        return y


class Conformer(nn.Module):
    """The Conformer encoder of Gulati et al., 2020, with convolutions that take every fourth frame."""

    def __init__(self, bands: int = 20, width: int = 32, heads: int = 4, blocks: int = 2, classes: int = 12) -> None:
        super().__init__()
        self.width = width
        self.subsample = nn.Sequential(
            nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU()
        )  # fmt: skip
        self.embed = nn.Linear(width * (((bands - 1) // 2 - 1) // 2), width)
        self.blocks = nn.ModuleList(ConformerBlock(width, heads, 7) for _ in range(blocks))
        self.head = nn.Linear(width, classes)

    def forward(self, spectrum: Tensor) -> Tensor:
        x = self.subsample(spectrum[:, None])  # (B, width, frames, bands)
        x = self.embed(x.transpose(1, 2).flatten(2))
        distances = self._distances(x.shape[1])
        for block in self.blocks:
            x = block(x, distances)
        logits: Tensor = self.head(x)
        return logits.log_softmax(-1)

    def _distances(self, frames: int) -> Tensor:
        """Sines and cosines of the distances frames - 1 ... 1 - frames, (2 frames - 1, width)."""
        steps = torch.arange(frames - 1, -frames, -1, dtype=torch.float32)[:, None]
        rates = torch.exp(torch.arange(0, self.width, 2) * (-math.log(10000.0) / self.width))
        return torch.stack([(steps * rates).sin(), (steps * rates).cos()], -1).flatten(1)


class Crepe(nn.Module):
    """The pitch estimator CREPE of Kim et al., 2018, in its smallest size: one frame of 1024 samples, 360 pitches."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for index, (a, b) in enumerate(itertools.pairwise(widths), 1):
            kernel, stride = ((512, 1), (4, 1)) if index == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{index}", nn.Conv2d(a, b, kernel, stride))
            setattr(self, f"conv{index}_BN", nn.BatchNorm2d(b, eps=0.0010000000474974513, momentum=0.0))
        self.classifier = nn.Linear(64 * 4, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-10)
        x = x[:, None, :, None]
        for index in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if index == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{index}_BN")(F.relu(getattr(self, f"conv{index}")(x)))
            x = F.max_pool2d(x, (2, 1), (2, 1))
        pitches: Tensor = self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 64 * 4))
        return pitches.sigmoid()


class CRNN(nn.Module):
    """The text recogniser of Shi et al., 2015: convolutions down to one row, two bidirectional LSTMs along it."""

    def __init__(self, classes: int = 20, hidden: int = 24) -> None:
        super().__init__()
        widths, pools = (1, 16, 24, 32, 32), ((2, 2), (2, 2), (2, 1), (2, 1))
        layers: list[nn.Module] = []
        for (a, b), pool in zip(itertools.pairwise(widths), pools, strict=True):
            layers += [
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(pool, pool),
            ]
        self.cnn = nn.Sequential(*layers, nn.Conv2d(32, 40, 2), nn.ReLU(inplace=True))
        self.first = nn.LSTM(40, hidden, bidirectional=True)
        self.between = nn.Linear(2 * hidden, hidden)
        self.second = nn.LSTM(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, image: Tensor) -> Tensor:
        columns = self.cnn(image).squeeze(2).permute(2, 0, 1)  # (steps, B, 40)
        steps = self.between(self.first(columns)[0])
        logits: Tensor = self.head(self.second(steps)[0])
        return logits.transpose(0, 1).log_softmax(-1)  # (B, steps, classes)


class KeywordLSTM(nn.Module):
    """A keyword spotter: two bidirectional LSTM layers over the frames, their mean, a linear layer."""

    def __init__(self, bands: int = 20, hidden: int = 24, classes: int = 12) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(frames)[0].mean(1))
        return logits
