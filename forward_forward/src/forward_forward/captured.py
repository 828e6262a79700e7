"""A training step as one CUDA graph (section 5 of the kernels).

At the usual minibatch of 100 pairs a step is some 40 launches of a few microseconds of work each: the processor that
launches them is what it waits for. A graph is launched once. What is captured is the very function that the eager path
calls, on buffers that stay where they are: inputs are copied into them, the step size is a tensor, the draws come from
generators that the graph knows.

No GPU has run this yet: `docs/gpu-evidence.md` says what has run where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from shared.errors import UserError
from torch import Tensor

WARM_UP = 3  # steps before the capture, on a stream of their own: lazily made state and workspaces exist then


def check_capturable(device: torch.device, processes: int) -> None:
    """Raise `UserError` where a step cannot be captured."""
    if device.type != "cuda":
        raise UserError(f"cuda_graph needs an NVIDIA GPU, this run is on {device.type}: leave it out")
    if processes > 1:
        raise UserError(f"cuda_graph is for one process, this run has {processes}: use --trainer.devices 1")


class CapturedStep:
    """`step(*inputs)`, captured at its fourth call and replayed from then on; every call is one step.

    Args:
        step: reads and writes tensors that stay where they are, and nothing else.
        generators: what it draws from, apart from the device's own.
        replayed: called after each replay, for what `step` does besides (counting).

    Inputs of another shape than the captured ones (the last, smaller minibatch) take the eager path.
    """

    def __init__(
        self,
        step: Callable[..., None],
        generators: Sequence[torch.Generator] = (),
        replayed: Callable[[], None] = lambda: None,
    ) -> None:
        self.step, self.generators, self.replayed = step, generators, replayed
        self.inputs: tuple[Tensor, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warmed = 0

    def __call__(self, *inputs: Tensor) -> None:
        if self.inputs and any(a.shape != b.shape for a, b in zip(self.inputs, inputs)):
            self.step(*inputs)
            return
        if not self.inputs:
            self.inputs = tuple(torch.empty_like(value) for value in inputs)
        for buffer, value in zip(self.inputs, inputs):
            buffer.copy_(value)
        if self.warmed < WARM_UP:
            self._aside(lambda: self.step(*self.inputs))
            self.warmed += 1
        elif self.graph is None:
            self._capture()
            assert self.graph is not None
            self.graph.replay()  # a capture runs nothing; `step` has counted it
        else:
            self.graph.replay()
            self.replayed()

    def _aside(self, run: Callable[[], None]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self.step(*self.inputs)
        self.graph = graph
