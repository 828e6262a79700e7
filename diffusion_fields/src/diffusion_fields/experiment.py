"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

oracle       the exact context-rate law of section 6, no training
model        a field diffusion trained by Lightning, its losses against the floors, its samples against the truth
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from shared.errors import UserError

SECTIONS = {"oracle", "model", "data", "trainer", "seed_everything"}
ORACLE = {"domain", "counts", "degree", "tilt", "points", "contexts"}


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on."""
    if "oracle" in config:
        return (
            hashlib.sha256(b"oracle").hexdigest(),
            "exact",
            "closed form: Gaussian random fields on the sphere and the circle",
        )
    from diffusion_fields.data import load

    data = config["data"]
    chosen = {name: data[name] for name in ("resolution", "points") if data.get(name) is not None}
    fields = load(data.get("dataset", "circle_grf"), data.get("root"), **{**(data.get("options") or {}), **chosen})
    return fields.fingerprint, fields.kind, fields.detail


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    for key in config:
        if key not in SECTIONS:
            raise UserError(f"configuration: unknown key '{key}'; there are: {', '.join(sorted(SECTIONS))}")
    if "oracle" in config:
        return context_rates(config["oracle"], dry=bool((config.get("trainer") or {}).get("fast_dev_run")))
    from shared.cli import train_and_test

    from diffusion_fields.data import Fields
    from diffusion_fields.module import DiffusionField

    return train_and_test(
        DiffusionField, Fields, config, seed, run_dir, paper="diffusion_fields", experiment=experiment, tier=tier
    )


def context_rates(section: dict[str, Any], dry: bool = False) -> dict[str, Any]:
    """The table of section 6, row by row: floor, relative error, r_l and grain of the ideal sampler.

    On the sphere for one context of each size, the specification's; on the circle averaged over `contexts` random ones.
    """
    import numpy as np

    from diffusion_fields.data import load
    from diffusion_fields.oracle import Band, context_rate, fibonacci_sphere, sphere_band, sphere_spectrum
    from diffusion_fields.schedules import make_schedule

    for key in section:
        if key not in ORACLE:
            raise UserError(f"configuration: unknown key 'oracle.{key}'; it has: {', '.join(sorted(ORACLE))}")
    domain, counts = section.get("domain", "sphere"), [int(count) for count in section["counts"]]
    degree, tilt, points = int(section.get("degree", 5)), float(section.get("tilt", 2)), int(section.get("points", 100))
    if domain == "sphere":
        band = sphere_band(fibonacci_sphere(points), sphere_spectrum(degree, tilt))
    elif domain == "circle":
        fields = load("circle_grf", modes=degree, tilt=tilt, points=points)
        assert fields.truth is not None
        assert fields.shared_coords is not None
        law = fields.truth
        band = Band(law.basis(fields.shared_coords.double().numpy()), law.variances, law.degree)
    else:
        raise UserError(f"configuration: oracle.domain is {domain!r}: it has to be sphere or circle")
    schedule = make_schedule("cosine", 10 if dry else 1000)
    orders = [np.random.default_rng(k).permutation(points) for k in range(int(section.get("contexts", 1)))]
    rows = [context_rate(band, [order[:count] for count in counts], schedule) for order in orders]
    out: dict[str, Any] = {"curve/counts": [float(count) for count in counts]}
    for i, count in enumerate(counts):
        same, name = [each[i] for each in rows], f"c{count}"
        out |= {f"floor/{name}": float(np.mean([row.floor for row in same]))}
        out |= {f"error/{name}": float(np.mean([row.error for row in same]))}
        out |= {f"grain/{name}": float(np.mean([row.reading.grain for row in same]))}
        out |= {f"w2_sq/{name}": float(np.mean([row.reading.w2_sq for row in same]))}
        ratio = np.mean([row.reading.ratio for row in same], 0)
        out |= {f"r_{l}/{name}": float(r) for l, r in enumerate(ratio, 1)}
    for what in ("floor", "error", "grain", "w2_sq"):
        out[f"curve/{what}"] = [out[f"{what}/c{count}"] for count in counts]
    return out
