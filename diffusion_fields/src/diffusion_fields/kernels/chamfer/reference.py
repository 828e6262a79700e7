"""Chamfer distances of all pairs of clouds in plain PyTorch: the definition (sections 7 and 8.2), the CPU's forms."""

from __future__ import annotations

import torch
from torch import Tensor

BUDGET = 2**17  # distances held at once
SHARE = 6  # of smaller clouds a sixth of a pair's: in float64 a third of the bytes of `cdist`
FEW = 2**11  # but so few do not count
WORTHWHILE = 2**19  # pairs of points from which on trees beat products (benchmarks/bench_kernels.py)


def chamfer(g: Tensor, r: Tensor) -> Tensor:
    """Mean squared distance to the nearest point of the other cloud, both ways, summed."""
    distances = (g[:, None] - r).square().sum(-1)
    return distances.amin(1).mean() + distances.amin(0).mean()


def chamfer_allpairs(G: Tensor, R: Tensor) -> Tensor:
    """`[n, m]`, a matrix of distances for each pair."""
    if not len(G) or not len(R):
        return G.new_empty(len(G), len(R))
    return torch.stack([torch.stack([chamfer(g, r) for r in R]) for g in G])


def most_held(M: int, K: int) -> int:
    """Distances that `by_products` holds at once."""
    return min(BUDGET, max(FEW, M * K // SHARE))


def by_products(G: Tensor, R: Tensor) -> Tensor:
    """|a - b|^2 = |a|^2 + |b|^2 - 2ab of centred points, one product of thin matrices for some points at a time.

    In float64 whatever the clouds are: near contact the three terms cancel to 1e-16 of the clouds' size squared.
    """
    (n, M, d), (m, K) = G.shape, R.shape[:2]
    G, R = G.double(), R.double()
    centre = torch.cat([G.reshape(-1, d), R.reshape(-1, d)]).mean(0)
    G, R = G - centre, R - centre
    squares_G, squares_R = (x.square().sum(-1, keepdim=True) for x in (G, R))
    left = torch.cat([-2 * G, torch.ones_like(squares_G), squares_G], -1)
    right = torch.cat([R, squares_R, torch.ones_like(squares_R)], -1).mT.contiguous()
    budget = most_held(M, K)
    rows = max(1, min(M, budget // K))
    clouds = max(1, min(m, budget // (rows * K)))
    out = G.new_empty(n, m)
    held = G.new_empty(clouds * rows * K)  # one for all: fresh pages cost as much as the product
    some = max(1, min(n, budget // (clouds * max(M, -(-M // rows) * K))))
    near_G, near_R = G.new_empty(some, clouds, M), G.new_empty(some, -(-M // rows), clouds, K)
    for j in range(0, m, clouds):
        block = right[j : j + clouds]
        c = len(block)
        points = left[:, None].expand(-1, c, -1, -1).split(rows, 2)
        distances = [held[: c * x.shape[2] * K].view(c, -1, K) for x in points]
        nearest = [list(zip(distances, for_G[:c].split(rows, 1), for_R[:, :c])) for for_G, for_R in zip(near_G, near_R)]
        for i in range(0, n, some):
            last = min(n, i + some)
            for g in range(i, last):
                for x, (squares, for_G, for_R) in zip(points, nearest[g - i]):
                    torch.bmm(x[g], block, out=squares)
                    torch.amin(squares, 2, out=for_G)
                    torch.amin(squares, 1, out=for_R)
            to_R, to_G = near_G[: last - i, :c].mean(2), near_R[: last - i, :, :c].amin(1).mean(2)
            out[i:last, j : j + clouds] = to_R + to_G
    return out.clamp_(min=0)  # a point's own square, rounded, may be less


def by_trees(G: Tensor, R: Tensor) -> Tensor:
    """A k-d tree for each cloud, asked for the points of every cloud of the other set, leaf after leaf."""
    import numpy as np  # not at the top: the kernels run where neither is installed
    from scipy.spatial import cKDTree

    sets = [x.detach().double().cpu().numpy() for x in (G, R)]
    trees = [[cKDTree(cloud) for cloud in clouds] for clouds in sets]
    ordered = [np.stack([x[tree.indices] for x, tree in zip(*both)]) for both in zip(sets, trees)]
    out = np.zeros((len(G), len(R)))
    for ours, others, means in zip(trees, reversed(ordered), (out, out.T)):
        points = others.shape[1]
        some = max(1, BUDGET // points)
        for row, tree in enumerate(ours):
            for s in range(0, len(others), some):
                distances, _ = tree.query(others[s : s + some], workers=torch.get_num_threads())
                means[row, s : s + some] += np.square(distances).mean(1)
    return torch.from_numpy(out)
