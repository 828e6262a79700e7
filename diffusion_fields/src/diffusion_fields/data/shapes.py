"""Solid bodies as fields R^3 -> R, drawn by recipe (section 4, `sdf_shapes`).

Five families at random size and pose within [-0.9, 0.9]^3: sphere, box, torus, capsule, superellipsoid. The signal is
clamp(sdf/0.3, -1, 1) of the exact signed distance (negative inside), or the occupancy, +1 inside and -1 outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..errors import FieldError
from ..oracle import fibonacci_sphere
from .fields import (
    FieldBatch,
    FieldSet,
    Source,
    check_at_least,
    check_choice,
    random_rotations,
    recipe_fingerprint,
)

Signal = Literal["sdf", "occupancy"]
Sampling = Literal["uniform", "near_surface"]
FAMILIES = ("sphere", "box", "torus", "capsule", "superellipsoid")
CUT = 0.3  # signed distances are cut here
EXTENT = 0.9  # of the cube that holds the bodies
NEAR = 0.05  # standard deviation of the points near a surface about it
STEPS = 6  # of Newton, to the nearest point of a superellipsoid
EXPONENTS = 2.5, 6.0  # of superellipsoids: 2 is an ellipsoid, infinity a box


@dataclass(frozen=True)
class Shapes:
    """B bodies: family [B]; size [B, 3] and exponent [B] (meaning by family); rotation and centre of the pose."""

    family: Int64[Tensor, " batch"]
    size: Float[Tensor, "batch 3"]
    exponent: Float[Tensor, " batch"]
    rotation: Float[Tensor, "batch 3 3"]
    centre: Float[Tensor, "batch 3"]

    def sdf(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "batch n"]:
        """Signed distances of points [N, 3], the same for all, or [B, N, 3]."""
        local = (points - self.centre[:, None]) @ self.rotation  # rows R^T (p - c)
        out = local.new_empty(local.shape[:2])
        for number, distance in enumerate(DISTANCES):
            rows = (self.family == number).nonzero()[:, 0]
            if len(rows):
                out = out.index_put((rows,), distance(local[rows], self.size[rows], self.exponent[rows]))
        return out


def draw_shapes(batch: int, generator: torch.Generator, families: Sequence[str] = FAMILIES) -> Shapes:
    """Random bodies: family, proportions, bounding radius in 0.45..0.85, rotation, centre."""
    device = generator.device
    u = torch.rand(batch, 8, generator=generator, device=device)
    numbers = torch.tensor([FAMILIES.index(name) for name in families], device=device)
    family = numbers[torch.randint(len(numbers), (batch,), generator=generator, device=device)]
    one, axes = torch.ones(batch, 1, device=device), 0.4 + 0.6 * u[:, :3]
    proportions = torch.stack(
        [
            one.expand(-1, 3),  # sphere: radius
            axes,  # box: half its sides
            torch.cat([one, 0.25 + 0.25 * u[:, 1:2], one], 1),  # torus: radius of the ring, radius of the tube
            torch.cat([one, 0.3 + 0.5 * u[:, 1:2], one], 1),  # capsule: half the length of its axis, radius
            axes,  # superellipsoid: half axes
        ]
    )[family, torch.arange(batch, device=device)]
    norm, sum2 = proportions.norm(dim=1), proportions[:, :2].sum(1)
    bound = torch.stack([proportions[:, 0], norm, sum2, sum2, norm])[family, torch.arange(batch, device=device)]
    radius = 0.45 + 0.4 * u[:, 3]
    centre = (2 * u[:, 4:7] - 1) * (EXTENT - radius)[:, None]
    low, high = EXPONENTS
    size = proportions * (radius / bound)[:, None]
    return Shapes(family, size, low + (high - low) * u[:, 7], random_rotations(batch, generator), centre)


def _sphere(p: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    return p.norm(dim=-1) - size[:, None, 0]


def _box(p: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    q = p.abs() - size[:, None]
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)


def _torus(p: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    ring = torch.hypot(p[..., 0], p[..., 1]) - size[:, None, 0]
    return torch.hypot(ring, p[..., 2]) - size[:, None, 1]


def _capsule(p: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    half = size[:, None, 0]
    z = p[..., 2] - torch.maximum(torch.minimum(p[..., 2], half), -half)
    return torch.stack([p[..., 0], p[..., 1], z], -1).norm(dim=-1) - size[:, None, 1]


def _superellipsoid(p: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    """|x/a|^e + |y/b|^e + |z/c|^e = 1: the distance to the nearest point of the surface, which Newton's steps find.

    Outside, the body being convex, the distance is the largest of n x - h(n) over unit normals n, without other maxima;
    h(n) = ||a n||_e', 1/e + 1/e' = 1. The best of a few normals gives the start, the point grad h(n) that its plane
    touches. Inside there are several nearest points to choose from: one is looked for from each axis's direction.
    """
    x = p.abs()
    with torch.no_grad():
        a, e = (t.expand(*x.shape[:2], -1) for t in (size[:, None], exponent[:, None, None]))
        share = (x / a) ** e
        inside = share.sum(-1) < 1
        foot = torch.empty_like(x)
        out = ~inside
        foot[out] = _foot(x[out], a[out], e[out], _touched(x, size, exponent)[out])
        x_in, a_in, e_in = (t[inside] for t in (x, a, e))
        rest = (1 - share[inside].sum(-1, keepdim=True) + share[inside]) ** (1 / e_in)
        starts = torch.where(torch.eye(3, dtype=torch.bool, device=x.device)[:, None], a_in * rest, x_in)
        feet = _foot(x_in.expand(3, -1, -1), a_in, e_in, starts)
        nearest = (feet - x_in).norm(dim=-1).argmin(0)
        foot[inside] = feet[nearest, torch.arange(len(nearest), device=x.device)]
    return torch.where(inside, -1.0, 1.0).to(x) * (x - foot).norm(dim=-1)


def _touched(x: Tensor, size: Tensor, exponent: Tensor) -> Tensor:
    """Of some normals the one with the farthest plane from each x, and the point of the surface that it touches."""
    normals = torch.from_numpy(fibonacci_sphere(400)).to(x)
    normals = normals[(normals > 0).all(1)]
    e = exponent[:, None, None]
    dual = e / (e - 1)
    scaled = (size[:, None] * normals) ** dual
    total = scaled.sum(-1, keepdim=True)
    height = x @ normals.T - (total ** (1 / dual)).transpose(1, 2)
    touched = scaled / normals * total ** (1 / dual - 1)  # grad h
    return touched.gather(1, height.argmax(-1)[..., None].expand(-1, -1, 3))


def _foot(x: Tensor, a: Tensor, e: Tensor, y: Tensor) -> Tensor:
    """The nearest point of the surface to x [..., 3] from a start y on it; all coordinates are positive.

    With G = grad F/|grad F| and d = (x - y) G, the Hessian of half the squared distance along the surface is
    1 + d Hess F/|grad F|, diagonal here, restricted to the tangent plane. A step that leads away is halved.
    """
    trust = torch.ones_like(x[..., :1])
    for _ in range(STEPS):
        curvature = (e - 1) * (y / a) ** (e - 2) / a**2
        gradient = curvature * y / (e - 1)
        length = gradient.norm(dim=-1, keepdim=True)
        normal, curvature = gradient / length, curvature / length
        away = x - y
        d = (away * normal).sum(-1, keepdim=True)
        tangent = away - d * normal
        inverse = 1 / (1 + d * curvature).clamp_min(0.1)
        pull = (normal * inverse * tangent).sum(-1, keepdim=True) / (normal * inverse * normal).sum(-1, keepdim=True)
        new = (y + trust * inverse * (tangent - pull * normal)).abs()
        new = new / ((new / a) ** e).sum(-1, keepdim=True) ** (1 / e)
        nearer = (x - new).norm(dim=-1, keepdim=True) <= away.norm(dim=-1, keepdim=True)
        y, trust = torch.where(nearer, new, y), torch.where(nearer, trust, trust / 2)
    return y


DISTANCES = (_sphere, _box, _torus, _capsule, _superellipsoid)  # of FAMILIES, in their order


@dataclass(frozen=True)
class ShapeSource(Source):
    """Bodies drawn without end, each at points of its own; the label is the family's place in `families`."""

    families: tuple[str, ...]
    points: int
    signal: Signal
    sampling: Sampling

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        with torch.inference_mode(False), torch.enable_grad():  # slopes are wanted in validation as well
            return self.at(draw_shapes(len(index), generator, self.families), generator)

    def at(self, shapes: Shapes, generator: torch.Generator) -> FieldBatch:
        """These bodies at random points."""
        batch, device = len(shapes.family), generator.device
        coords = 2 * torch.rand(batch, self.points, 3, generator=generator, device=device) - 1
        if self.sampling == "near_surface":
            half = coords[:, : self.points // 2].detach().requires_grad_()
            distance = shapes.sdf(half)
            (slope,) = torch.autograd.grad(distance.sum(), half)
            surface = half.detach() - distance.detach()[..., None] * slope  # |slope| = 1: onto the surface
            noise = torch.randn(half.shape, generator=generator, device=device)
            coords = torch.cat([(surface + NEAR * noise).clamp(-1, 1), coords[:, self.points // 2 :]], 1)
        numbers = shapes.family.new_tensor([FAMILIES.index(name) for name in self.families])
        label = (shapes.family[:, None] == numbers).int().argmax(1)
        return FieldBatch(coords, signal_of(shapes.sdf(coords), self.signal), label)


def signal_of(sdf: Float[Tensor, "*batch n"], signal: Signal) -> Float[Tensor, "*batch n 1"]:
    """clamp(sdf/0.3, -1, 1), or the occupancy, +1 inside and -1 outside."""
    if signal == "sdf":
        return (sdf / CUT).clamp(-1, 1)[..., None]
    return torch.where(sdf < 0, 1.0, -1.0).to(sdf)[..., None]


def signal_units(signal: Signal) -> tuple[tuple[float], tuple[float], str]:
    """`scale`, `shift` and `unit` of a `FieldSet` with that signal."""
    if signal == "sdf":
        return (CUT,), (0.0,), "signed distance, cut at 0.3"
    return (0.5,), (0.5,), "occupancy, 0 or 1"


def sdf_shapes(
    families: Sequence[str] = FAMILIES,
    points: int = 2048,
    signal: Signal = "sdf",
    sampling: Sampling = "uniform",
) -> FieldSet:
    """Random bodies, each at random points of [-1, 1]^3.

    Args:
        families: of `FAMILIES`.
        points: N, of a field.
        signal: `sdf` or `occupancy`.
        sampling: `uniform`, or `near_surface`: half of the points lie about the surface (standard deviation 0.05).

    Raises:
        FieldError: unknown names, or no point.
    """
    families = tuple(families)
    if not families:
        raise FieldError(f"families is empty: name at least one of {', '.join(FAMILIES)}")
    for family in families:
        if family not in FAMILIES:
            raise FieldError(f"families: unknown family {family!r}, there are {', '.join(FAMILIES)}")
    check_at_least("points", points, 1)
    check_choice("signal", signal, ("sdf", "occupancy"))
    check_choice("sampling", sampling, ("uniform", "near_surface"))
    source = ShapeSource(families, points, signal, sampling)
    scale, shift, unit = signal_units(signal)
    return FieldSet(
        name="sdf_shapes",
        kind="synthetic",
        detail=f"solid bodies ({', '.join(families)}) drawn by recipe, {signal}, {points:,} points each ({sampling})",
        fingerprint=recipe_fingerprint(
            "sdf_shapes", families=families, points=points, signal=signal, sampling=sampling
        ),
        num_points=points,
        coord_dim=3,
        signal_dim=1,
        train=source,
        test=replace(source),
        bounded=True,
        num_classes=len(families),
        scale=scale,
        shift=shift,
        unit=unit,
    )
