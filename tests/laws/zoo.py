"""Tiny networks, one or more for each kind of rule, that every law is tried on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo_attention as attention
import zoo_code as code
import zoo_heads as heads
import zoo_operators as operators
import zoo_others as others

BATCH = 3


@dataclass(frozen=True)
class Specimen:
    """A network of the zoo.

    Args:
        make: builds it, with random weights.
        inputs: an example: a tensor, a tuple or a dict.
        groups: the sizes of the groups that must be found, by name.
        frozen: what may be frozen beside the output layer, with a part of the reason that must be given.
        options: with which it is traced.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    groups: dict[str, int]
    frozen: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def images(channels: int = 3, size: int = 8) -> Callable[[], Tensor]:
    return lambda: torch.randn(BATCH, channels, size, size)


def tokens(width: int = 12, length: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randn(BATCH, length, width)


def conv_bn(channels_in: int, channels_out: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False, **options),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Vgg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2), conv_bn(6, 8), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.fc(F.relu_(y).mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.expand = conv_bn(4, 8, 1)
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        return self.fc(F.hardswish(x).mean(dim=[2, 3]))


class Grouped(nn.Module):
    """Convolutions in many small groups, which go whole, and in few large ones, which shrink."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=groups)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.grouped(torch.relu(self.first(x))))).amax((2, 3))


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6)
        self.conv2 = nn.Conv1d(6, 5, 3, stride=2, dilation=2)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.gelu(self.norm(self.conv1(x))), 2)
        return self.fc(F.elu(self.conv2(x)).mean(-1))


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(2, 5, 3, padding=1), nn.Conv3d(5, 4, 2)
        self.fc = nn.Linear(4 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool3d(F.silu(self.conv1(x)), 2)
        x = F.interpolate(torch.tanh(self.conv2(x)), size=(2, 2, 2), mode="trilinear", align_corners=False)
        return self.fc(x.flatten(1))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4 + 3 * i), nn.ReLU(), nn.Conv2d(4 + 3 * i, 3, 3, padding=1)) for i in range(3)
        )
        self.norm, self.fc = nn.BatchNorm2d(13), nn.Linear(13, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.fc(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class GatedUnit(nn.Module):
    """A gated linear unit, by chunk, by split or by slices."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.inner, self.outer = nn.Linear(6, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        half = y.shape[-1] // 2
        if self.how == "chunk":
            a, b = y.chunk(2, dim=-1)
        elif self.how == "split":
            a, b = y.split(half, dim=-1)
        else:
            a, b = y[..., :half], y[..., half:]
        return self.outer(a * torch.sigmoid(b))


class Attention(nn.Module):
    """Self-attention with separate or fused projections, by torch's operator or by products."""

    def __init__(self, width: int, heads: int, fused: bool, by_products: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused, self.by_products = heads, 3, fused, by_products
        inner = heads * self.head_dim
        if fused:
            self.qkv = nn.Linear(width, 3 * inner)
        else:
            self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if self.fused:
            qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        else:
            q, k, v = (
                layer(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        if self.by_products:
            scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5
            y = scores.softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Encoder(nn.Module):
    """Embedding, positions as a bare parameter, attention and a feed-forward block, each behind a layer norm."""

    def __init__(self, fused: bool, by_products: bool) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(11, 12), nn.Parameter(torch.randn(1, 5, 12))
        self.norm1, self.attention = nn.LayerNorm(12), Attention(12, 4, fused, by_products)
        self.norm2, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 10), nn.Linear(10, 12)
        self.norm3, self.head = nn.LayerNorm(12, elementwise_affine=False), nn.Linear(12, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x))


class ClassToken(nn.Module):
    """A learned token beside the patches, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.randn(1, 1, 12))
        self.norm, self.attention = nn.LayerNorm(12), Attention(12, 4, True, False)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.attention(self.norm(x))
        return self.head(x[:, 0])


class GroupNorms(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(groups, 8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3, padding=1), nn.GroupNorm(1, 6, affine=False)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(F.leaky_relu(self.norm2(self.conv2(x))).mean((-1, -2)))


class Bare(nn.Module):
    """Nothing but parameters and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(6, 3, 3, 3) / 4)
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.table = nn.Parameter(torch.randn(6, 5) / 2)
        self.last = nn.Parameter(torch.randn(4, 5))
        self.register_buffer("shift", torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.conv2d(x, self.filters)) * self.scale
        x = torch.relu(x.mean((2, 3)) @ self.table + self.shift)
        return F.linear(x, self.last)


class Reused(nn.Module):
    """One layer called twice, and an embedding that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.twice = nn.Embedding(9, 8), nn.Linear(8, 8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).mean(1)
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.head(self.norm(x + self.narrow(F.silu(self.wide(x)))))


class TwoStreams(nn.Module):
    """Two inputs by name, two outputs in a dict; one stream scales the other."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Conv2d(3, 6, 3), nn.Linear(7, 6)
        self.squeeze, self.excite = nn.Linear(6, 4), nn.Linear(4, 6)
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, image: Tensor, text: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
        x = F.relu(self.image(image))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))[:, :, None, None]
        x = x.amax((2, 3)) + scale * self.text(text)
        return {"first": self.first(x), "second": self.second(x)}


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 5), conv_bn(5, 7)
        self.up, self.last = conv_bn(12, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(F.pad(x, (1, 1, 1, 1)))
        b = self.down2(F.max_pool2d(a, 2))
        b = F.interpolate(b, scale_factor=2, mode="nearest")
        return self.last(self.up(torch.cat([a, b], dim=1)))


class Flat(nn.Module):
    """Batch norm and layer norm over flattened and over whole feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 5, 3, padding=1), nn.LayerNorm([5, 4, 4])
        self.norm2, self.fc1 = nn.BatchNorm1d(80), nn.Linear(80, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x))).view(x.shape[0], -1)
        return self.fc2(F.relu(self.fc1(self.norm2(x))))


class Backwards(nn.Module):
    """From a vector to feature maps: a reshape that splits an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.conv1, self.conv2 = nn.Linear(6, 5 * 4), nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc(x)).unflatten(1, (-1, 2, 2))
        return self.conv2(torch.relu(self.conv1(F.interpolate(x, scale_factor=2.0))))


class Mixture(nn.Module):
    """Soft mixture of branches by a softmax, one branch without gradients, stacked and summed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.left, self.right, self.last = nn.Linear(6, 2), nn.Linear(6, 7), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        with torch.no_grad():
            first = torch.tanh(self.left(x))
        both = torch.stack([first, self.right(x)], dim=1)
        return self.last((both * weights.unsqueeze(-1)).sum(1))


class TimeFirst(nn.Module):
    """The batch is the second axis inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 9), nn.Linear(9, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(x.transpose(0, 1)))
        return self.fc3(torch.relu(self.fc2(x)).mean(0))


class FixedBatch(nn.Module):
    """Its code knows the size of its batch, so coalitions can't be stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x.view(2, 6))))


class HardWired(nn.Module):
    """A head count and a slice that are written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.up, self.head = nn.Linear(12, 36), nn.Linear(12, 12), nn.Linear(12, 9), nn.Linear(9, 4)
        self.sliced, self.last, self.rest = nn.Linear(4, 10), nn.Linear(7, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(x.shape[0], x.shape[1], 3, 4, 3).permute(2, 0, 3, 1, 4)
        x = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = self.head(torch.relu(self.up(x)).mean(1))
        x = F.silu(self.sliced(x))
        return self.last(x[:, 3:]) + self.rest(x[:, :3])


class Unknown(nn.Module):
    """An operator without a rule freezes what it touches, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(7, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cumulative_trapezoid(torch.relu(self.fc1(x)))
        return self.fc3(torch.tanh(self.fc2(x)))


class Decoder(nn.Module):
    """Transposed convolutions, plain and depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.up1 = nn.Linear(6, 8), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.up2, self.last = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=6), nn.ConvTranspose2d(6, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.fc(x))[:, :, None, None]
        return self.last(F.silu(self.up2(F.silu(self.up1(x)))))


class ByHand(nn.Module):
    """Norms spelled out: root mean square over the width, a unit vector, and torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.scale, self.fc2 = nn.Linear(6, 8), nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 9)
        self.norm, self.fc3, self.plain = nn.RMSNorm(9), nn.Linear(9, 7), nn.RMSNorm(7, elementwise_affine=False)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = self.fc2(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale)
        x = self.fc3(F.silu(self.norm(x)))
        return self.last(F.normalize(self.plain(x), dim=-1))


class Shuffles(nn.Module):
    """Channel shuffle by torch and by hand, pixels to channels and back, patches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.conv3, self.conv4 = nn.Conv2d(12, 20, 1), nn.Conv2d(5, 6, 1)
        self.conv5, self.fc = nn.Conv2d(24, 5, 1), nn.Linear(45, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.channel_shuffle(F.silu(self.conv1(x)), 2)
        x = F.silu(self.conv2(x))
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        x = F.pixel_shuffle(F.silu(self.conv3(x)), 2)
        x = F.silu(self.conv5(F.pixel_unshuffle(F.silu(self.conv4(x)), 2)))
        return self.fc(F.unfold(x, 3, stride=3).mean(-1))


class Einsums(nn.Module):
    """Projections and attention by einsum, `glu`, and tokens picked by an index."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Parameter(torch.randn(12, 8)), nn.Parameter(torch.randn(10, 8) / 3)
        self.outer, self.head = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("btc,cd->btd", x, self.embed)
        y = F.glu(torch.einsum("btd,ed->bte", x, self.inner), dim=-1)
        x = x + self.outer(y)
        last = torch.full((x.shape[0],), x.shape[1] - 1, device=x.device)
        return self.head(x[torch.arange(x.shape[0], device=x.device), last])


class Rectangle(nn.Module):
    """Channels seen as three rows of equal length, transposed: of each column, all three entries go or none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        batch, channels, height, width = x.shape
        x = x.view(batch, 3, channels // 3, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.last(x).mean((2, 3))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))


def instance_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.InstanceNorm2d(6, affine=True),
        nn.PReLU(6),
        nn.Conv2d(6, 5, 3),
        nn.Flatten(),
        nn.Linear(80, 2),
    )


def ids() -> Tensor:
    return torch.randint(0, 9, (BATCH, 5))


ENCODER = {"embed": 12, "up": 10}
ZOO: dict[str, Specimen] = {
    "mlp": Specimen(mlp, lambda: torch.randn(BATCH, 6), {"0": 10, "2": 8}),
    "vgg": Specimen(Vgg, images(), {"features.0.0": 6, "features.2.0": 8, "head.1": 10}),
    "residual": Specimen(Residual, images(), {"stem.0": 6, "conv1": 5}),
    "inverted residual": Specimen(InvertedResidual, images(), {"stem": 4, "expand.0": 8}),
    "many groups": Specimen(lambda: Grouped(8), images(), {"first": 8}),
    "few groups": Specimen(lambda: Grouped(2), images(), {"first": 8, "grouped": 8}),
    "conv1d": Specimen(Sequence, lambda: torch.randn(BATCH, 4, 12), {"conv1": 6, "conv2": 5}),
    "conv3d": Specimen(Volume, lambda: torch.randn(BATCH, 2, 6, 6, 6), {"conv1": 5, "conv2": 4}),
    "dense": Specimen(Dense, images(), {"stem": 4, "layers.0.2": 3, "layers.1.2": 3, "layers.2.2": 3}),
    "glu by chunk": Specimen(lambda: GatedUnit("chunk"), lambda: torch.randn(BATCH, 6), {"inner": 8}),
    "glu by split": Specimen(
        lambda: GatedUnit("split"),
        lambda: torch.randn(BATCH, 6),
        {"inner": 8},
    ),
    "glu by slices": Specimen(lambda: GatedUnit("slices"), lambda: torch.randn(BATCH, 6), {"inner": 8}),
    "encoder": Specimen(lambda: Encoder(False, False), ids, {**ENCODER, "attention.q": 4}),
    "encoder by products": Specimen(lambda: Encoder(False, True), ids, {**ENCODER, "attention.q": 4}),
    "encoder fused": Specimen(lambda: Encoder(True, False), ids, {**ENCODER, "attention.qkv": 4}),
    "encoder fused by products": Specimen(lambda: Encoder(True, True), ids, {**ENCODER, "attention.qkv": 4}),
    "class token": Specimen(ClassToken, images(), {"patches": 12, "attention.qkv": 4}),
    "group norm": Specimen(lambda: GroupNorms(4), images(), {"conv1": 4, "conv2": 6}),
    "one group norm": Specimen(lambda: GroupNorms(1), images(), {"conv1": 8, "conv2": 6}),
    "instance norm": Specimen(instance_norms, images(), {"0": 6, "3": 5}),
    "bare parameters": Specimen(Bare, images(), {"filters": 6, "table": 5}),
    "reused": Specimen(Reused, ids, {"embed": 8, "wide": 6}, {"embed": "rows are chosen by the input"}),
    "two streams": Specimen(
        TwoStreams,
        lambda: {"image": torch.randn(BATCH, 3, 6, 6), "text": torch.randn(BATCH, 7)},
        {"image": 6, "squeeze": 4},
    ),
    "unet": Specimen(Unet, images(), {"down1.0": 5, "down2.0": 7, "up.0": 6}),
    "flat": Specimen(Flat, images(2, 4), {"conv1": 5, "fc1": 6}),
    "backwards": Specimen(Backwards, lambda: torch.randn(BATCH, 6), {"fc": 5, "conv1": 6}),
    "mixture": Specimen(
        Mixture, lambda: torch.randn(BATCH, 6), {"left": 7}, {"gate": "is normalised over these units"}
    ),
    "time first": Specimen(TimeFirst, tokens(), {"fc1": 9, "fc2": 8}),
    "fixed batch": Specimen(FixedBatch, lambda: torch.randn(2, 6), {"fc1": 8}),
    "hard-wired": Specimen(
        HardWired,
        tokens(),
        {"qkv": 4, "out": 12, "up": 9, "head": 4, "sliced": 3, "sliced#2": 7},
    ),
    "hard-wired program": Specimen(
        HardWired,
        tokens(),
        {"qkv": 4, "out": 12, "up": 9, "head": 4, "sliced": 3, "sliced#2": 7},
        options={"as_program": True},
    ),
    "decoder": Specimen(Decoder, lambda: torch.randn(BATCH, 6), {"fc": 8, "up1": 6}),
    "norms by hand": Specimen(ByHand, lambda: torch.randn(BATCH, 6), {"fc1": 8, "fc2": 9, "fc3": 7}),
    "shuffles": Specimen(Shuffles, images(3, 6), {"conv1": 2, "conv2": 6, "conv3": 5, "conv4": 6, "conv5": 5}),
    "rectangle": Specimen(Rectangle, images(), {"conv": 4}),
    "einsums": Specimen(Einsums, tokens(), {"embed": 8, "inner": 5}),
    "unknown operator": Specimen(
        Unknown, lambda: torch.randn(BATCH, 6), {"fc2": 7}, {"fc1": "there is no rule for this operator"}
    ),
    "messages": Specimen(operators.Messages, tokens(4), {"first": 6, "second": 5, "third": 7, "fourth": 6}),
    "assigned": Specimen(operators.Assigned, tokens(4), {"first": 6, "second": 5}),
    "unpooled": Specimen(operators.Unpooled, images(), {"down": 6, "up": 4}),
    "bags": Specimen(operators.Bags, operators.two_kinds, {"dense": 6, "top": 5}),
    "products": Specimen(operators.Products, tokens(4), {"a": 6, "c": 5, "mix": 7}),
    "maxima": Specimen(operators.Maxima, lambda: torch.randn(BATCH, 6), {"halves": 8, "left": 7, "table": 5}),
    "spectra": Specimen(operators.Spectra, tokens(4), {"first": 6, "second": 4}, {"turns": "can't be cut"}),
    "complex layers": Specimen(
        operators.ComplexLayers, tokens(4), {"first": 6, "second": 5, "third": 4, "spectral": 4}
    ),
    "masked attention": Specimen(lambda: operators.MaskedAttention(False), tokens(6), {"embed": 12, "attention": 3}),
    "masked attention over further tokens": Specimen(
        lambda: operators.MaskedAttention(True), tokens(6), {"embed": 12, "attention": 3}
    ),
    "scan": Specimen(operators.Scan, tokens(4), {"inner": 6}, {"write": "crosses", "read": "kinds"}),
    "multi-query": Specimen(operators.MultiQuery, tokens(6), {"embed": 8, "q": 4}, {"kv": "is shared by all heads"}),
    "multi-query as a program": Specimen(
        operators.MultiQuery,
        tokens(6),
        {"embed": 8, "q": 4},
        {"kv": "is shared by all heads"},
        {"as_program": True},
    ),
    "standardised": Specimen(operators.Standardised, tokens(4), {"first": 6}),
    "penalised": Specimen(operators.Penalised, lambda: torch.randn(BATCH, 4), {"first": 6, "second": 5}),
    "shuffled by hand": Specimen(operators.ShuffledByHand, images(3, 6), {"stem": 3, "grouped": 3}),
    "folded heads as a program": Specimen(operators.FoldedHeads, tokens(6), {"qkv": 4}, options={"as_program": True}),
    "weights of length 1": Specimen(
        operators.UnitWeights, lambda: torch.randn(BATCH, 4), {"rows": 6, "cosine": 5, "prototypes": 7}
    ),
    "features of length 1": Specimen(
        operators.UnitFeatures, tokens(4), {"image": 6}, {"matrix": "is reduced over these units"}
    ),
    "standard weights": Specimen(operators.StandardWeights, images(), {"first": 6, "second": 5}),
    "splines": Specimen(
        lambda: nn.Sequential(operators.Splines(4, 6), operators.Splines(6, 5), nn.Linear(5, 2)),
        lambda: torch.randn(BATCH, 4),
        {"0": 6, "1": 5},
        {"0": "is a single unit", "0#2": "can't be run"},
    ),
    "resized positions": Specimen(
        operators.ResizedPositions,
        tokens(6),
        {"qkv": 3, "out": 6},
        {"rows": "the same weights serve every unit", "columns": "the same weights serve every unit"},
    ),
    "local responses": Specimen(operators.Responses, images(3, 6), {"conv": 7, "flat": 6}),
    "torch encoder": Specimen(
        lambda: attention.TorchEncoder(False),
        attention.padded,
        {"embed": 16}
        | {
            f"encoder.layers.{i}.{module_name}": size
            for i in (0, 1)
            for module_name, size in (("self_attn", 4), ("linear1", 10))
        },
    ),
    "torch encoder, norm first": Specimen(
        lambda: attention.TorchEncoder(True),
        tokens(6),
        {"embed": 16}
        | {
            f"encoder.layers.{i}.{module_name}": size
            for i in (0, 1)
            for module_name, size in (("self_attn", 4), ("linear1", 10))
        },
    ),
    "torch transformer": Specimen(
        attention.TorchTransformer,
        attention.two_sequences,
        {
            "source": 16,
            "transformer.encoder.layers.0.self_attn": 4,
            "transformer.encoder.layers.0.linear1": 10,
            "transformer.decoder.layers.0.self_attn": 4,
            "transformer.decoder.layers.0.multihead_attn": 4,
            "transformer.decoder.layers.0.linear1": 10,
        },
    ),
    "cross attention": Specimen(
        attention.CrossAttention, tokens(6), {"query": 12, "memory": 10, "attention": 3, "attention.out_proj": 12}
    ),
    "bundles": Specimen(attention.Bundles, tokens(5), {"embed": 4, "up": 9}),
    "bundles as a program": Specimen(
        attention.Bundles, tokens(5), {"embed": 12, "attention.qkv": 4, "up": 9}, options={"as_program": True}
    ),
    "relative positions": Specimen(attention.RelativePositions, tokens(6), {"q": 4, "out": 7}, {"distance": "meets"}),
    "heads in front of the examples": Specimen(heads.HeadsOutside, tokens(6), {"qkv": 3, "out": 6}),
    "width of the input": Specimen(heads.WidthOfInput, tokens(6), {"embed": 8, "qkv": 4, "out": 6}),
    "looked up": Specimen(attention.LookedUp, tokens(6), {"q": 3}),
    "lstm": Specimen(lambda: others.Recurrent(nn.LSTM), tokens(4), {"first": 7, "layers": 6}),
    "gru": Specimen(lambda: others.Recurrent(nn.GRU), tokens(4), {"first": 7, "layers": 6}),
    "cells": Specimen(others.Cells, tokens(4), {"lstm": 5, "gru": 6, "rnn": 7}),
    "bilinear": Specimen(
        others.Pairing, lambda: (torch.randn(BATCH, 4), torch.randn(BATCH, 3)), {"left": 5, "right": 6, "pair": 7}
    ),
    "warp": Specimen(others.Warp, images(), {"features": 6}, {"flow": "is a position, not a value"}),
    "computed weights": Specimen(others.computed_weights, images(), {"0": 6, "2": 7, "4": 5, "6": 8}),
    "frozen norm": Specimen(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), others.FrozenNorm(6), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        images(),
        {"0": 6},
    ),
    "experts": Specimen(others.Experts, lambda: torch.randn(4, 5), {"embed": 8, "up": 6, "down": 8, "gate": 3}),
    "head width": Specimen(
        lambda: Encoder(True, False),
        ids,
        {"attention.qkv": 3, "up": 10},
        {"embed": "residual were not asked for"},
        {"kinds": ["head width", "neurons"]},
    ),
    "routed": Specimen(
        others.Routed,
        lambda: torch.randn(BATCH, 6, 5),
        {"embed": 8, "experts.0.0": 6, "experts.1.0": 6, "experts.2.0": 6},
        {"gate": "is normalised over these units"},
    ),
    "unequal parts": Specimen(others.UnequalParts, images(3, 6), {"conv": 4, "conv#2": 3, "conv#3": 2, "a": 4}),
    "selective kernels": Specimen(others.SelectiveKernels, images(), {"small": 6, "squeeze": 4}),
    "buffers": Specimen(others.Buffers, images(3, 6), {"conv": 8}),
    "outputs": Specimen(
        others.Outputs, lambda: {"x": torch.randn(BATCH, 6), "others": {"seen": [torch.randn(BATCH, 4)]}}, {"first": 8}
    ),
    "sixteen bits": Specimen(others.Low, lambda: torch.randn(BATCH, 3, 8, 8).bfloat16(), {"conv": 8}),
    "repeats": Specimen(others.Repeats, images(), {"conv": 4, "wide": 5}),
    "head count of any name": Specimen(code.HeadCount, tokens(5), {"inp": 8, "qkv": 4}),
    "auxiliary head": Specimen(
        code.AuxiliaryHead, images(), {"first": 6, "third": 4}, {"second": "in training mode alone"}
    ),
    "distances": Specimen(code.Distances, lambda: torch.randn(BATCH, 3, 6), {"conv": 6, "embed": 5}),
    "padded shortcuts as a program": Specimen(
        lambda: code.PaddedShortcuts(True), images(), code.PADDED_GROUPS, options={"as_program": True}
    ),
    "padded shortcuts in functions": Specimen(lambda: code.PaddedShortcuts(True), images(), code.PADDED_GROUPS),
    "a count around what fails": Specimen(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.SiLU(), code.Divided(), nn.Linear(4, 2)),
        lambda: torch.randn(BATCH, 6),
        {"0": 5, "0#2": 3, "2.upper.fc": 4},
    ),
    "parameter in front": Specimen(code.MixedPositions, lambda: torch.randn(BATCH, 6), {"fc": 5, "mix": 7}),
    "padded shortcuts in blocks": Specimen(lambda: code.PaddedShortcuts(False), images(), code.PADDED_GROUPS),
    "cropped as a program": Specimen(
        code.Cropped, images(), {"conv": 3, "conv#2": 5, "mix": 6, "last": 3}, options={"as_program": True}
    ),
    "pooled by hand": Specimen(
        others.PooledByHand, images(), {"stem": 6, "deep": 5, "join": 7}, options={"as_program": True}
    ),
    "cached biases": Specimen(attention.evaluated_biases, tokens(6), {"biases": 3}),
    "joint attention": Specimen(
        attention.JointAttention,
        lambda: (torch.randn(BATCH, 3, 5), torch.randn(BATCH, 4, 6)),
        {"text": 2},
    ),
    "width of joint attention": Specimen(
        attention.JointAttention,
        lambda: (torch.randn(BATCH, 3, 5), torch.randn(BATCH, 4, 6)),
        {"text": 4},
        options={"kinds": ["head width"]},
    ),
    "linear attention": Specimen(heads.LinearAttention, lambda: torch.randn(BATCH, 5, 4, 3), {"qkv": 3}),
    "blocks": Specimen(others.Blocks, lambda: torch.randn(BATCH, 5), {"blocks": 4}, options={"kinds": "blocks"}),
    "blocks and channels": Specimen(
        others.BlocksAndChannels,
        images(),
        {"stem": 6, "first.0.conv1": 5, "first.1.conv1": 4, "widen": 7, "second.conv1": 5, "blocks": 3},
        options={"kinds": ("channels", "residual", "blocks")},
    ),
}


NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm


def grow(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    """A network of the zoo with lively statistics, in evaluation mode, and an example."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ZOO[name].make()
        for module in model.modules():
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.2, 0.6)
            if isinstance(module, NORMS) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.5)
        return model.eval(), ZOO[name].inputs()
