"""What a search looks with: the networks, and how strain has to be prepared for them, in one file.

    SearchModel.load("results/cpu/search_model.pt").series(whitened, hop)

The file holds tensors and plain values only (it is read with `weights_only`), and is named in reports by its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32
from shared.runs.store import write_atomic
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Hertz, Seconds
from mma_realtime.models import SearchNetwork, build

FORMAT = 1
DEFAULT = Path(__file__).resolve().parents[3] / "results" / "cpu" / "search_model.pt"


@dataclass(frozen=True)
class Recipe:
    """How a network is built, and the strain that it was trained on.

    Args:
        network, size: name and arguments of `models.build`.
        sample_rate: Hz.
        band: Hz.
        detectors: `each`: one detector at a time, any; else the detectors that it looks at together, in this order.
        combine: of the members' statistics: `mean` or `min`.
        time_offset: s from the centre of the plateau to the merger, calibrated on validation data.
        threshold: of the network statistic, from which on there are triggers.
        single_threshold: that each detector has to be above.
        trained_as: fingerprint of the training.
    """

    network: str
    size: dict[str, Any] = field(default_factory=dict)
    sample_rate: int = 1024
    band: tuple[Hertz, Hertz] = (20.0, 400.0)
    detectors: Literal["each"] | tuple[str, ...] = "each"
    combine: Literal["mean", "min"] = "mean"
    time_offset: Seconds = 0.0
    threshold: float = 0.0
    single_threshold: float = -math.inf
    trained_as: str = ""


@dataclass(eq=False)
class SearchModel:
    """Args:
    recipe: what the networks are.
    members: one or several of them, in evaluation mode.
    path: the file it came from.
    checksum: SHA-256 of the file; of the recipe and the weights, where there is none.
    """

    recipe: Recipe
    members: list[SearchNetwork]
    path: Path | None = None
    checksum: str = ""

    def __post_init__(self) -> None:
        if not self.members or self.recipe.combine not in ("mean", "min"):
            raise SearchError(f"a search needs networks, combined by mean or min, not {self.recipe.combine!r}")
        for member in self.members:
            member.eval()
            channels = 1 if self.recipe.detectors == "each" else len(self.recipe.detectors)
            if member.channels != channels:
                raise SearchError(
                    f"a network of {member.channels} channel(s) does not look at detectors {self.recipe.detectors!r}"
                )
        self.checksum = self.checksum or hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def window(self) -> Seconds:
        return self.members[0].input_length / self.recipe.sample_rate

    @property
    def coherent(self) -> bool:
        """Whether the detectors are looked at together; then their scores cannot be shifted against each other."""
        return self.recipe.detectors != "each"

    def check_detectors(self, detectors: tuple[str, ...]) -> None:
        """Raises:
        SearchError: the networks were trained on other detectors.
        """
        if self.recipe.detectors not in ("each", detectors):
            raise SearchError(
                f"{self.path or 'this model'} was trained on {' and '.join(self.recipe.detectors)} together, the "
                f"strain is of {', '.join(detectors)}: give strain of those, or a model of one detector at a time"
            )

    @torch.no_grad()
    def series(self, x: Float32[Tensor, "detector time"], hop: int) -> Float32[Tensor, "row window"]:
        """Statistic of the windows that begin at samples 0, hop, 2 hop, ...: a row for each detector, or one for all.

        Args:
            x: whitened strain of unit variance, at `recipe.sample_rate`.
            hop: samples.
        """
        each = torch.stack([member.statistic_series(x, hop) for member in self.members])
        return each.mean(dim=0) if self.recipe.combine == "mean" else each.amin(dim=0)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        recipe = asdict(self.recipe)
        torch.save(
            {"format": FORMAT, "recipe": recipe, "members": [dict(member.state_dict()) for member in self.members]},
            buffer,
        )
        return buffer.getvalue()

    def save(self, path: Path | str) -> None:
        """Write the file, and take its SHA-256."""
        content = self.to_bytes()
        write_atomic(path, content)
        self.path, self.checksum = Path(path), hashlib.sha256(content).hexdigest()

    @classmethod
    def load(cls, path: Path | str) -> SearchModel:
        """Raises:
        SearchError: no such file, not a search model, or one of another version.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SearchError(
                f"no search model at {path} ({error.strerror}): give one with --checkpoint, or train one with "
                "`make reproduce-mma_realtime TIER=cpu`"
            ) from None
        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            version, settings, weights = found["format"], dict(found["recipe"]), found["members"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError, OSError):
            raise SearchError(f"{path} is not a search model: give the file that a tier left") from None
        if version != FORMAT:
            raise SearchError(f"{path} is a search model of format {version}, this program reads {FORMAT}: train again")
        try:
            plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
            recipe = Recipe(**plain)
            members = [build(recipe.network, **recipe.size) for _ in weights]
            for member, state in zip(members, weights, strict=True):
                member.load_state_dict(state)
        except (TypeError, RuntimeError) as error:
            raise SearchError(f"{path}: weights and network do not fit ({str(error).splitlines()[0]})") from None
        return cls(recipe, members, path, hashlib.sha256(content).hexdigest())
