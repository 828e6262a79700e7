"""One experiment, as the launcher calls it. The configuration says which kind, by one of the sections

counts             parameters and multiply-adds of a variant, no data
clustering         time and balance of the clusterings of a full canvas, no learning
sampling_limited   what sampling alone allows on labelled images (section 8), no learning
model              a training by Lightning, then its test
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from shared.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SECTIONS = {"counts", "clustering", "sampling_limited", "model", "data", "trainer", "seed_everything"}
KEYS = {
    "counts": {"variant", "rate", "pixels", "classes"},
    "clustering": {"n", "repeats"},
    "sampling_limited": {"mode", "against", "rate", "alpha", "images"},
}
NOTHING = {
    "counts": "counted from the settings and the network itself",
    "clustering": "all positions of a square canvas",
}


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on, and trained on where it trains."""
    for section, words in NOTHING.items():
        if section in config:
            return hashlib.sha256(section.encode()).hexdigest(), "exact", words
    images = images_of(config["data"])
    parts = [images.source(part) for part in (("train", "test") if "model" in config else ("test",))]
    digest = parts[0].fingerprint
    if len(parts) > 1:
        digest = hashlib.sha256("".join(part.fingerprint for part in parts).encode()).hexdigest()
    return digest, parts[-1].kind, "; ".join(dict.fromkeys(part.detail for part in parts))


def images_of(data: dict[str, Any]) -> Any:
    from autofocusformer.data.module import Images
    from autofocusformer.data.synthetic import SceneConfig

    given = dict(data)
    for name in ("scale", "resize", "crop"):
        if given.get(name) is not None:
            given[name] = tuple(given[name])
    if isinstance(given.get("scene"), dict):
        scene = {name: tuple(v) if isinstance(v, list) else v for name, v in given["scene"].items()}
        given["scene"] = _known(SceneConfig, scene, "data.scene")
    return _known(Images, given, "data")


def _known(make: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    """`make(**settings)`; a setting that it does not have is the user's, not the program's."""
    try:
        return make(**settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"configuration: {where} has no setting {str(error).split()[-1]}") from None


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    for key in config:
        if key not in SECTIONS:
            raise UserError(f"configuration: unknown key '{key}'; there are: {', '.join(sorted(SECTIONS))}")
    dry = bool((config.get("trainer") or {}).get("fast_dev_run"))
    for section, known in KEYS.items():
        for key in config.get(section) or {}:
            if key not in known:
                raise UserError(f"configuration: unknown key '{section}.{key}'; it has: {', '.join(sorted(known))}")
    if "counts" in config:
        return counts(**config["counts"])
    if "clustering" in config:
        return clustering(seed=seed, **config["clustering"], dry=dry)
    if "sampling_limited" in config:
        return sampling_limited(config["sampling_limited"], config["data"], seed, dry)
    from shared.cli import train_and_test

    from autofocusformer.data.module import Images

    return train_and_test(
        None, Images, config, seed, run_dir, paper="autofocusformer", experiment=experiment, tier=tier
    )


def counts(variant: str, rate: float = 0.25, pixels: int = 224, classes: int = 1000) -> dict[str, Any]:
    """Parameters of the classifier, its multiply-adds (billions) in both ways of counting, and what the rate saves."""
    import torch

    from autofocusformer.backbone import AutoFocusFormer
    from autofocusformer.macs import count_macs, points_by_stage
    from autofocusformer.module import backbone_config

    config = backbone_config(variant, {"rate": rate})
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoFocusFormer(config, classes).parameters())
    found = count_macs(config, pixels, pixels, classes)
    points = points_by_stage(config, (-(-pixels // 4), -(-pixels // 4)))
    quarter = count_macs(backbone_config(variant, {"rate": 0.25}), pixels, pixels, classes)
    return {
        "macs/saved": 1 - found.modules / quarter.modules,
        "parameters": parameters,
        "parameters/M": parameters / 1e6,
        "macs/modules": found.modules / 1e9,
        "macs/all": found.all / 1e9,
        **{f"points/{stage}": float(n) for stage, n in enumerate(points, start=1)},
    }


def clustering(n: int, repeats: int = 9, seed: int = 0, dry: bool = False) -> dict[str, Any]:
    """Every curve and k-means (10 iterations) on the n positions of a square canvas, in clusters of 8."""
    import torch

    from autofocusformer.clustering import balance, balanced_clusters, cluster_of_point, kmeans_clusters
    from autofocusformer.neighbourhood import nearest_clusters
    from autofocusformer.positions import canvas_positions

    side = round(n**0.5)
    if side * side != n:
        raise UserError(f"clustering.n is {n}: a square number is needed, such as 784 or 3136")
    positions, size = canvas_positions(side, side), 8
    count, repeats = -(-n // size), 1 if dry else repeats
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    try:
        for curve in ("snake", "hilbert", "peano", "hilbert-direct", "peano-direct", "scan-line"):
            seconds, found = timed(lambda: balanced_clusters(positions[None], size, (side, side), curve), repeats)  # noqa: B023
            out |= _described(curve, seconds, balance(positions, cluster_of_point(found)[0], count))
        kmeans_clusters(positions[:64], 8)  # what is imported is not timed
        tries = min(repeats, 3) if n <= 4096 else 1  # a second each beyond that
        seconds, labels = timed(lambda: kmeans_clusters(positions, count, 10, seed), tries)
        out |= _described("k-means", seconds, balance(positions, labels, count))
        clusters = balanced_clusters(positions[None], size, (side, side))
        ordered = positions[clusters.order[0]][None]
        out["search/ms"] = 1000 * timed(lambda: nearest_clusters(ordered, clusters.centres, 6), repeats)[0]
    finally:
        torch.set_num_threads(threads)
    return out | {"speed-up": out["k-means/ms"] / out["snake/ms"]}


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of this process's own time (other processes of the machine do not count), and the result."""
    if repeats > 1:
        work()
    times, found = [], None
    for _ in range(repeats):
        start = time.process_time()
        found = work()
        times.append(time.process_time() - start)
    return median(times), found


def _described(name: str, seconds: float, found: Any) -> dict[str, float]:
    return {
        f"{name}/ms": 1000 * seconds,
        f"{name}/smallest": found.smallest,
        f"{name}/largest": found.largest,
        f"{name}/distance": found.distance,
    }


def rows_of_seed(size: int, count: int, seed: int) -> np.ndarray:
    """A seed's own `count` of `size` images: slices of one shuffle, so that no two seeds share an image.

    After size // count seeds the images are used up, and the next shuffle begins. Shuffled, because consecutive frames
    of a video are nearly one image.
    """
    import numpy as np

    if count > size:
        raise UserError(f"sampling_limited.images is {count}, there are {size} images: ask for fewer, or for 'all'")
    shuffle, part = divmod(seed, size // count)
    return np.random.default_rng(shuffle).permutation(size)[part * count : (part + 1) * count]


def sampling_limited(section: dict[str, Any], data: dict[str, Any], seed: int, dry: bool = False) -> dict[str, Any]:
    """IoU, coverage and budget of a mode by level; with `against`, what it gains over that mode on the same images.

    Every seed has images of its own: other scenes, or a slice of the shuffled test part. With `images: all`, they are
    those that a training on `data` is tested on, and only `random` depends on the seed.
    """
    import numpy as np

    from autofocusformer.sampling_limited import measure

    images = images_of(data)
    source = images.source("test")
    wanted = 2 if dry else section.get("images", 16)
    count = images.amount("test") if wanted == "all" else int(wanted)
    if wanted == "all":
        rows = np.arange(count)
    elif images.dataset == "synthetic_density":
        from autofocusformer.data import sets

        source, rows = sets.synthetic("test", images.scene, count, seed), np.arange(count)
    else:
        rows = rows_of_seed(source.size, count, seed)
    pairs = []
    for row in rows:
        _, sample = images._scene(source, int(row))
        if images.resize:
            from autofocusformer.data.augment import resized

            sample = resized(sample, *images.resize)
        picture = (sample.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        pairs.append((picture, sample.labels.numpy().astype(np.uint8)))
    rate, alpha = float(section.get("rate", 0.25)), float(section.get("alpha", 4.0))
    common: dict[str, Any] = {"rate": rate, "alpha": alpha, "seed": seed}
    own = measure(pairs, source.classes, source.small, section["mode"], **common)
    if "against" in section:
        other = measure(pairs, source.classes, source.small, section["against"], **common)
        own |= {f"gain/{name}": own[name] - other[name] for name in other if name.startswith(("small", "large"))}
    return own
