"""What a search asks of every network: one statistic for a window, and a series of them for a stretch of strain.

A network reads windows of `input_length` whitened samples in `channels` detectors and gives `outputs` numbers. The
statistic is unbounded: the difference of the two logits, or the one logit; a probability saturates at 1 and can't rank
(specification, section 5 and trap 4).
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError

WINDOWS_AT_ONCE = 128


def count_windows(samples: int, length: int, hop: int) -> int:
    """Windows of `length` samples, `hop` apart, that lie wholly in `samples`."""
    return 0 if samples < length else (samples - length) // hop + 1


def statistic_of(logits: Float32[Tensor, "batch outputs"]) -> Float32[Tensor, " batch"]:
    """Signal logit minus noise logit (column 1 minus column 0), or the one logit there is."""
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step, where it would hand it back and fetch it anew each time.

    glibc returns what lies free above a threshold, and raises the threshold when a larger block (of at most 32 MiB)
    is freed: so one such block is. A training step of the shallow network then takes no page faults, of 5,000 before.
    """
    torch.zeros(31 << 18)  # 31 MiB


class SearchNetwork(nn.Module):
    """Base of the networks that search.

    Attributes:
        input_length: samples of a window.
        channels: detectors that it looks at together; 1: each detector by itself.
        outputs: 2 logits (noise, signal) or 1.
    """

    def __init__(self, input_length: int, channels: int, outputs: int) -> None:
        super().__init__()
        for name, value in (("input_length", input_length), ("channels", channels), ("outputs", outputs)):
            if value < 1:
                raise SearchError(f"{name} is {value}: it has to be at least 1")
        self.input_length, self.channels, self.outputs = input_length, channels, outputs

    def statistic(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, " batch"]:
        """The detection statistic of each window."""
        return statistic_of(self(x))

    def dense(self, x: Float32[Tensor, "batch channels time"], hop: int) -> Float32[Tensor, "batch outputs windows"]:
        """Outputs of the windows that begin at samples 0, hop, 2 hop, ... of each stretch; here window by window.

        Raises:
            SearchError: a hop below 1 sample, or a stretch shorter than one window.
        """
        self.check_series(x.shape[-1], hop)
        windows = x.unfold(-1, self.input_length, hop)  # [B, C, K, L], a view
        parts = []
        for row in windows.transpose(1, 2):
            parts.append(torch.cat([self(part.contiguous()) for part in row.split(WINDOWS_AT_ONCE)]))
        return torch.stack(parts).transpose(1, 2)

    @torch.no_grad()
    def statistic_series(
        self, x: Float32[Tensor, "detector time"], hop: int
    ) -> Float32[Tensor, "detector_or_one windows"]:
        """The statistic of every window, `hop` samples apart; window k is x[:, k hop : k hop + input_length].

        Args:
            x: whitened strain of unit variance. A network of one channel looks at each detector by itself (one row for
                each), another at all of them together (one row).

        Raises:
            SearchError: a hop below 1 sample, a stretch shorter than one window, or not as many detectors as channels.
        """
        if self.channels == 1:
            out = self.dense(x[:, None], hop)
        elif self.channels == len(x):
            out = self.dense(x[None], hop)
        else:
            raise SearchError(f"this network looks at {self.channels} detectors together, the strain has {len(x)}")
        return out[:, 1] - out[:, 0] if self.outputs == 2 else out[:, 0]

    def check_series(self, samples: int, hop: int) -> None:
        if hop < 1:
            raise SearchError(f"the hop is {hop} samples: it has to be at least 1")
        if samples < self.input_length:
            raise SearchError(f"the stretch has {samples} samples, one window of this network has {self.input_length}")
