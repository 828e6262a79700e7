"""A trained model's samples against the truth: the law of a random field, digits in a small classifier, surfaces.

A model is sampled in one or several `looks`, which differ in one thing each (the size of the context, a finer grid,
more steps); whatever is measured carries the look's name behind a slash. Of random fields with a known law the ideal
sampler's value stands beside every one: what the best denoiser gives with the same context, steps and eta.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diffusion_fields.completion import choose_context
from diffusion_fields.data import Fields, load, pixel_grid, space_grid
from diffusion_fields.data.fields import check_at_least, check_choice, stream
from diffusion_fields.data.shapes import draw_shapes, signal_of
from diffusion_fields.errors import FieldError
from diffusion_fields.metrics import chamfer_allpairs, grf_metrics, mmd_cov, w2_sq_second_moments
from diffusion_fields.oracle import (
    Band,
    completion_scores,
    fibonacci_sphere,
    gaussian_posterior,
    read_covariance,
    sampler_covariance,
)
from diffusion_fields.sampling import sample, step_list
from diffusion_fields.schedules import Schedule
from diffusion_fields.small_classifier import SIDE, area_average, baselines, train_small_classifier
from diffusion_fields.surfaces import Inside, point_clouds

__all__ = ["Look", "Settings", "evaluate", "stream"]

KEPT = 8  # samples of a look that are stored for the figures
BATCH = 128  # fields sampled at once
CLOUD = 1024  # points of a surface


@dataclass(frozen=True)
class Look:
    """One way to sample the trained model; None: as in training, or as `Settings` has it.

    Args:
        num_context: N_c; `all`: every query.
        context: `random`, `farthest_point`, or `regular` (those points of a finer grid that stand on the trained one's
            spacing; of images only).
        redrawn: another context at every step (an ablation).
        finer: so many times as many points on the circle or the sphere.
        resolution: side of an image or of a grid in space.
        method, steps, eta: of the sampler.
        samples: how many.
    """

    num_context: int | str | None = None
    context: str = "random"
    redrawn: bool = False
    finer: int = 1
    resolution: int | None = None
    method: str | None = None
    steps: int | None = None
    eta: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class Settings:
    """How a model is sampled at the end of training.

    Args:
        method, steps, eta, clip: of the sampler (clip null: no clamping).
        samples: of a look.
        looks: by name.
        observed: pairs that completions of random fields are given (0: no completions).
        completions: draws of each completion; `completed`: fields that are completed.
        resample: how often each step of a second set of completions is taken (RePaint).
    """

    method: str = "ddim"
    steps: int | None = 50
    eta: float = 0.0
    clip: float | None = 5.0
    samples: int = 512
    looks: dict[str, Look] = field(default_factory=lambda: {"same": Look()})
    observed: int = 0
    completions: int = 128
    completed: int = 4
    resample: int = 4

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """From a configuration's section.

        Raises:
            FieldError: an unknown key, or a value out of its range.
        """
        _known("sampling", values, cls)
        given = dict(values)
        looks = given.pop("looks", None)
        if looks is not None:
            for name, look in looks.items():
                _known(f"sampling.looks.{name}", look, Look)
            given["looks"] = {name: Look(**look) for name, look in looks.items()}
        settings = cls(**given)
        check_choice("sampling.method", settings.method, ("ddpm", "ddim", "flow", "flow_heun"))
        check_at_least("sampling.samples", settings.samples, 2)
        check_at_least("sampling.observed", settings.observed, 0)
        return settings

    def dry(self) -> Self:
        """The same in little: two steps, few samples."""
        looks = {name: dataclasses.replace(look, samples=None, steps=2) for name, look in self.looks.items()}
        return dataclasses.replace(self, samples=40, looks=looks, completions=4, completed=1, steps=2, resample=2)


def _known(where: str, values: Any, cls: type) -> None:
    if not isinstance(values, dict):
        raise FieldError(f"{where} has to be a mapping, got {values!r}")
    names = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise FieldError(f"unknown key '{where}.{key}'; there are: {', '.join(names)}{hint}")


class Sampler:
    """The trained model, ready for looks."""

    def __init__(self, net: nn.Module, data: Fields, schedule: Schedule, prediction: str, settings: Settings) -> None:
        self.net, self.data, self.schedule, self.prediction, self.settings = net, data, schedule, prediction, settings

    def context(
        self, look: Look, coords: Float[Tensor, "n c"], generator: torch.Generator
    ) -> Int64[Tensor, " context"]:
        """The context subset of the queries, chosen once (section 2.4)."""
        n, trained = len(coords), self.data.context_range[1]
        if look.num_context == "all":
            return torch.arange(n, device=coords.device)
        size = trained if look.num_context is None else int(look.num_context)
        if look.context == "regular":
            side, old = round(n**0.5), (self.data.field_set.size or (0, 0))[0]
            if side * side != n or not old or side % old or size != old * old:
                raise FieldError(f"a regular context of {size} points does not fit a {side} x {side} image")
            grid = torch.arange(n, device=coords.device).reshape(side, side)
            step = side // old
            return grid[step // 2 :: step, step // 2 :: step].reshape(-1)
        return choose_context(coords, size, look.context, generator)

    def __call__(
        self,
        look: Look,
        coords: Float[Tensor, "n c"],
        samples: int,
        name: str,
        observed: tuple[Tensor, Tensor] | None = None,
        resample: int = 1,
    ) -> tuple[Float[Tensor, "samples n s"], Int64[Tensor, " context"]]:
        """(samples, the context that they share)."""
        s = self.settings
        device = self.data.device
        generator = stream(self.data.run_seed, f"samples {name}", 0, device)
        if observed is None:
            context = self.context(look, coords, generator)
        else:
            context = choose_context(coords, self.data.context_range[1], "random", generator, observed[0])
        label = None
        if self.data.labels and getattr(self.net, "num_classes", None):
            label = torch.arange(samples, device=device) % self.net.num_classes  # type: ignore[operator]
        parts = []
        for rows in torch.arange(samples).split(BATCH):
            values = sample(
                self.net, coords, len(rows), len(context), self.schedule, look.method or s.method,
                look.steps or s.steps, s.eta if look.eta is None else look.eta, s.clip, self.prediction, generator,
                query_chunk=4096, context_index=context, observed=observed, resample=resample,
                label=None if label is None else label[rows.to(device)], allow_redrawn_context=look.redrawn,
            )  # fmt: skip
            parts.append(values)
        return torch.cat(parts), context


def evaluate(net: nn.Module, data: Fields, schedule: Schedule, prediction: str, settings: Settings) -> dict[str, Any]:
    """Metrics by name, and curves of some samples."""
    sampler = Sampler(net, data, schedule, prediction, settings)
    fields = data.field_set
    if fields.truth is not None:
        return _random_fields(sampler)
    if fields.name == "digits":
        return _digits(sampler)
    if fields.name == "sdf_shapes":
        return _shapes(sampler)
    return _samples_only(sampler)


def _stored(name: str, samples: Float[Tensor, "k n s"], kept: int = KEPT) -> dict[str, list[float]]:
    return {f"curve/samples/{name}": [round(v, 3) for v in samples[:kept].flatten().tolist()]}


# ---- random fields with a known law ----


def _grid(data: Fields, finer: int) -> Float[Tensor, "n c"]:
    """The trained grid, or one of the same kind with `finer` times as many points."""
    fields = data.field_set
    if finer == 1 and fields.shared_coords is not None:
        return fields.shared_coords
    n = fields.num_points * finer
    if fields.coord_dim == 2:
        angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
        coords = torch.stack([angle.cos(), angle.sin()], -1)
    else:
        coords = torch.from_numpy(fibonacci_sphere(n))
    return coords.float().to(data.device)


def _random_fields(sampler: Sampler) -> dict[str, Any]:
    data, s, schedule = sampler.data, sampler.settings, sampler.schedule
    truth = data.truth
    assert truth is not None
    out: dict[str, Any] = {}
    for name, look in s.looks.items():
        coords = _grid(data, look.finer)
        values, context = sampler(look, coords, look.samples or s.samples, name)
        points = coords.double().cpu().numpy()
        basis = truth.basis(points)
        found = grf_metrics(values[..., 0].cpu(), basis, truth.variances, truth.degree)
        out |= {f"r_{l}/{name}": ratio for l, ratio in found.spectrum_ratio.items()}
        out |= {
            f"w2_sq/{name}": found.w2_sq, f"w2_sq_true/{name}": found.w2_sq_noise, f"grain/{name}": found.grain,
            f"kurtosis/{name}": found.kurtosis, f"variance/{name}": float(values.double().square().mean()),
        }  # fmt: skip
        worst = max(abs(ratio - 1) for ratio in found.spectrum_ratio.values())
        out[f"spectrum_error/{name}"] = worst
        out |= _stored(name, values)
        if look.redrawn:
            continue  # not one linear map: no ideal to compare with
        method, eta = look.method or s.method, s.eta if look.eta is None else look.eta
        if method in ("ddim", "ddpm"):
            asked = look.steps or s.steps
            steps = (
                None if method == "ddpm" and asked is None else step_list(schedule.T, asked or schedule.T, "linspace")
            )
            K = truth.covariance(points)
            Sigma = sampler_covariance(K, context.cpu().numpy(), schedule, steps, 1.0 if method == "ddpm" else eta)
            ideal = read_covariance(Sigma, Band(basis, truth.variances, truth.degree))
            out |= {f"ideal_w2_sq/{name}": ideal.w2_sq, f"ideal_grain/{name}": ideal.grain}
            out |= {f"ideal_r_{l}/{name}": float(r) for l, r in enumerate(ideal.ratio, 1)}
    if "same" in s.looks:
        out |= {f"w2_ratio/{name}": out[f"w2_sq/{name}"] / out["w2_sq/same"] for name in s.looks if name != "same"}
    blind = torch.zeros(2, len(truth.variances), dtype=torch.float64)
    out["w2_sq_zero"] = w2_sq_second_moments(blind, torch.from_numpy(truth.variances))
    if s.observed:
        out |= _completions(sampler)
    return out


def _completions(sampler: Sampler) -> dict[str, float]:
    """Completions of test fields against the exact posterior (section 9.3), averaged over fields."""
    data, s = sampler.data, sampler.settings
    truth = data.truth
    assert truth is not None
    coords = _grid(data, 1)
    K = truth.covariance(coords.double().cpu().numpy())
    fields = data.validation(s.completed).signal
    out: dict[str, float] = {}
    for name, resample in (("completion", 1), ("completion_repaint", s.resample)):
        rows: list[dict[str, float]] = []
        for i, signal in enumerate(fields):
            index = choose_context(coords, s.observed, "random", stream(data.run_seed, "observed", i, data.device))
            values = signal[index]
            drawn, _ = sampler(Look(), coords, s.completions, f"completion {i}", (index, values), resample)
            mean, covariance = gaussian_posterior(K, index.cpu().numpy(), values[:, 0].double().cpu().numpy())
            scores = completion_scores(drawn[..., 0].double().cpu().numpy(), mean, covariance)
            open_points = np.sqrt(np.clip(np.diag(covariance), 0, None)) > 1e-3
            prior = float(np.sqrt((mean[open_points] ** 2).mean()))  # of guessing 0 everywhere
            rows.append({**scores, "prior_rmse": prior})
        out |= {f"{name}/{key}": float(np.mean([row[key] for row in rows])) for key in rows[0]}
        out[f"{name}/rmse_ratio"] = out[f"{name}/rmse"] / out[f"{name}/prior_rmse"]
    return out


# ---- digits ----


def _digits(sampler: Sampler) -> dict[str, Any]:
    """FD_small at every look, with its four baselines (section 7)."""
    data, s = sampler.data, sampler.settings
    with torch.inference_mode(False), torch.enable_grad():  # a classifier is trained here, whatever the caller is in
        digits, parts = load("digits"), []
        for part in (digits.train, digits.test):
            assert part.size is not None
            batch = part(torch.arange(part.size), torch.Generator())
            assert batch.label is not None
            parts += [batch.signal[..., 0], batch.label]
        images, labels, test_images, test_labels = parts
        judge = train_small_classifier(images, labels, test_images, test_labels)
    out: dict[str, Any] = {"classifier_accuracy": judge.accuracy}
    out |= {f"fd_small/{name}": value for name, value in baselines(judge, images, test_images).items()}
    for name, look in s.looks.items():
        side = look.resolution or SIDE
        coords = pixel_grid(side, side).to(data.device)
        values, _ = sampler(look, coords, look.samples or min(s.samples, len(test_images)), name)
        square = values[..., 0].clamp(-1, 1).cpu().reshape(len(values), side, side)
        out[f"fd_small/{name}"] = judge.fd_small(area_average(square), test_images)
        out[f"fd_over_gaussian/{name}"] = out[f"fd_small/{name}"] / out["fd_small/gaussian"]
        out |= _stored(name, square[..., None])
    return out


# ---- bodies ----


def _shapes(sampler: Sampler) -> dict[str, Any]:
    """MMD and COV of surface points against fresh bodies, and the same of a second set of true bodies (section 7)."""
    data, s = sampler.data, sampler.settings
    fields = data.field_set
    occupancy = fields.unit.startswith("occupancy")
    inside: Inside = "positive" if occupancy else "negative"
    families = data.options.get("families")
    out: dict[str, Any] = {}
    for name, look in s.looks.items():
        coords = space_grid(look.resolution or 24).to(data.device)
        count = look.samples or s.samples
        values, _ = sampler(look, coords, count, name)
        reference = []
        grid = coords.cpu().expand(count, -1, -1)
        for part in range(2):
            generator = stream(data.run_seed, "reference bodies", part)
            bodies = draw_shapes(count, generator, *([families] if families else []))
            reference.append(signal_of(bodies.sdf(grid), "occupancy" if occupancy else "sdf"))
        real, _ = point_clouds(reference[0][..., 0], CLOUD, inside=inside)
        other, _ = point_clouds(reference[1][..., 0], CLOUD, inside=inside)
        out[f"mmd_true/{name}"], out[f"cov_true/{name}"] = mmd_cov(chamfer_allpairs(other, real))
        out[f"empty/{name}"] = float(len(values))
        out |= _stored(name, values.cpu(), 4)
        try:
            fake, empty = point_clouds(values[..., 0].cpu(), CLOUD, inside=inside)
        except FieldError:  # not one has a surface: no distance to report
            continue
        out[f"empty/{name}"] = float(empty)
        out[f"mmd/{name}"], out[f"cov/{name}"] = mmd_cov(chamfer_allpairs(fake, real))
    return out


def _samples_only(sampler: Sampler) -> dict[str, Any]:
    """Fields without a yardstick here: samples to be looked at, their mean and variance."""
    data, s = sampler.data, sampler.settings
    out: dict[str, Any] = {}
    for name, look in s.looks.items():
        fields = data.field_set
        if look.resolution and fields.size:
            coords = pixel_grid(look.resolution, look.resolution).to(data.device)
        else:
            batch = data.validation(1)
            coords = batch.coords if batch.coords.ndim == 2 else batch.coords[0]
        values, _ = sampler(look, coords, look.samples or s.samples, name)
        out |= {f"mean/{name}": float(values.mean()), f"variance/{name}": float(values.var())}
        out |= _stored(name, values.cpu())
    return out
