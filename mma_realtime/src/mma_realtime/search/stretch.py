"""One stretch of strain in files: its blocks, its conditioner, and what is wrong with it; streamed or offline alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mma_realtime.data.strain import BLOCK, PSD_SECONDS, SAMPLE_RATE, Strain, blocks
from mma_realtime.data.strain_files import Stretch, span
from mma_realtime.data.strain_parts import check_noise
from mma_realtime.errors import SearchError, StrainError
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import Noise, conditioner_for, informed, nothing_scored, psd_of


@dataclass(frozen=True)
class FileStretch:
    """Args:
    parts: sorted and checked (`gather`); what lies outside of the stretch is not looked at.
    detectors: that are searched together; one that has no strain in the stretch has a gap throughout.
    gps_start, gps_end: GPS range in s, one of `spans`.
    """

    parts: Sequence[Stretch]
    detectors: tuple[str, ...]
    gps_start: int
    gps_end: int

    @property
    def where(self) -> str:
        return span(self.gps_start, self.gps_end)

    @property
    def duration(self) -> int:
        return self.gps_end - self.gps_start

    def psd(self, noise: Noise) -> str:
        """Which PSD it gets, `trailing` or `file`."""
        return psd_of(self.duration, noise)

    def blocks(self, skip: int = 0) -> Iterator[Strain]:
        """Its strain in order of time, at most `BLOCK` s in memory; without the first `skip` s.

        Raises:
            StrainError: a file that cannot be read.
        """
        return blocks(self.parts, self.gps_start + skip, self.gps_end, block=BLOCK, detectors=self.detectors)

    def held(self, holder: str, instead: str) -> Strain:
        """All of its strain at once.

        Args:
            holder: who needs it, for the message. instead: what to do where it is too long.

        Raises:
            SearchError: it is longer than `BLOCK`. StrainError: a file that cannot be read.
        """
        if self.duration > BLOCK:
            raise SearchError(
                f"{self.where} are {self.duration} s, and {holder} all of a stretch in memory, at most {BLOCK} s: "
                f"{instead}"
            )
        (strain,) = self.blocks()
        return strain

    def conditioner(self, model: SearchModel, noise: Noise) -> Conditioner:
        """As the networks were trained, with the PSD that `noise` asks for.

        Raises:
            SearchError: too long for that PSD, or its noise is not known.
        """
        conditioner = conditioner_for(model, SAMPLE_RATE)
        if self.psd(noise) == "trailing":
            return conditioner
        return informed(conditioner, self.held("--psd file holds", "use --psd trailing"), noise)

    def again(self, model: SearchModel, noise: Noise) -> tuple[Strain, Conditioner]:
        """Strain and conditioner as they were searched, for networks that look again in every slide.

        Raises:
            SearchError: it is too long to be held.
        """
        strain = self.held("slides of networks that see both detectors hold", "search shorter files")
        return strain, informed(conditioner_for(model, SAMPLE_RATE), strain, noise)

    def complaint(self, otherwise: str = "") -> str:
        """Why nothing in it has a score: what is wrong with its strain, else `otherwise`, else that it is too short."""
        here = [part for part in self.parts if self.gps_start <= part.gps_start < self.gps_end]
        valid = np.concatenate([block.valid for block in self.blocks()], axis=1)
        try:
            for name, row in zip(self.detectors, valid, strict=True):
                check_noise(here, name, row, PSD_SECONDS)
        except StrainError as error:
            return str(error)
        files = list(dict.fromkeys(str(part.path) for part in here))
        source = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        return otherwise or nothing_scored(source, self.detectors, self.gps_start, valid)
