"""Mixed-scale dense networks trained with all maps in one buffer, for a GPU.

A layer computes one map from all maps before it. As convolutions these are 51 output channels in all, each with its own
kernel launch over a copy of its input. Here a layer is one matrix product, 9 x inputs by inputs x pixels, that reads
the maps in the buffer; the 9 results are shifted and added. The backward pass has two more products. On a GPU a step is
recorded once as a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor, nn

from papers.msd_network import MixedScaleDense, mirror

CHUNKS = 64  # of the pixels, whose products for the gradient of a weight are added


class MapBuffer:
    """The maps of a mixed-scale dense network, with mirrored borders, and their gradients.

    Args:
        model: the network; its weights are copied.
        batch: the number of images in a batch.
        side: their height and width, in pixels.
        device: the device.
        dtype: float32, or float64 for tests.
    """

    def __init__(
        self, model: MixedScaleDense, batch: int, side: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.depth, self.batch, self.side = len(model.layers), batch, side
        self.pixels = batch * side * side
        self.dilations = [int(layer.dilation[0]) for layer in model.layers]  # type: ignore[union-attr, index, arg-type]
        self.shapes = {name: value.shape for name, value in model.named_parameters()}
        options: Any = {"device": device, "dtype": dtype}
        self.theta = torch.empty(sum(shape.numel() for shape in self.shapes.values()), **options)
        self.theta.grad = torch.zeros_like(self.theta)
        self.mask = torch.ones_like(self.theta)
        self.weights, self.slopes = self._views(self.theta), self._views(self.theta.grad)
        self.maps = torch.zeros(1 + self.depth, batch, side, side, **options)
        self.gradients = torch.zeros_like(self.maps)
        self.shifted = torch.zeros(9, batch, side, side, **options)
        self.pads = {d: torch.zeros(9, batch, side + 2 * d, side + 2 * d, **options) for d in set(self.dilations)}
        self.take(model)

    def _views(self, vector: Tensor) -> dict[str, Tensor]:
        vectors = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: values.view(shape) for (name, shape), values in zip(self.shapes.items(), vectors, strict=True)}

    def take(self, model: nn.Module) -> None:
        """Copy a model's parameters; those that are zero stay at zero in training."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                self.weights[name].copy_(value)
        self.mask.copy_(self.theta != 0)

    def give(self, model: nn.Module) -> None:
        """Copy the parameters into a model."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(self.weights[name])

    def scores(self, images: Tensor) -> Tensor:
        """Return the network's output. (classes, images, height, width)"""
        self.maps[0].copy_(images[:, 0])
        for number, dilation in enumerate(self.dilations):
            inputs = self.maps[: number + 1].flatten(1)  # (inputs, pixels)
            torch.mm(self._kernels(number), inputs, out=self.shifted.flatten(1))
            padded = mirror(self.shifted, dilation)
            total = self._places(padded, dilation).sum((0, 1))
            torch.clamp(total.add_(self.weights[f"layers.{number}.bias"]), min=0, out=self.maps[number + 1])
        bias = self.weights["last.bias"][:, None]
        outputs: Tensor = torch.addmm(bias, self.weights["last.weight"].flatten(1), self.maps.flatten(1))
        return outputs.view(-1, *self.maps.shape[1:])

    def _kernels(self, number: int) -> Tensor:
        """Return a layer's weight, one row for each of the 9 positions of its kernels. (9, inputs)"""
        return self.weights[f"layers.{number}.weight"].flatten(2)[0].t()

    def _places(self, padded: Tensor, dilation: int) -> Tensor:
        """Return a view of the pixels that the result reads at each position. (3, 3, images, height, width)"""
        images, rows, columns = padded.stride(0), padded.stride(1), padded.stride(2)
        strides = (3 * images + dilation * columns, images + dilation, rows, columns, 1)
        return padded.as_strided((3, 3, *self.maps.shape[1:]), strides)

    def backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Write the gradient of the mean cross-entropy into `theta.grad`, and return the loss."""
        scores = self.scores(images).flatten(1)  # (classes, pixels)
        logs = scores.log_softmax(0)
        target = labels.reshape(1, -1)
        loss = -logs.gather(0, target).mean()
        slope = logs.exp().scatter_add_(0, target, -torch.ones_like(logs[:1])).div_(self.pixels)
        self.slopes["last.bias"].copy_(slope.sum(1))
        self.slopes["last.weight"].copy_(self._weight_slope(slope, self.depth + 1)[:, :, None, None])
        torch.mm(self.weights["last.weight"].flatten(1).t(), slope, out=self.gradients.flatten(1))
        for number in reversed(range(self.depth)):
            self._layer_backward(number)
        self.theta.grad.mul_(self.mask)  # type: ignore[union-attr]
        return loss

    def _layer_backward(self, number: int) -> None:
        dilation = self.dilations[number]
        slope = self.gradients[number + 1] * (self.maps[number + 1] > 0)
        self.slopes[f"layers.{number}.bias"].copy_(slope.sum().view(1))
        padded = self.pads[dilation]
        self._places(padded, dilation).copy_(slope.expand(3, 3, *slope.shape))  # the rest of it stays at zero
        positions = mirror_adjoint(padded, dilation).flatten(1)  # (9, pixels)
        weight_slope = self._weight_slope(positions, number + 1)  # (9, inputs)
        self.slopes[f"layers.{number}.weight"].copy_(weight_slope.t().reshape(1, -1, 3, 3))
        self.gradients[: number + 1].flatten(1).addmm_(self._kernels(number).t(), positions)

    def _weight_slope(self, slope: Tensor, inputs: int) -> Tensor:
        """Return a product over all pixels, in portions that run in parallel. (rows of the slope, inputs)"""
        chunks = CHUNKS if self.pixels % CHUNKS == 0 else 1
        slopes = slope.unflatten(1, (chunks, -1)).transpose(0, 1)  # (chunks, rows, pixels)
        inputs_of_pixels = (
            self.maps[:inputs].flatten(1).unflatten(1, (chunks, -1)).permute(1, 2, 0)
        )  # (chunks, pixels, inputs)
        return torch.bmm(slopes, inputs_of_pixels).sum(0)


def mirror_adjoint(padded: Tensor, width: int) -> Tensor:
    """Apply the adjoint of `mirror`: values beyond an edge are added to the pixels that they mirror."""
    for dim in (2, 3):
        size = padded.shape[dim] - 2 * width
        inner = padded.narrow(dim, width, size).clone()
        inner.narrow(dim, 0, width).add_(padded.narrow(dim, 0, width).flip(dim))
        inner.narrow(dim, size - width, width).add_(padded.narrow(dim, size + width, width).flip(dim))
        padded = inner
    return padded
