"""Mixed-scale dense networks trained with all maps in one buffer, for a GPU.

A layer makes one map of all before it. As a convolution that is 51 output channels in all, each with a kernel launch of
its own over a copy of its input. Here a layer is one matrix product, 9 x inputs by inputs x pixels, that reads the maps
where they lie; the 9 results are shifted and added. Backwards it is two more. On a GPU a step is recorded once as a
CUDA graph.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from papers.circles import MixedScaleDense, mirror

CHUNKS = 64  # of the pixels, whose products for the gradient of a weight are added


class MapBuffer:
    """The maps of a mixed-scale dense network, with mirrored borders, and their gradients.

    Args:
        model: the network; its weights are copied.
        batch: images at a time.
        side: their height and width, in pixels.
        device: where to compute.
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
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

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
        """The network's output. (classes, images, height, width)"""
        self.maps[0].copy_(images[:, 0])
        for number, dilation in enumerate(self.dilations):
            inputs = self.maps[: number + 1].flatten(1)  # (inputs, pixels)
            torch.mm(self._kernels(number), inputs, out=self.shifted.flatten(1))
            padded = mirror(self.shifted, dilation)
            total = self._places(padded, dilation).sum((0, 1))
            torch.clamp(total.add_(self.weights[f"layers.{number}.bias"]), min=0, out=self.maps[number + 1])
        bias = self.weights["last.bias"][:, None]
        found: Tensor = torch.addmm(bias, self.weights["last.weight"].flatten(1), self.maps.flatten(1))
        return found.view(-1, *self.maps.shape[1:])

    def _kernels(self, number: int) -> Tensor:
        """A layer's weight, one row for each of the 9 places of its kernels. (9, inputs)"""
        return self.weights[f"layers.{number}.weight"].flatten(2)[0].t()

    def _places(self, padded: Tensor, dilation: int) -> Tensor:
        """Of each place's padded map what the result reads of it, without memory. (3, 3, images, height, width)"""
        images, rows, columns = padded.stride(0), padded.stride(1), padded.stride(2)
        strides = (3 * images + dilation * columns, images + dilation, rows, columns, 1)
        return padded.as_strided((3, 3, *self.maps.shape[1:]), strides)

    def backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Write the gradient of the mean cross-entropy into `theta.grad`; give the loss."""
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
        places = mirror_adjoint(padded, dilation).flatten(1)  # (9, pixels)
        own = self._weight_slope(places, number + 1)  # (9, inputs)
        self.slopes[f"layers.{number}.weight"].copy_(own.t().reshape(1, -1, 3, 3))
        self.gradients[: number + 1].flatten(1).addmm_(self._kernels(number).t(), places)

    def _weight_slope(self, slope: Tensor, inputs: int) -> Tensor:
        """A product over all pixels, in portions that run side by side. (rows of the slope, inputs)"""
        chunks = CHUNKS if self.pixels % CHUNKS == 0 else 1
        left = slope.unflatten(1, (chunks, -1)).transpose(0, 1)  # (chunks, rows, pixels)
        right = self.maps[:inputs].flatten(1).unflatten(1, (chunks, -1)).permute(1, 2, 0)  # (chunks, pixels, inputs)
        return torch.bmm(left, right).sum(0)


def mirror_adjoint(padded: Tensor, width: int) -> Tensor:
    """The adjoint of `mirror`: what lies beyond an edge is added to the pixels that it mirrors."""
    for dim in (2, 3):
        size = padded.shape[dim] - 2 * width
        inner = padded.narrow(dim, width, size).clone()
        inner.narrow(dim, 0, width).add_(padded.narrow(dim, 0, width).flip(dim))
        inner.narrow(dim, size - width, width).add_(padded.narrow(dim, size + width, width).flip(dim))
        padded = inner
    return padded


class BufferTrainer:
    """Adam on a network's maps in one buffer, its moments kept from one call to the next.

    Args:
        maps: the network.
        images: to train with, on the device (images, 1, height, width).
        labels: of their pixels (images, height, width).
        moments: Adam's first and second moment by parameter, and how many steps it took, to go on from.
        learning_rate: of Adam.
    """

    def __init__(
        self, maps: MapBuffer, images: Tensor, labels: Tensor,
        moments: tuple[Mapping[str, Tensor], Mapping[str, Tensor], int] | None = None, learning_rate: float = 1e-3,
    ) -> None:  # fmt: skip
        self.maps, self.images, self.labels = maps, images, labels
        self.on_gpu = images.device.type == "cuda"
        self.optimizer = torch.optim.Adam([maps.theta], learning_rate, capturable=self.on_gpu)
        nothing = {name: torch.zeros(shape) for name, shape in maps.shapes.items()}
        self._resume(*(moments or (nothing, nothing, 0)))
        self.chosen = torch.zeros(maps.batch, dtype=torch.long, device=images.device)
        self.loss = torch.zeros((), dtype=maps.theta.dtype, device=images.device)
        self.tried = False
        self.graph: torch.cuda.CUDAGraph | None = None

    def _resume(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor], steps: int) -> None:
        theta = self.maps.theta
        at = torch.tensor(float(steps), device=theta.device if self.on_gpu else "cpu")
        state: dict[str, Tensor] = {"step": at}
        for name, moment in (("exp_avg", first), ("exp_avg_sq", second)):
            state[name] = torch.cat([moment[key].flatten() for key in self.maps.shapes]).to(theta)
        self.optimizer.state[theta] = state

    def epoch(self, seed: int) -> None:
        """One pass over all images in an order drawn from the seed; images that fill no whole batch are left out."""
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(self.maps.batch):
            if len(chosen) == self.maps.batch:
                self.chosen.copy_(chosen)
                self._step()

    @torch.no_grad()
    def _step(self) -> None:
        if self.on_gpu and not self.tried:
            self.tried = True
            self._record()
        if self.graph is None:
            self._computed()
        else:
            self.graph.replay()

    def _computed(self) -> None:
        loss = self.maps.backward(self.images[self.chosen], self.labels[self.chosen])
        self.optimizer.step()
        self.maps.theta.mul_(self.maps.mask)
        self.loss.copy_(loss)

    def _record(self) -> None:
        """Record one step as a CUDA graph, if it can be; the steps that warm it up leave no trace."""
        before = [value.clone() for value in self._changed()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._computed()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._computed()
            self.graph = graph
        except RuntimeError as failure:
            print(f"no CUDA graph, each step is launched by itself: {failure}", flush=True)
        for value, own in zip(self._changed(), before, strict=True):
            value.copy_(own)

    def _changed(self) -> list[Tensor]:
        """What a step changes for good."""
        return [self.maps.theta, *self.optimizer.state[self.maps.theta].values()]

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The fraction of pixels that get their label; the last batch is filled up with its first image."""
        right = 0
        for some, known in zip(images.split(self.maps.batch), labels.split(self.maps.batch), strict=True):
            missing = self.maps.batch - len(some)
            filled = torch.cat([some, some[:1].expand(missing, *some.shape[1:])]) if missing else some
            right += int((self.maps.scores(filled).argmax(0)[: len(some)] == known).sum())
        return right / labels.numel()
