"""Training of a mixed-scale dense network whose maps are in one buffer; on a GPU a step is recorded as a CUDA graph."""

from collections.abc import Mapping

import torch
from torch import Tensor

from papers.msd_training import MapBuffer


class BufferTrainer:
    """Train a network in a buffer with Adam, whose moments are kept from one call to the next.

    Args:
        maps: the network.
        images: the training images, on the device, (images, 1, height, width).
        labels: the classes of their pixels, (images, height, width).
        moments: Adam's first and second moment by parameter, and the number of its steps, to continue from.
        learning_rate: the learning rate.
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
        """Train on all images in an order drawn from the seed; images that fill no whole batch are left out."""
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
        for value, saved in zip(self._changed(), before, strict=True):
            value.copy_(saved)

    def _changed(self) -> list[Tensor]:
        """Return the tensors that a step changes."""
        return [self.maps.theta, *self.optimizer.state[self.maps.theta].values()]

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the fraction of pixels that get their label; the last batch is filled up with its first image."""
        correct = 0
        for batch, batch_labels in zip(images.split(self.maps.batch), labels.split(self.maps.batch), strict=True):
            missing = self.maps.batch - len(batch)
            filled = torch.cat([batch, batch[:1].expand(missing, *batch.shape[1:])]) if missing else batch
            correct += int((self.maps.scores(filled).argmax(0)[: len(batch)] == batch_labels).sum())
        return correct / labels.numel()
