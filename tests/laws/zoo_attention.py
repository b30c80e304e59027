"""Attention as torch builds it, and as people's code does: heads that share or take their width from elsewhere."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TorchEncoder(nn.Module):
    """`nn.TransformerEncoder`, with a padding mask that may be left out."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 10, batch_first=True, norm_first=norm_first, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding).mean(1))


class TorchTransformer(nn.Module):
    """`nn.Transformer`: self-attention and cross-attention, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Linear(6, 16), nn.Linear(5, 16)
        self.transformer = nn.Transformer(16, 4, 1, 1, 10, activation="gelu", batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.transformer(self.source(source), self.target(target), tgt_mask=mask, tgt_is_causal=True))


class CrossAttention(nn.Module):
    """`nn.MultiheadAttention` with keys of another width, biases as further tokens, and its weights as an output."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.memory = nn.Linear(6, 12), nn.Linear(6, 10)
        self.attention = nn.MultiheadAttention(12, 3, kdim=10, vdim=10, add_bias_kv=True, add_zero_attn=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, memory = (layer(x).transpose(0, 1) for layer in (self.query, self.memory))
        y, weights = self.attention(query, memory, memory)
        return self.head(F.gelu(y)).mean(0), weights


class WidthFromInput(nn.Module):
    """A head's width is the width of what comes in over the number of heads: they can only shrink together."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0), scale=0.5)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Bundles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.attention = nn.Linear(5, 12), nn.LayerNorm(12), WidthFromInput(4)
        self.up, self.down, self.head = nn.Linear(12, 9), nn.Linear(9, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


class RelativePositions(nn.Module):
    """A table of biases by head and distance, slopes by head in a buffer, and a temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 3
        self.q, self.k, self.v = (nn.Linear(6, 12) for _ in range(3))
        self.table, self.temperature = nn.Parameter(torch.randn(9, 4)), nn.Parameter(torch.rand(4, 1, 1) + 1)
        distance = torch.arange(5)[:, None] - torch.arange(5)[None]
        self.register_buffer("index", distance + 4)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25, 0.125, 0.0625]).view(4, 1, 1))
        self.register_buffer("distance", distance.abs().float())
        self.out, self.head = nn.Linear(12, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0) - self.slopes * self.distance
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.head(F.gelu(self.out(y)).mean(1))


class LookedUp(nn.Module):
    """Scores by distance are picked with `gather`, one index for all heads; the other half of the scores is hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.q, self.k, self.v = (nn.Linear(6, 12) for _ in range(3))
        self.positions = nn.Parameter(torch.randn(1, 3, 4, 9))
        self.register_buffer("index", (torch.arange(5)[:, None] - torch.arange(5)[None] + 4).view(1, 1, 5, 5))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )  # fmt: skip
        index = self.index.expand(x.shape[0], self.heads, -1, -1)
        scores = q @ k.transpose(-2, -1) + torch.gather(q @ self.positions, -1, index)
        hidden = torch.ones(5, 5, dtype=torch.bool, device=x.device).triu(1)
        y = scores.masked_fill(hidden, -1e4).softmax(-1) @ v
        return self.head(torch.tanh(y.transpose(1, 2).flatten(2)).mean(1))


class CachedBiases(nn.Module):
    """Biases of scores by head and distance, which evaluation mode looks up once and keeps in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 27), nn.Linear(9, 2)
        self.biases = nn.Parameter(torch.randn(3, 5))
        self.register_buffer("index", (torch.arange(5)[:, None] - torch.arange(5)[None]).abs())
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            biases = self.biases[:, self.index]
        else:
            key = str(x.device)
            if key not in self.cache:
                self.cache[key] = self.biases[:, self.index]
            biases = self.cache[key]
        q, k, v = self.qkv(x).unflatten(2, (3, -1, 3)).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) + biases).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2).mean(1))


def evaluated_biases() -> CachedBiases:
    """The same, after a run."""
    model = CachedBiases().eval()
    with torch.no_grad():
        model(torch.randn(2, 5, 6))
    return model


class JointAttention(nn.Module):
    """Attention over two streams with weights of their own, whose queries and keys are normalised head by head."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = nn.Linear(5, 24), nn.Linear(6, 24)
        self.text_norm, self.image_norm, self.key_norm = nn.RMSNorm(4), nn.LayerNorm(4), nn.LayerNorm(4)
        self.first, self.second = nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        streams = [layer(x).unflatten(2, (3, -1, 4)) for layer, x in ((self.text, text), (self.image, image))]
        (q1, k1, v1), (q2, k2, v2) = (stream.unbind(2) for stream in streams)
        q, k = torch.cat([self.text_norm(q1), self.image_norm(q2)], 1), self.key_norm(torch.cat([k1, k2], 1))
        heads = (x.transpose(1, 2) for x in (q, k, torch.cat([v1, v2], 1)))
        y = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.first(y[:, : text.shape[1]]), self.second(y[:, text.shape[1] :])


def padded() -> tuple[Tensor, Tensor]:
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    return torch.randn(3, 5, 6), padding


def two_sequences() -> tuple[Any, ...]:
    return torch.randn(3, 5, 6), torch.randn(3, 4, 5)
