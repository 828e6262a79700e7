"""A finished run of `train.py fit`: its network with the averaged weights, its data, and where its fields live."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from shared.errors import UserError
from shared.runs.plan import read_yaml
from torch import Tensor, nn

from diffusion_fields.canvas import Canvas
from diffusion_fields.data.fields import FieldSet
from diffusion_fields.data.module import Fields
from diffusion_fields.domains import Domain, canvas_of, domain_of, is_intrinsic, is_occupancy
from diffusion_fields.errors import FieldError
from diffusion_fields.module import DiffusionField


@dataclass(frozen=True)
class Trained:
    """Args:
    module: with the weights of the checkpoint. data: set up as it was trained on. folder: of the run.
    """

    module: DiffusionField
    data: Fields
    folder: Path

    @cached_property
    def net(self) -> nn.Module:
        """The network with the averaged weights (EMA), ready to sample."""
        return self.module.ema_net().eval().requires_grad_(False)

    @property
    def fields(self) -> FieldSet:
        return self.data.field_set

    @cached_property
    def points(self) -> Float[Tensor, "n c"]:
        """The grid of the fields; where each has points of its own those of the first test field."""
        coords = self.fields.shared_coords
        return self.data.validation(1).coords[0] if coords is None else coords

    @cached_property
    def domain(self) -> Domain:
        return "other" if is_intrinsic(self.fields) else domain_of(self.points)

    @property
    def occupancy(self) -> bool:
        return is_occupancy(self.fields)

    def canvas(self, coords: Float[Tensor, "n c"], shape: tuple[int, ...] | None = None) -> Canvas:
        """How fields at these coordinates are drawn; `shape` of a grid of pixels or voxels.

        Raises:
            FieldError: they have no picture.
        """
        canvas = canvas_of(self.fields, self.points, coords, shape)
        if canvas is None:
            raise FieldError(
                f"fields over {self.fields.coord_dim} coordinates have no picture: write an .npz and draw it yourself"
            )
        return canvas

    def warn_of_outside(self, coords: Float[Tensor, "n c"], where: str) -> None:
        """A line on stderr where coordinates lie where nothing was trained."""
        if self.domain in ("circle", "sphere"):
            outside, place = (coords.norm(dim=-1) - 1).abs() > 1e-3, f"off the unit {self.domain}"
        elif self.domain in ("plane", "space"):
            outside, place = (coords.abs() > 1 + 1e-6).any(-1), f"outside [-1, 1]^{coords.shape[-1]}"
        else:
            low, high = self.points.amin(0), self.points.amax(0)
            outside, place = ((coords < low) | (coords > high)).any(-1), "outside the range of the training points"
        if outside.any():
            print(
                f"warning: {where}: {int(outside.sum())} of {outside.numel()} coordinates lie {place}, "
                "where nothing was trained: values there mean little",
                file=sys.stderr,
            )

    def num_context(self, asked: int | None, allow_mismatch: bool, observed: int = 0, points: int | None = None) -> int:
        """Size of the context: as asked, else that of training; at least as many as were observed.

        Args:
            points: of the field, where context can be nowhere else: if it has fewer than that all of them.

        Raises:
            FieldError: it is not one that the network was trained with, and that was not allowed; it holds more than
                there are points, or less than was observed.
        """
        low, high = self.data.context_range
        size = max(high, observed) if asked is None else asked
        few_points = points is not None and size > points
        if points is not None and few_points:
            if asked is not None:
                raise FieldError(f"--num-context is {asked}: the field has {points} points, at most so many can be")
            size = points
        trained = f"{low}" if low == high else f"{low} to {high}"
        if size < observed:
            raise FieldError(f"a context of {size} cannot hold {observed} observed pairs, all of which are context")
        if not low <= size <= high and not allow_mismatch:
            why, instead = f"{observed} observed pairs ask for", "observe fewer"
            if asked is not None:
                why, instead = "--num-context is", "choose that"
            elif few_points:
                why, instead = f"a field of {points} points holds", "complete one with more points"
            raise FieldError(
                f"{why} a context of {size}, the network was trained with {trained}: samples of another size are "
                f"worse; {instead}, or add --allow-context-mismatch"
            )
        return size


def load(path: Path, device: str = "cpu") -> Trained:
    """A run by its checkpoint; `config.yaml` lies beside it.

    Raises:
        UserError: no such file, no configuration beside it, a damaged file, a checkpoint of something else or of
            another configuration or data.
    """
    config_path = path.parent / "config.yaml"
    for needed in (path, config_path):
        if not needed.is_file():
            raise UserError(
                f"{needed} is missing: name the checkpoint in the folder of a run, as `train.py fit` left it"
            )
    state = _read(path)
    config = read_yaml(config_path)
    torch.manual_seed(int(config.get("seed_everything") or 0))
    try:
        module, data = DiffusionField(**(config.get("model") or {})), Fields(**(config.get("data") or {}))
    except TypeError as error:  # a key that is none of theirs
        raise UserError(f"{config_path}: {str(error).split('() ')[-1]}") from None
    data.setup()
    module.build(data)
    _check_trained_as(path, state, module, data)
    try:
        module.load_state_dict(state["state_dict"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        why = lines[min(1, len(lines) - 1)]
        raise UserError(f"{path} is no checkpoint of the configuration beside it ({why})") from None
    return Trained(module.to(device), data, path.parent)


def _check_trained_as(path: Path, state: dict[str, Any], module: DiffusionField, data: Fields) -> None:
    """The weights would load into a network that reads them otherwise: the checkpoint says what they mean."""
    made, of_data = state.get("trained"), state.get(type(data).__qualname__)
    if not isinstance(made, dict) or not isinstance(of_data, dict):
        raise UserError(f"{path} does not say how it was trained: name the final.ckpt that `train.py fit` left")
    try:
        module.check_trained(made, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if of_data.get("data") != data.field_set.fingerprint:
        raise UserError(f"{path} was trained on other data than {data.dataset} is here: put the same files in place")


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except Exception as error:  # of a damaged file the unpickler raises whatever it meets
        kind = type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint ({kind}): train again, or name a sound one") from None
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        raise UserError(f"{path} holds no state_dict: it is not a checkpoint of `train.py fit`")
    return state


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Arrays of numbers from an .npz, or the one of an .npy, as float32.

    Raises:
        FieldError: no such file, damaged, without one of the arrays, or of other things than numbers.
    """
    if not path.is_file():
        raise FieldError(f"{path} is missing")
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {names[0]: loaded} if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise FieldError(
            f"{path} cannot be read ({type(error).__name__}): save it anew with numpy, without objects"
        ) from None
    except Exception as error:  # zipfile and zlib have their own
        raise FieldError(f"{path} is damaged ({type(error).__name__}): save it anew with numpy") from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise FieldError(f"{path} has no {', '.join(missing)}: it needs {', '.join(names)}; it has {', '.join(arrays)}")
    for name in names:
        if arrays[name].dtype.kind not in "fiub":
            raise FieldError(f"{path}: {name} holds {arrays[name].dtype}, numbers are expected")
    return {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in names}
