"""Networks around one operator or a few: entries written by number, products of activations, transforms."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NODES = 5
EDGES = ((0, 1, 2, 3, 4, 0, 2), (1, 2, 3, 4, 0, 3, 1))


class Messages(nn.Module):
    """Message passing: what neighbours send is added up, averaged or compared, in four spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor(EDGES))
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 7)
        self.fourth, self.last = nn.Linear(7, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        x = F.silu(self.first(x))
        x = F.silu(self.second(torch.zeros_like(x).index_add(1, target, x[:, source])))
        targets = target[None, :, None].expand(x.shape[0], -1, x.shape[2])
        x = F.silu(self.third(x.scatter_add(1, targets, x[:, source])))
        targets = target[None, :, None].expand(x.shape[0], -1, x.shape[2])
        x = F.silu(
            self.fourth(torch.zeros_like(x).scatter_reduce(1, targets, x[:, source], "mean", include_self=False))
        )
        y = torch.zeros(x.shape[0], NODES, x.shape[2], device=x.device)
        y[:, target] += x[:, source]
        return self.last(y).mean(1)


class Assigned(nn.Module):
    """Entries replaced where comparisons say, and rows by number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x * (((x > -1) & (x < 0.8)) | (x > 2) ^ (x < -2))
        x[x > 0.5] = 0.4
        x = self.second(x)
        first, second = torch.tensor([2, 0], device=x.device), torch.tensor([1], device=x.device)
        x = x.index_copy(1, first, F.silu(x[:, :2])).index_fill(1, second, 0.3)
        x[:, [0, 3]] = torch.tanh(x[:, [3, 4]])
        return self.last(x).mean(1)


class Unpooled(nn.Module):
    """Maxima are put back where they were found."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.same, self.up = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, indices = F.max_pool2d(F.silu(self.down(x)), 2, return_indices=True)
        x = F.max_unpool2d(F.silu(self.same(x)), indices, 2)
        return self.last(F.silu(self.up(x)).mean((2, 3)))


class Bags(nn.Module):
    """Embeddings of several entries each, and the products of all pairs of features, as recommenders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(7, 6, mode=mode) for mode in ("sum", "mean", "max"))
        self.dense, self.top, self.last = nn.Linear(4, 6), nn.Linear(6 + 6, 5), nn.Linear(5, 2)
        self.register_buffer("pairs", torch.tril_indices(4, 4, -1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        features = torch.stack([F.silu(self.dense(dense)), *(table(sparse) for table in self.tables)], 1)
        products = torch.bmm(features, features.transpose(1, 2))
        crossed = products[:, self.pairs[0], self.pairs[1]]
        return self.last(F.silu(self.top(torch.cat([features[:, 0], crossed], 1))))


class Products(nn.Module):
    """Products of two activations, with something added, and distances to learned centres."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 5)
        self.mix, self.centres = nn.Linear(6, 7), nn.Parameter(torch.randn(5, 7))
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = (F.silu(layer(x)) for layer in (self.a, self.b, self.c))
        scores = torch.baddbmm(x.mean((1, 2), keepdim=True), a, b.transpose(1, 2), beta=0.3, alpha=0.7)
        y = F.silu(torch.tensordot(scores @ a, self.mix.weight, dims=([2], [1])))
        likeness = F.cosine_similarity(a, b, dim=-1)
        y = torch.exp(-torch.cdist(y, self.centres.expand(x.shape[0], -1, -1)))
        paired = torch.addmm(y[:, 0] @ c[:, 0].t(), a[:, 0], b[:, 0].t())
        return self.last(y), likeness, paired.sum(1)


class Spectra(nn.Module):
    """Tokens mixed by Fourier transforms along other axes than the units', and rotations as complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("turns", torch.polar(torch.ones(5, 1), torch.arange(5.0)[:, None]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x))
        x = (
            torch.fft.irfft(torch.fft.rfft(x, dim=1) * 0.5, n=x.shape[1], dim=1)
            + torch.fft.fft2(x, dim=(0, 1)).real * 0
        )
        y = F.silu(self.second(x))
        y = torch.view_as_complex(y.unflatten(-1, (-1, 2))) * self.turns
        return self.last(torch.view_as_real(y).flatten(2)).mean(1)


class MaskedAttention(nn.Module):
    """`nn.MultiheadAttention` as it is called by default, with a causal and a padding mask."""

    def __init__(self, further_tokens: bool) -> None:
        super().__init__()
        further = {"add_bias_kv": further_tokens, "add_zero_attn": further_tokens}
        self.embed, self.attention = nn.Linear(6, 12), nn.MultiheadAttention(12, 3, batch_first=True, **further)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        causal = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
        padding = (torch.arange(x.shape[1], device=x.device) > 3).expand(x.shape[0], -1)
        y, _ = self.attention(x, x, x, attn_mask=causal, key_padding_mask=padding.float() * -9)
        return self.last(x + y).mean(1)


def two_kinds() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 4), torch.randint(0, 7, (3, 4))


class Scan(nn.Module):
    """A state space: an outer product of channels and states, of which one kind can be cut, and a scan over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rates = nn.Linear(4, 6), nn.Parameter(torch.rand(6, 3))
        self.write, self.read, self.last = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.inner(x))
        write, read, state, outputs = self.write(x), self.read(x), 0.0, []
        for step in range(3):
            decay = torch.exp(-x[:, step, :, None].abs() * self.rates)
            state = state * decay + x[:, step, :, None] * write[:, step, None]
            outputs.append((state @ read[:, step, :, None]).squeeze(-1))
        return self.last(torch.stack(outputs, 1)).mean(1)


class MultiQuery(nn.Module):
    """Heads that share one key and one value, once by `expand` and once by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.embed, self.q, self.kv = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(8, 6)
        self.out, self.last = nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unsqueeze(1).chunk(2, -1)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        k, v = (shared.expand(-1, self.num_heads, -1, -1) for shared in (k, v))
        y = y + F.scaled_dot_product_attention(q, k, v)
        return self.last(x + self.out(y.transpose(1, 2).flatten(2))).mean(1)


class Standardised(nn.Module):
    """Activations less their mean, over their standard deviation, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-3)).mean(1)


class Penalised(nn.Module):
    """Means over all entries beside the output, as codebooks return what their training adds to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.first(x))
        y = torch.tanh(self.second(x))
        return self.last(y), (x.square().mean() + y.var()).expand(len(x))


class ShuffledByHand(nn.Module):
    """Grouped convolutions with as many groups as channels in each, and a channel shuffle written out behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 9, 1), nn.Conv2d(9, 9, 3, groups=3)
        self.after, self.last = nn.Conv2d(9, 9, 1, groups=9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.grouped(F.silu(self.stem(x))))
        batch, channels, height, width = x.shape
        x = x.view(batch, 3, channels // 3, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.last(F.silu(self.after(x)).mean((2, 3)))


class FoldedHeads(nn.Module):
    """Heads folded into the batch beside a width that the code leaves to -1."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.last = nn.Linear(6, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            projection.view(batch, length, self.num_heads, 2)
            .transpose(1, 2)
            .reshape(batch * self.num_heads, length, -1)
            for projection in self.qkv(x).chunk(3, -1)
        )
        y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return self.last(y.view(batch, self.num_heads, length, -1).transpose(1, 2).flatten(2)).mean(1)


class UnitWeights(nn.Module):
    """A linear layer whose rows have length 1, a cosine classifier, and distances to prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.cosine = nn.Parameter(torch.randn(6, 4)), nn.Linear(6, 5, bias=False)
        self.prototypes, self.last = nn.Parameter(torch.randn(7, 5)), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(F.linear(x, F.normalize(self.rows)))
        x = F.linear(F.normalize(x), self.cosine.weight / self.cosine.weight.norm(dim=1, keepdim=True))
        return self.last(torch.exp(-torch.cdist(x, self.prototypes)))


class UnitFeatures(nn.Module):
    """Two streams, each over its length by `torch.linalg.norm`, and their products; and norms of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.matrix = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 5)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, text = self.image(x), self.text(x)
        image = image / torch.linalg.norm(image, dim=-1, keepdim=True)
        text = text / (torch.linalg.norm(text, ord=2, dim=-1, keepdim=True) + 1e-6)
        matrix = torch.linalg.norm(torch.tanh(self.matrix(x)), ord=2, dim=(1, 2))
        return image @ text.transpose(1, 2), self.last(image), matrix


class StandardConv(nn.Conv2d):
    """A convolution whose filters are given mean 0 and variance 1, by batch norm or written out."""

    def __init__(self, channels_in: int, channels_out: int, by_norm: bool) -> None:
        super().__init__(channels_in, channels_out, 3)
        self.by_norm, self.gain = by_norm, nn.Parameter(torch.rand(channels_out) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.by_norm:
            rows = self.weight.reshape(1, self.out_channels, -1)
            weight = F.batch_norm(rows, None, None, weight=self.gain, training=True, momentum=0.0).reshape_as(
                self.weight
            )
        else:
            variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            weight = (self.weight - mean) / torch.sqrt(variance + 1e-5) * self.gain.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.bias)


class StandardWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = StandardConv(3, 6, True), StandardConv(6, 5, False)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.second(F.silu(self.first(x)))).mean((2, 3)))


class Splines(nn.Module):
    """A layer of learned functions, each a sum of bases: its weight has three axes and is flattened to be used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, 4).expand(inputs, -1).contiguous())
        self.weight, self.scale = (
            nn.Parameter(torch.randn(outputs, inputs, 3)),
            nn.Parameter(torch.rand(outputs, inputs)),
        )
        self.base = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        positions = x.unsqueeze(-1)
        inside = ((positions >= self.grid[:, :-1]) & (positions < self.grid[:, 1:])).to(x.dtype)
        bases = inside * (positions - self.grid[:, :-1])
        weight = (self.weight * self.scale.unsqueeze(-1)).flatten(1)
        return F.linear(F.silu(x), self.base) + F.linear(bases.reshape(x.shape[0], -1), weight)


class ResizedPositions(nn.Module):
    """A table of relative places that is resized, or normalised, before it meets the queries of all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(12, 6)
        self.rows, self.columns = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(9, 4))
        self.register_buffer("distance", torch.arange(5)[:, None] - torch.arange(5)[None] + 4)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.num_heads, length, -1).unbind(0)
        rows = F.interpolate(self.rows.t()[None], size=9, mode="linear")[0].t()[self.distance]
        columns = F.normalize(self.columns, dim=-1)[self.distance]
        scores = q @ k.transpose(-2, -1) + torch.einsum("bqc,qkc->bqk", q, rows + columns)
        y = (scores.softmax(-1) @ v).view(batch, self.num_heads, length, -1).transpose(1, 2).flatten(2)
        return self.last(F.silu(self.out(y))).mean(1)


class Responses(nn.Module):
    """Local response norms over images and over sequences: each channel is divided by what its neighbours say."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 7, 3), nn.LocalResponseNorm(3, alpha=0.5)
        self.flat, self.last = nn.Conv1d(7, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.silu(self.conv(x))).flatten(2)
        return self.last(F.local_response_norm(F.silu(self.flat(x)), 4, alpha=0.5).mean(2))


class ComplexLayers(nn.Module):
    """Linear layers of complex numbers, and a spectral convolution with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6, dtype=torch.cfloat), nn.Linear(6, 5, dtype=torch.cfloat)
        self.third, self.last = nn.Linear(5, 4), nn.Linear(4, 2)
        self.spectral = nn.Parameter(torch.randn(4, 4, dtype=torch.cfloat) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x.to(torch.cfloat))).abs()).relu()
        spectrum = torch.fft.rfft(x, dim=1) @ self.spectral
        return self.last(torch.fft.irfft(spectrum, n=x.shape[1], dim=1)).mean(1)


class Maxima(nn.Module):
    """The larger of two halves, the smaller of two layers, and a product with a stack of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.halves, self.left, self.right = nn.Linear(6, 16), nn.Linear(8, 7), nn.Linear(8, 7)
        self.table, self.last = nn.Parameter(torch.randn(1, 7, 5)), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max(*self.halves(x).chunk(2, -1))
        x = torch.min(self.left(x), self.right(x))
        return self.last(F.silu(x @ self.table)[0])
