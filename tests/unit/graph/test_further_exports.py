"""Sizes that take an export each, paddings, and inputs by name."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from counted_exports import CountedExports
from expected_warnings import untrained_networks
from random_plans import drawn, plan_of, run
from secateur.data.batch import Batch
from secateur.masking.ablation import run_masked
from secateur.surgery.verify import output_difference
from sizes import sized_images

pytestmark = untrained_networks


class Masked(nn.Module):
    """A mean over positions that a mask leaves, by the length of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.b((F.relu(self.a(x)) * mask[..., None]).sum(1) / x.shape[1])


def test_inputs_by_name_may_come_in_any_order_at_any_size() -> None:
    model = Masked().eval()

    def batch(length: int) -> dict[str, Tensor]:
        return {"x": torch.randn(5, length, 4), "mask": (torch.rand(5, length) > 0.3).float()}

    network = sc.trace(model, batch(6))
    other = batch(9)
    turned = Batch((), {"mask": other["mask"], "x": other["x"]})
    assert output_difference(network.program.forward(turned), run(model, turned))[0] < 1e-6


class Windows(nn.Module):
    """Pads images to a multiple of a window, again and again, as windowed attention does."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(blocks))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            height, width = x.shape[2:]
            y = F.pad(x, (0, 3 - width % 3, 0, 3 - height % 3))
            b, c, h, w = y.shape
            y = y.view(b, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 3, 3)
            y = F.relu(block(y - y.mean((2, 3), keepdim=True)))
            y = y.view(b, h // 3, w // 3, c, 3, 3).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
            x = F.avg_pool2d(x + y[:, :, :height, :width], 2)
        return self.fc(x.mean((2, 3)))


def test_sizes_that_are_too_complex_to_vary_take_an_export_each(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Windows(3).eval()
    network = sc.trace(model, sized_images(32)[0][0])
    exports = CountedExports(monkeypatch)
    for size in (44, 50, 44):
        batch = Batch((sized_images(size)[0][0],), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
    assert exports.count == 3


class PaddedToMultiples(nn.Module):
    """Pads images to a multiple of the window and of the stride and crops them: nothing happens at some sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.down, self.fc = nn.Conv2d(8, 6, 2, 2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        h = F.relu(self.stem(x))
        y = F.pad(h, (0, -width % 4, 0, -height % 4))
        b, c, tall, wide = y.shape
        y = y.view(b, c, tall // 4, 4, wide // 4, 4).mean((2, 4), keepdim=True) + y.view(
            b, c, tall // 4, 4, wide // 4, 4
        )
        y = y.reshape(b, c, tall, wide)[:, :, :height, :width].contiguous()
        y = F.relu(self.mix(y + h))
        y = F.relu(self.down(F.pad(y, (0, width % 2, 0, height % 2))))
        return self.fc(y.sum((2, 3)) / (y.shape[2] * y.shape[3]))


@pytest.mark.parametrize("traced", [8, 9, 10])
def test_padding_that_some_sizes_do_without(traced: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = PaddedToMultiples().eval()
    network = sc.trace(model, sized_images(traced)[0][0])
    assert {group.name: group.size for group in network.groups} == {"stem": 6, "mix": 8, "down": 6}
    kept = drawn(network, 2)
    small = sc.cut(model, plan_of(network, kept, {}))
    exports = CountedExports(monkeypatch)
    for size in (12, 8, 9, 10, 11, 16, 13):
        batch = Batch((sized_images(size)[0][0],), {})
        worst, allowed = output_difference(run_masked(network, batch, network.mask(kept), {}), run(small, batch))
        assert worst <= allowed, size
    assert exports.count <= 8
