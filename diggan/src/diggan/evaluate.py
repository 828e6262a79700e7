"""Judge a trained generator: `python -m diggan.evaluate --ckpt runs/fit/<run>/final.ckpt --features local`.

The configuration is read from `config.yaml` beside the checkpoint. FID-local and IS-local are by a classifier that is
trained on the data; they compare with each other (by the hash in the title), never with a published FID.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from shared.errors import UserError, one_line_errors
from shared.runs.plan import read_yaml

from diggan.data import LimitedImages
from diggan.evaluation import Judge, check_eval_bn, sample
from diggan.features import InceptionFeatures, local_features, score_name
from diggan.module import DigGAN


def loaded(path: Path) -> tuple[DigGAN, LimitedImages]:
    """A trained module, and the data that it was trained on.

    Raises:
        UserError: no such file, no configuration beside it, a damaged file.
    """
    config_path = path.parent / "config.yaml"
    for needed in (path, config_path):
        if not needed.is_file():
            raise UserError(
                f"{needed} is missing: name the checkpoint in the folder of a run, as `train.py fit` left it"
            )
    config = read_yaml(config_path)
    torch.manual_seed(int(config.get("seed_everything") or 0))
    try:
        module, data = DigGAN(**(config.get("model") or {})), LimitedImages(**(config.get("data") or {}))
    except TypeError as error:
        raise UserError(f"{config_path}: {error}") from None
    data.setup()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
        module.load_state_dict(state["state_dict"])
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no checkpoint of this configuration ({why[0]})") from None
    return module, data


def scores(
    module: DigGAN, data: LimitedImages, inception: Path | None, samples: int, eval_bn: Any, cache: Path | None = None
) -> dict[str, float]:
    extractor: Any = InceptionFeatures(inception) if inception else local_features(data.source, cache)
    fakes = sample(module.game.sampler, samples, eval_bn, data.batch_size, data.seed)
    return Judge(extractor, data.reference()).scores(fakes, data.images)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diggan.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--features", choices=("local", "inception"), default="local")
    parser.add_argument("--inception", type=Path, help="file of Inception weights: state dict or TorchScript")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--eval-bn", default="batch", help="batch (default), running or standing")
    args = parser.parse_args(argv)
    if args.features == "inception" and args.inception is None:
        raise UserError("--features inception needs --inception FILE: the weights are never downloaded")
    check_eval_bn(args.eval_bn)
    module, data = loaded(args.ckpt)
    inception = args.inception if args.features == "inception" else None
    found = scores(module, data, inception, args.samples, args.eval_bn, args.ckpt.parent.parent / "features")
    title = next(name for name in found if name.startswith("features/"))
    print(f"{data.source.detail}; {len(data.images)} trained on; {args.samples} samples, normalised by {args.eval_bn}")
    for name, value in found.items():
        if name.startswith("features/"):
            accuracy = f" (accuracy {100 * value:.1f} % on the reference images)" if value else ""
            print(f"features: {name.removeprefix('features/')}{accuracy}")
        else:
            label = score_name(name.upper(), title.removeprefix("features/")) if name in ("fid", "is") else name
            print(f"{label:22} {value:10.4g}")
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
