"""Images are changed as far as the dense network does not depend on it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.recovery import chain, repair_runner
from secateur.recovery.block_reconstruction import POLISH, STEPS, reconstruct_blocks
from secateur.recovery.image_augmentation import ImageAugmentation, augmentation_for
from secateur.recovery.mirrored_images import answers_mirrored_images
from tuned_networks import PooledImages, cut_by_norm, random_images, seeded_draws

pytestmark = untrained_networks


class Sided(nn.Module):
    """Two sums of an image: over its left half and over its right one."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.flatten(1, 2).chunk(2, dim=2)
        return 4 * torch.stack([first.mean((1, 2)), second.mean((1, 2))], 1)


def test_shifted_and_flipped_images_are_the_reflected_ones() -> None:
    """Every change is one of the few that there can be: padded by reflection, cut out, and flipped or not."""
    x = torch.randn(30, 2, 16, 24, generator=seeded_draws())
    changed = ImageAugmentation(flips=True, shifts=True).of(x, seeded_draws())
    padded = F.pad(x, (3, 3, 2, 2), mode="reflect")  # an eighth of 24 and of 16
    for number in range(len(x)):
        crops = [padded[number, :, top : top + 16, side : side + 24] for top in range(5) for side in range(7)]
        assert any(changed[number].equal(crop) or changed[number].equal(crop.flip(2)) for crop in crops)
    assert not changed.equal(x)
    assert ImageAugmentation(flips=False, shifts=False).of(x, seeded_draws()).equal(x)


def test_targets_stay_with_changed_images() -> None:
    target = torch.arange(30.0).view(30, 1, 1, 1).expand(30, 1, 16, 16)
    batch = Batch((random_images(30),), {}, target)
    changed = ImageAugmentation(flips=True, shifts=False).change_images(batch, seeded_draws())
    assert changed.target is target and not changed.args[0].equal(batch.args[0])


def test_changes_are_those_that_the_dense_network_is_invariant_to() -> None:
    torch.manual_seed(0)
    x = random_images()
    dark = x - torch.linspace(0, 2, 16)  # darker to the right
    pooled, sided = PooledImages().eval(), Sided()
    assert augmentation_for(pooled, [Batch((x[:20],), {}), Batch((x[20:],), {})], 1.0) == ImageAugmentation(True, True)
    assert not augmentation_for(sided, [Batch((dark + 5 * torch.randn(40, 1, 1, 16),), {})], 1.0).flips
    assert not augmentation_for(nn.Linear(6, 3), [Batch((torch.randn(40, 6),), {})], 1.0)  # no images
    assert not augmentation_for(pooled, [Batch((x[:4],), {})], 1.0)  # too few to compare


def test_mirrored_images_are_answered_where_outputs_do_not_change_or_are_mirrored_too() -> None:
    torch.manual_seed(0)
    x = random_images()
    batches, sided_batch = [Batch((x[:20],), {}), Batch((x[20:],), {})], Batch((x - torch.linspace(0, 9, 16),), {})
    assert answers_mirrored_images(PooledImages().eval(), batches, 1.0)
    assert not answers_mirrored_images(Sided(), [sided_batch], 1.0)
    pixels = nn.Conv2d(1, 2, 3, padding=1)
    assert not answers_mirrored_images(pixels, batches, 1.0)
    with torch.no_grad():
        pixels.weight.copy_((pixels.weight + pixels.weight.flip(3)) / 2)
    assert answers_mirrored_images(pixels, batches, 1.0)
    assert not answers_mirrored_images(nn.Linear(6, 3), [Batch((torch.randn(40, 6),), {})], 1.0)  # no images


@pytest.mark.parametrize("size", [1, 4])
def test_mirrored_images_are_compared_in_the_microbatches_of_the_examples(size: int) -> None:
    torch.manual_seed(0)
    model, x, sizes = PooledImages().eval(), random_images(), list[int]()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert answers_mirrored_images(model, [Batch((images,), {}) for images in x.split(size)], 1.0)
    assert set(sizes) == {size}
    sided = [Batch((images,), {}) for images in (x - torch.linspace(0, 9, 16)).split(size)]
    assert not answers_mirrored_images(Sided(), sided, 1.0)


@pytest.mark.parametrize("answers", [True, False])
def test_the_last_steps_of_adapt_use_mirror_images_that_the_dense_network_answers(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images()
    small, plan = cut_by_norm(model, x, 0.5)
    calls = list[tuple[int, bool]]()

    def recorded(execution: Any, steps: int, is_time_up: Any, counted: Any, adds_mirrored: bool) -> bool:
        calls.append((steps, adds_mirrored))
        return reconstruct_blocks(execution, steps, is_time_up, counted, adds_mirrored)

    monkeypatch.setattr(repair_runner, "reconstruct_blocks", recorded)
    if not answers:
        monkeypatch.setattr(chain, "answers_mirrored_images", lambda *_, **__: False)
    sc.repair(small, model, plan, x, ["refit", "adapt"], progress=False)
    assert calls == [(STEPS, False), (POLISH, answers)]
