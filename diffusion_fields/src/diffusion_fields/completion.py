"""Which points a sampler knows: its context, chosen once, and observed values, imposed at every level of noise (9.3).

Observed pairs are members of the query set and of the context. At each level their values are replaced by the
forward-noised observations; RePaint's jumps back (Lugmayr et al. 2022) let the rest agree with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diffusion_fields.errors import FieldError

Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Observed:
    """Where the observed pairs stand among the queries, (N_o,), and their values, (1 or B, N_o, s)."""

    index: Int64[Tensor, " N_o"]
    values: Float[Tensor, "B N_o s"]

    def impose(self, y: Tensor, noised: Tensor) -> Tensor:
        """y with the observed points' values replaced by those of `noised`, (B, N_o, s)."""
        return y.index_copy(1, self.index, noised)


def place(query_coords: Tensor, observed: Pairs) -> tuple[Tensor, Observed]:
    """The query set with the observed points in it, and where they are.

    Args:
        query_coords: (N, c) or (B, N, c). observed: (points, values): points are indices into the queries (an integer
            tensor) or coordinates (N_o, c); one that is no query of a shared grid, to the last bit, is appended behind
            the queries. values: (N_o, s) or (B, N_o, s).

    Raises:
        FieldError (a ValueError): no pairs, a point twice, numbers that do not match, a value that is not finite.
    """
    points, values = observed
    n = query_coords.shape[-2]
    values = values[None] if values.ndim == 2 else values
    values = values.to(query_coords)
    if values.ndim != 3 or values.shape[1] != len(points) or len(points) == 0:
        raise FieldError(
            f"observed: {len(points)} points and values of shape {tuple(values.shape)}; expected (points, channels)"
            " or (fields, points, channels), with at least one point"
        )
    if not values.isfinite().all():
        raise FieldError("observed: a value is not a finite number; leave such points out")
    if points.is_floating_point():
        query_coords, index = _append(query_coords, points.to(query_coords))
    else:
        index = points.to(query_coords.device, torch.int64)
        if index.ndim != 1 or int(index.min()) < 0 or int(index.max()) >= n:
            raise FieldError(f"observed: indices from {int(index.min())} to {int(index.max())}, of {n} queries")
    if len(index.unique()) < len(index):
        raise FieldError("observed: a point is given twice; keep one value for each point")
    return query_coords, Observed(index, values)


def _append(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    n, width = queries.shape[-2:]
    if points.ndim != 2 or points.shape[1] != width:
        raise FieldError(f"observed: coordinates of shape {tuple(points.shape)}; expected (points, {width})")
    if len(points.unique(dim=0)) < len(points):
        raise FieldError("observed: a point is given twice; keep one value for each point")
    index = torch.arange(n, n + len(points), device=queries.device)
    if queries.ndim == 3:
        return torch.cat([queries, points.expand(len(queries), -1, -1)], 1), index
    _, ids = torch.cat([queries, points]).unique(dim=0, return_inverse=True)
    first = torch.full((len(ids),), n, device=queries.device)
    first = first.scatter_reduce(0, ids[:n], torch.arange(n, device=queries.device), "amin")
    index = first[ids[n:]]
    new = index == n
    index = torch.where(new, n + new.cumsum(0) - 1, index)
    return torch.cat([queries, points[new]]), index


def farthest_point(coords: Float[Tensor, "N c"], size: int, first: Int64[Tensor, " k"]) -> Int64[Tensor, " size"]:
    """`first`, then greedily the point farthest from all chosen so far (Euclidean)."""
    chosen = first.tolist()
    distance = torch.cdist(coords, coords[first]).amin(1)
    while len(chosen) < size:
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (coords - coords[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen, device=coords.device)


def choose_context(
    coords: Float[Tensor, "*B N c"],
    num_context: int,
    how: str,
    generator: torch.Generator | None,
    known: Int64[Tensor, " k"] | None = None,
) -> Int64[Tensor, "*B num_context"]:
    """The context subset of the queries: `known` points first, then random ones or those of `farthest_point`.

    One subset for a shared grid, one for each field where coordinates differ.
    """
    n = coords.shape[-2]
    kept = 0 if known is None else len(known)
    if not max(1, kept) <= num_context <= n:
        raise FieldError(
            f"num_context is {num_context}, of {n} queries with {kept} observed among them: it lies between the"
            " observed pairs, which are always context, and all queries"
        )
    rows = 1 if coords.ndim == 2 else len(coords)
    key = torch.rand(rows, n, generator=generator, device=generator.device if generator else None).to(coords.device)
    if known is not None:
        key[:, known] = -1
    index = key.argsort(dim=1, stable=True)[:, :num_context]
    if how == "farthest_point":
        start = index[:, : max(1, kept)]
        grids = coords if coords.ndim == 3 else coords[None]
        index = torch.stack([farthest_point(x, num_context, at) for x, at in zip(grids, start)])
    elif how != "random":
        raise FieldError(f"context is '{how}'; there are: random, farthest_point")
    return index if coords.ndim == 3 else index[0]
