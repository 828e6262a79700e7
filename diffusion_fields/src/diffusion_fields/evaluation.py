"""A trained model's samples against the truth: the law of a random field, digits in a small classifier, surfaces.

A model is sampled in one or several `looks` (another size of the context, a finer grid, fewer steps); whatever is
measured carries the look's name behind a slash. Of random fields with a known law the ideal sampler's value stands
beside every one: what the best denoiser gives with the same context, steps and eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diffusion_fields.completion import choose_context
from diffusion_fields.data import Fields, load, pixel_grid, space_grid
from diffusion_fields.data.fields import stream
from diffusion_fields.data.shapes import draw_shapes, signal_of
from diffusion_fields.errors import FieldError
from diffusion_fields.looks import Look, Settings
from diffusion_fields.metrics import chamfer_allpairs, grf_metrics, knn_metrics, mmd_cov, w2_sq_second_moments
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

__all__ = ["Look", "Picture", "Settings", "evaluate", "stream"]

KEPT = 8  # samples of a look that are stored for the figures
BATCH = 128  # fields sampled at once
CLOUD = 2048  # points of a surface


@dataclass(frozen=True)
class Picture:
    """Some samples of a look, and where they are: for pictures in W&B."""

    coords: Float[Tensor, "n c"]
    values: Float[Tensor, "k n s"]
    shape: tuple[int, ...] | None = None


class Sampler:
    """The trained model, ready for looks."""

    def __init__(self, net: nn.Module, data: Fields, schedule: Schedule, prediction: str, settings: Settings) -> None:
        self.net, self.data, self.schedule, self.prediction, self.settings = net, data, schedule, prediction, settings
        self.pictures: dict[str, Picture] = {}

    def keep(self, name: str, coords: Tensor, values: Tensor, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
        """The first samples of a look, for W&B's pictures and, rounded, for the figures."""
        shown = values[:KEPT].detach().cpu()
        self.pictures[name] = Picture(coords.cpu(), shown, shape)
        return {f"curve/samples/{name}": [round(v, 3) for v in shown.flatten().tolist()]}

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
        name: str = "same",
        observed: tuple[Tensor, Tensor] | None = None,
        resample: int = 1,
    ) -> tuple[Float[Tensor, "samples n s"], Int64[Tensor, " context"]]:
        """(samples, the context that they share)."""
        s = self.settings
        device = self.data.device
        generator = stream(self.data.run_seed, f"samples {name}", 0, device)  # one for all looks, see `Look`
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
                guidance_weight=look.guidance,
            )  # fmt: skip
            parts.append(values)
        return torch.cat(parts), context


def evaluate(
    net: nn.Module, data: Fields, schedule: Schedule, prediction: str, settings: Settings
) -> tuple[dict[str, Any], dict[str, Picture]]:
    """(metrics by name and curves of some samples, the same samples as pictures)."""
    sampler = Sampler(net, data, schedule, prediction, settings)
    fields = data.field_set
    if fields.truth is not None:
        found = _random_fields(sampler)
    elif fields.name == "digits":
        found = _digits(sampler)
    elif fields.name in ("sdf_shapes", "voxels"):
        found = _bodies(sampler)
    else:
        found = _samples_only(sampler)
    return found, sampler.pictures


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
        values, context = sampler(look, coords, look.samples or s.samples)
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
        out |= sampler.keep(name, coords, values)
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
    for name, look in s.looks.items():
        if name != look.against and look.against in s.looks:
            out[f"w2_ratio/{name}"] = out[f"w2_sq/{name}"] / out[f"w2_sq/{look.against}"]
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
    out["completion_repaint/over_plain"] = out["completion_repaint/rmse"] / out["completion/rmse"]
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
        values, _ = sampler(look, coords, look.samples or min(s.samples, len(test_images)))
        square = values[..., 0].clamp(-1, 1).cpu().reshape(len(values), side, side)
        out[f"fd_small/{name}"] = judge.fd_small(area_average(square), test_images)
        out[f"fd_over_gaussian/{name}"] = out[f"fd_small/{name}"] / out["fd_small/gaussian"]
        near = knn_metrics(judge.features(test_images), judge.features(area_average(square)))
        out |= {f"{what}/{name}": value for what, value in near.items()}
        out |= sampler.keep(name, coords, square.reshape(len(square), -1, 1), (side, side))
    return out


# ---- bodies ----


def _bodies(sampler: Sampler) -> dict[str, Any]:
    """MMD and COV of surface points against bodies not trained on, and of as many other true ones (section 7)."""
    data, s = sampler.data, sampler.settings
    fields = data.field_set
    inside: Inside = "positive" if fields.unit.startswith("occupancy") else "negative"
    out: dict[str, Any] = {}
    for name, look in s.looks.items():
        count = look.samples or s.samples
        if fields.shared_coords is None:
            coords = space_grid(look.resolution or 24).to(data.device)
            true = _drawn_bodies(data, coords, 2 * count)
        else:
            coords = fields.shared_coords
            true = data.validation(min(2 * count, data.validation_fields)).signal.cpu()
        values, _ = sampler(look, coords, count)
        half = len(true) // 2
        out |= sampler.keep(name, coords, values[:4], (round(len(coords) ** (1 / 3)),) * 3)
        out[f"empty/{name}"] = float(len(values))
        try:
            real, other = (point_clouds(part[..., 0], CLOUD, inside=inside)[0] for part in (true[:half], true[half:]))
            out[f"mmd_true/{name}"], out[f"cov_true/{name}"] = mmd_cov(chamfer_allpairs(other, real))
            fake, empty = point_clouds(values[..., 0].cpu(), CLOUD, inside=inside)
        except FieldError:  # not one has a surface: no distance to report
            continue
        out[f"empty/{name}"] = float(empty)
        out[f"mmd/{name}"], out[f"cov/{name}"] = mmd_cov(chamfer_allpairs(fake, real))
        out[f"cov_ratio/{name}"] = out[f"cov/{name}"] / out[f"cov_true/{name}"]
    return out


def _drawn_bodies(data: Fields, coords: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "count n 1"]:
    """Fresh bodies of the trained families, at these points."""
    families = data.options.get("families")
    bodies = draw_shapes(count, stream(data.run_seed, "reference bodies"), *([families] if families else []))
    occupancy = data.field_set.unit.startswith("occupancy")
    return signal_of(bodies.sdf(coords.cpu().expand(count, -1, -1)), "occupancy" if occupancy else "sdf")


def _samples_only(sampler: Sampler) -> dict[str, Any]:
    """Fields without a yardstick here: samples to be looked at, their mean and variance over the area."""
    data, s = sampler.data, sampler.settings
    fields = data.field_set
    out: dict[str, Any] = {}
    for name, look in s.looks.items():
        shape, weights = fields.size, fields.weights
        if look.resolution and fields.size:
            shape, weights = (look.resolution, look.resolution), None
            coords = pixel_grid(*shape).to(data.device)
        else:
            batch = data.validation(1)
            coords = batch.coords if batch.coords.ndim == 2 else batch.coords[0]
        values, _ = sampler(look, coords, look.samples or s.samples)
        area = torch.ones(len(coords)) if weights is None else weights.cpu()
        area = (area / area.mean())[:, None]
        mean = (values.cpu() * area).mean()
        out |= {f"mean/{name}": float(mean), f"variance/{name}": float(((values.cpu() - mean) ** 2 * area).mean())}
        out |= sampler.keep(name, coords, values, shape)
    return out
