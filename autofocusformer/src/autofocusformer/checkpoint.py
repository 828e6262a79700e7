"""Released weights, and what may lie beside them in their files.

A released file is a dict with the weights under `model` (and their average under `model_ema`), perhaps beside an
optimiser, a scheduler and the state of NumPy's random numbers. Nothing in it is ever run: PyTorch reads tensors and
plain containers only, and of NumPy just the four constructors that its random state and its scalars are made of.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared.errors import UserError
from torch import Tensor, nn

log = logging.getLogger(__name__)

WRAPPER = "module."  # what DistributedDataParallel puts before every name
SHOWN = 8  # names listed of each kind before "and n more"


def _numpy_state() -> list[Any]:
    """What the state of NumPy's random numbers consists of, under its names before and after NumPy 2."""
    reconstruct, scalar = np._core.multiarray._reconstruct, np._core.multiarray.scalar  # type: ignore[attr-defined]
    dtypes = {type(np.dtype(name)) for name in ("u4", "u8", "i4", "i8", "f4", "f8", "bool")}
    return [
        reconstruct,
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *dtypes,
    ]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The file's dict, read without running anything in it.

    Raises:
        UserError: no such file, not a file of PyTorch's, or one with other objects than tensors, plain containers and
            NumPy's random state.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(_numpy_state()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise UserError(f"{path} is not a checkpoint of PyTorch's, or it is damaged: fetch it again") from None
        raise UserError(
            f"{path} holds a {refused[1]}, which is not loaded because it could run code: if you trust the file, keep "
            "its weights alone by torch.save({'model': torch.load(OLD, weights_only=False)['model']}, NEW)"
        ) from None
    except PermissionError:
        raise UserError(f"{path} may not be read: change its permissions") from None
    except MemoryError:
        raise  # says nothing of the file
    except Exception as error:  # an unpickler stumbles over damaged bytes in any way: struct.error, KeyError, OSError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"{path} is not a checkpoint of PyTorch's, or it is damaged ({reason})"
        raise UserError(f"{what}: fetch it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}: a checkpoint is a dict with the weights under 'model'")
    return found


def weights_of(
    found: Mapping[str, Any], average: bool = False, path: str | Path = "the checkpoint"
) -> dict[str, Tensor]:
    """The weights in a checkpoint's dict: under `model`, with `average` under `model_ema`, or the dict itself.

    Where all names begin with `module.`, they are read without it, and the log says so.
    """
    key = "model_ema" if average else "model"
    inner = found.get(key)
    if inner is None and not average and found and all(isinstance(value, Tensor) for value in found.values()):
        inner = found
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        there = ", ".join(sorted(map(str, found))[:SHOWN]) or "nothing"
        raise UserError(f"{path} has no weights under '{key}' (it has: {there})")
    if inner and all(name.startswith(WRAPPER) for name in inner):
        log.warning("%s: all names begin with '%s' (saved from a wrapped network): read without it", path, WRAPPER)
        return {name.removeprefix(WRAPPER): value for name, value in inner.items()}
    return dict(inner)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], path: str | Path = "the checkpoint", backbone_only: bool = False
) -> None:
    """Loads with `strict=True`.

    Args:
        backbone_only: weights of a classifier into a pyramid: the final norm and head are left out, and the norms of
            the levels, which a classifier does not have, keep their start.

    Raises:
        UserError: names that are missing, left over, or of another shape, each listed.
    """
    own = model.state_dict()
    weights = dict(weights)
    if backbone_only:
        weights = {name: value for name, value in weights.items() if name.split(".")[0] not in ("norm", "head")}
        weights |= {name: own[name] for name in own if re.match(r"norm\d\.", name) and name not in weights}
    shared, wrong = sorted(own.keys() & weights.keys()), []
    if missing := sorted(own.keys() - weights.keys()):
        wrong.append(f"{len(missing)} missing ({_listed(missing)})")
    if extra := sorted(weights.keys() - own.keys()):
        wrong.append(f"{len(extra)} not in the network ({_listed(extra)})")
    shapes = {name: (list(weights[name].shape), list(own[name].shape)) for name in shared}
    if other := [f"{name} {given} instead of {needed}" for name, (given, needed) in shapes.items() if given != needed]:
        wrong.append(f"{len(other)} of another shape ({_listed(other)})")
    if wrong:
        fix = "see that variant and classes are its own"
        raise UserError(f"{path} does not fit this network: {'; '.join(wrong)}; {fix}")
    model.load_state_dict(weights, strict=True)


def load_checkpoint(
    model: nn.Module, path: str | Path, average: bool = False, backbone_only: bool = False
) -> dict[str, Any]:
    """Reads a file and loads its weights, or with `average` their average; returns what else lay in the file."""
    found = read_checkpoint(path)
    load_weights(model, weights_of(found, average, path), path, backbone_only)
    weights = {"model", "model_ema"} | model.state_dict().keys()
    return {key: value for key, value in found.items() if key not in weights}
