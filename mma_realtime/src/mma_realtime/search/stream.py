"""The streaming engine (section 7): strain in, triggers out, a hop at a time.

    engine = StreamEngine(model, conditioner, ("H1", "L1"), gps_start)
    triggers = engine.push(block, gps=...)          # as strain arrives
    row = engine.state().to_bytes()                 # commit it together with what the triggers caused
    engine = StreamEngine.resume(model, conditioner, StreamState.from_bytes(row))

The state is one value, tied to the input offset that it has consumed: pushing on from there gives what an engine would
have given that was never stopped. Time only goes forward; strain that was already consumed is dropped.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from mma_realtime.data.strain_files import RMS_LIMIT
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import Clusterer, Superevents, Trigger
from mma_realtime.search.conditioning import Conditioner, ConditionerState
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import HOP, Scorer, ScorerState, Scores, check_model, joined

FORMAT = 1
LONGEST_GAP_AT_ONCE: Seconds = 64.0
LARGEST = 1e3 * RMS_LIMIT * SCALE  # of strain x 1e21: above it a sample is no strain, and its square no number
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamState:
    """All that the engine remembers.

    Args:
        input_offset: samples of strain consumed since `gps_start`: the next to push is this one.
        gps_start: GPS s of sample 0.
        fingerprint: of the networks, the conditioning and the settings; others do not go on from here.
        header: plain values. arrays: the rest, by name.
    """

    input_offset: int
    gps_start: GPS
    fingerprint: str
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """An .npz without pickles."""
        head = {"format": FORMAT, **{key: getattr(self, key) for key in ("input_offset", "gps_start", "fingerprint")}}
        text = json.dumps(head | {"header": self.header}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, head=np.frombuffer(text, np.uint8), **self.arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> StreamState:
        """Raises:
        SearchError: not a state, a torn one, or one of another version.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            head = json.loads(arrays.pop("head").tobytes())
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
            raise SearchError("this is no state of a stream, or a torn one: start the stream anew") from None
        if head.pop("format", None) != FORMAT:
            raise SearchError(f"this state was written by another version (format {FORMAT} is read): start anew")
        return cls(**head, arrays=arrays)


class StreamEngine:
    """Args:
        model: networks.
        conditioner: that fits them.
        detectors: rows of the strain.
        gps_start: GPS s of the first sample, a whole second.
        hop: s between windows.
        threshold, single_threshold, time_offset: the model's, unless given.

    Attributes:
        scores: of the last push.
        dropped: samples that came again, and were not looked at.

    Raises:
        SearchError: they do not fit each other.
    """

    def __init__(
        self,
        model: SearchModel,
        conditioner: Conditioner,
        detectors: tuple[str, ...],
        gps_start: GPS,
        hop: Seconds = HOP,
        threshold: float | None = None,
        single_threshold: float | None = None,
        time_offset: Seconds | None = None,
    ) -> None:
        check_model(model, conditioner)
        recipe = model.recipe
        self.model, self.conditioner = model, conditioner
        self.scorer = Scorer(model, detectors, gps_start, hop)
        self.conditioning = conditioner.start(detectors, gps_start)
        self.scoring = self.scorer.start()
        self.clusterer = Clusterer(
            detectors,
            gps_start,
            hop,
            recipe.threshold if threshold is None else threshold,
            recipe.time_offset if time_offset is None else time_offset,
            single_threshold=recipe.single_threshold if single_threshold is None else single_threshold,
        )
        self.scores: Scores | None = None
        self.dropped = 0

    @property
    def detectors(self) -> tuple[str, ...]:
        return self.conditioning.detectors

    @property
    def next_gps(self) -> GPS:
        """GPS s of the sample to push next."""
        return self.conditioning.gps_start + self.conditioning.consumed / self.conditioner.sample_rate_in

    @property
    def latency(self) -> Seconds:
        """s from the end of an event's last loud window to its trigger, without computing time and the hop of input."""
        return self.conditioner.edge + self.clusterer.gap + self.scorer.hop

    def push(
        self,
        block: Float64[np.ndarray, "detector n"],
        valid: Bool[np.ndarray, " detector"] | Bool[np.ndarray, "detector n"] | None = None,
        gps: GPS | None = None,
    ) -> list[Trigger]:
        """Triggers that are certain with this block.

        Args:
            block: strain x 1e21. Any length; seconds are whitened as soon as their filter's edge is there.
            valid: of each detector, or of each sample. Samples that are not finite or beyond 1e-12 in strain, and a
                detector that is constant throughout the block, are never valid.
            gps: GPS s of its first sample; where it is later than `next_gps` what is between is a gap, and what lies
                before it is dropped. Not given: it is the next.

        Raises:
            SearchError: another number of detectors; a time between two samples; statistics that are not numbers.
        """
        block = np.asarray(block, dtype=np.float64)
        if block.ndim != 2 or len(block) != len(self.detectors):
            raise SearchError(f"a block of shape {block.shape}: [{len(self.detectors)} detectors, samples] is expected")
        ok = np.isfinite(block) & ~self._beyond(block)
        if valid is not None:
            ok &= valid[:, None] if valid.ndim == 1 else valid
        if block.shape[1] > 1:
            ok &= (block != block[:, :1]).any(axis=1, keepdims=True)
        fs = self.conditioner.sample_rate_in
        skip = 0 if gps is None else (self.next_gps - gps) * fs
        if abs(skip - round(skip)) > 0.01:
            raise SearchError(
                f"strain from GPS {gps!r} lies between the samples of the stream: samples cannot be moved"
            )
        skip = round(skip)
        found: list[Trigger] = []
        parts: list[Scores] = []
        while skip < 0:
            missing = min(-skip, round(LONGEST_GAP_AT_ONCE * fs))
            gap = np.zeros((len(block), missing))
            self._advance(gap, np.zeros(gap.shape, bool), found, parts)
            skip += missing
        if skip:
            self.dropped += min(skip, block.shape[1])
            log.warning("%d samples before GPS %.4f came again: dropped", min(skip, block.shape[1]), self.next_gps)
        if skip < block.shape[1]:
            self._advance(block[:, skip:], ok[:, skip:], found, parts)
        self.scores = joined(parts) if parts else None
        return found

    def _beyond(self, block: Float64[np.ndarray, "detector n"]) -> Bool[np.ndarray, "detector n"]:
        """Samples that are finite, and too large for strain."""
        beyond = (np.abs(block) > LARGEST) & np.isfinite(block)
        for name, row in zip(self.detectors, beyond, strict=True):
            if row.any():
                log.warning(
                    "%s: strain is beyond %g near GPS %.2f: taken as a gap, check its unit (strain x 1e21)", name,
                    LARGEST / SCALE, self.next_gps,
                )  # fmt: skip
        return beyond

    def _advance(self, block: np.ndarray, ok: np.ndarray, found: list[Trigger], parts: list[Scores]) -> None:
        conditioning, whitened = self.conditioner.advance(self.conditioning, block, ok)
        scoring, scores = self.scorer.advance(self.scoring, whitened)
        if scores.values.shape[1]:
            found += self.clusterer.push(scores)
            parts.append(scores)
        self.conditioning, self.scoring = conditioning, scoring

    def finish(self) -> list[Trigger]:
        """Triggers of the cluster that is still open, when no more strain will come."""
        return self.clusterer.finish()

    @property
    def fingerprint(self) -> str:
        """Of all that, with the strain, decides what is found."""
        cluster = self.clusterer
        settings = [self.model.checksum, self.conditioner.fingerprint, *self.detectors, self.scorer.hop]
        settings += [cluster.threshold, cluster.single_threshold, cluster.time_offset, cluster.gap, cluster.longest]
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def state(self) -> StreamState:
        """A copy of all that is remembered."""
        cluster = self.clusterer
        conditioning = {f"conditioning.{f.name}": getattr(self.conditioning, f.name) for f in _arrays(ConditionerState)}
        arrays = conditioning | {
            "scoring.values": self.scoring.values, "scoring.valid": self.scoring.valid,
            "cluster.index": cluster.index, "cluster.statistic": cluster.statistic, "cluster.rows": cluster.rows,
        }  # fmt: skip
        header = {
            "detectors": list(self.detectors), "hop": self.scorer.hop, "scored": self.scoring.end,
            "threshold": cluster.threshold, "single_threshold": cluster.single_threshold,
            "time_offset": cluster.time_offset, "next": cluster.next, "superevents": asdict(cluster.superevents),
            "dropped": self.dropped,
        }  # fmt: skip
        arrays = {name: array.copy() for name, array in arrays.items()}
        state = self.conditioning
        return StreamState(state.consumed, state.gps_start, self.fingerprint, header, arrays)

    @classmethod
    def resume(cls, model: SearchModel, conditioner: Conditioner, state: StreamState) -> StreamEngine:
        """The engine as it was when `state` was taken; push on from sample `state.input_offset`.

        Raises:
            SearchError: the state is of other networks, conditioning or settings.
        """
        header, arrays = state.header, state.arrays
        engine = cls(
            model, conditioner, tuple(header["detectors"]), state.gps_start, header["hop"],
            header["threshold"], header["single_threshold"], header["time_offset"],
        )  # fmt: skip
        if engine.fingerprint != state.fingerprint:
            raise SearchError(
                "this state is of another model or conditioning: go on with the same ones, or start the stream anew"
            )
        restored: dict[str, Any] = {f.name: arrays[f"conditioning.{f.name}"].copy() for f in _arrays(ConditionerState)}
        engine.conditioning = ConditionerState(
            detectors=engine.detectors, gps_start=int(state.gps_start), consumed=state.input_offset, **restored
        )
        engine.scoring = ScorerState(arrays["scoring.values"].copy(), arrays["scoring.valid"].copy(), header["scored"])
        cluster = engine.clusterer
        cluster.next, cluster.superevents = header["next"], Superevents(**header["superevents"])
        cluster.index, cluster.statistic = arrays["cluster.index"].copy(), arrays["cluster.statistic"].copy()
        cluster.rows = arrays["cluster.rows"].copy()
        engine.dropped = header["dropped"]
        return engine


def _arrays(kind: type) -> list[Any]:
    return [f for f in fields(kind) if f.name not in ("detectors", "gps_start", "consumed", "made")]


__all__ = ["StreamEngine", "StreamState"]
