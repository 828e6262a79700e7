"""The user's own shapes as fields R^3 -> {-1, +1} or R (section 4, `voxels`; triangle meshes beyond it).

voxels  occupancy grids of 32^3 or 64^3 from an .npz or .pt file: +1 inside, -1 outside, at the centres of the voxels
meshes  a folder of watertight .ply, .obj, .stl or .off meshes, each brought into [-0.9, 0.9]^3: exact signed distance
        or occupancy at a pool of random points, of which every batch takes some
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from scipy.spatial import cKDTree
from shared.data.images import fingerprint
from shared.data.root import DamagedData, MissingData, data_root, unreadable
from torch import Tensor

from .fields import FieldBatch, FieldSet, Source, check_at_least, check_choice, space_grid, stream
from .images import split
from .shapes import EXTENT, NEAR, Sampling, Signal, signal_of, signal_units

SIDES = (32, 64)
MESHES = (".ply", ".obj", ".stl", ".off")


@dataclass(frozen=True)
class VoxelSource(Source):
    """Occupancies [n, side^3], resident as bytes 0 and 1."""

    occupancy: UInt8[Tensor, "n voxels"]
    labels: Int64[Tensor, " n"] | None
    coords: Float[Tensor, "voxels 3"]

    @property
    def size(self) -> int:
        return len(self.occupancy)

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        index = index.to(self.occupancy.device)
        label = None if self.labels is None else self.labels[index]
        return FieldBatch(self.coords, (2 * self.occupancy[index].float() - 1)[..., None], label)


def voxels(root: Path | None = None, file: str = "voxels.npz", test_fraction: float = 0.2) -> FieldSet:
    """Occupancy grids. The array has axes [field, x, y, z]; whether x, y and z grow along them is up to its maker.

    Args:
        root: the folder of `file` (default: `DATA_ROOT`, else `./data`).
        file: an .npz with `occupancy` [n, side, side, side], zeros and ones, and, where there are classes, `labels`
            [n]; or a .pt of a dict with the same two tensors, or of the first alone.
        test_fraction: the part kept for testing, the last ones.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file, or not as described.
    """
    path = (data_root() if root is None else root) / file
    occupancy, labels = _read_voxels(path)
    side = occupancy.shape[1]
    train, test = split(len(occupancy), test_fraction, str(path))
    coords = space_grid(side)
    flat = torch.from_numpy(occupancy).flatten(1)
    classes = None if labels is None else torch.from_numpy(labels)
    parts = (VoxelSource(flat[p], None if classes is None else classes[p], coords) for p in (train, test))
    scale, shift, unit = signal_units("occupancy")
    return FieldSet(
        name="voxels",
        kind="real",
        detail=f"{len(flat):,} occupancy grids of {side}^3 voxels from {file}",
        fingerprint=fingerprint(occupancy, *([] if labels is None else [labels])),
        num_points=side**3,
        coord_dim=3,
        signal_dim=1,
        train=next(parts),
        test=next(parts),
        bounded=True,
        shared_coords=coords,
        num_classes=None if labels is None else int(labels.max()) + 1,
        scale=scale,
        shift=shift,
        unit=unit,
    )


def _read_voxels(path: Path) -> tuple[UInt8[np.ndarray, "n side side side"], np.ndarray | None]:
    if not path.is_file():
        raise MissingData(f"{path} is missing: an .npz or .pt file of occupancy grids is expected there")
    try:
        if path.suffix == ".pt":
            read = torch.load(path, map_location="cpu", weights_only=True)
            read = {"occupancy": read} if isinstance(read, Tensor) else read
            arrays = {k: v.numpy() for k, v in read.items() if isinstance(v, Tensor)}
        else:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {k: archive[k] for k in ("occupancy", "labels") if k in archive}
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from None
        raise DamagedData(f"{path} is damaged ({error}): make it anew") from None
    except Exception as error:  # torch and NumPy each raise a dozen kinds for what is no such file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = "holds pickled objects or is damaged" if not isinstance(error, zipfile.BadZipFile) else "is damaged"
        raise DamagedData(f"{path} {what} ({reason[:100]}): save plain tensors or arrays") from None
    if "occupancy" not in arrays:
        raise DamagedData(f"{path} has no `occupancy`: an array [n, side, side, side] is expected under that name")
    occupancy, labels = arrays["occupancy"], arrays.get("labels")
    shape = occupancy.shape
    if len(shape) != 4 or len(set(shape[1:])) != 1 or shape[1] not in SIDES:
        expected = " or ".join(f"(n, {side}, {side}, {side})" for side in SIDES)
        raise DamagedData(f"{path}: `occupancy` has the shape {shape}, expected is {expected}")
    if not len(occupancy):
        raise DamagedData(f"{path}: `occupancy` is empty, at least two fields are expected")
    if not np.isin(occupancy, (0, 1)).all():
        raise DamagedData(f"{path}: `occupancy` has entries other than 0 and 1: apply a threshold first")
    if labels is not None and (labels.shape != shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0):
        raise DamagedData(f"{path}: `labels` of {labels.dtype} {labels.shape}, expected are {shape[0]} integers from 0")
    return occupancy.astype(np.uint8), None if labels is None else labels.astype(np.int64)


@dataclass(frozen=True)
class PoolSource(Source):
    """Signals known at a pool of points of each field [n, pool]; a field takes `points` of them, from a random place.

    The pools are in random order, so any run of them is a random sample.
    """

    pool: Float[Tensor, "n pool 3"]
    signal: Float[Tensor, "n pool 1"]
    points: int

    @property
    def size(self) -> int:
        return len(self.pool)

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        index = index.to(self.pool.device)
        n = self.pool.shape[1]
        start = torch.randint(n, (len(index), 1), generator=generator, device=generator.device).to(index.device)
        places = (start + torch.arange(self.points, device=index.device)) % n
        return FieldBatch(self.pool[index[:, None], places], self.signal[index[:, None], places])


def meshes(
    root: Path | None = None,
    folder: str = "meshes",
    points: int = 2048,
    pool: int = 8192,
    signal: Signal = "sdf",
    sampling: Sampling = "near_surface",
    test_fraction: float = 0.2,
) -> FieldSet:
    """Triangle meshes; the signal is computed on loading (about a second for 10,000 faces and 1,000 points of a pool).

    Args:
        root: the folder that holds `folder` (default: `DATA_ROOT`, else `./data`).
        folder: searched with its subfolders; the order is that of the SHA-256 of the paths below it.
        points: N, of a field in a batch.
        pool: points at which the signal of each mesh is known.
        signal: `sdf` or `occupancy`.
        sampling: `uniform`, or `near_surface`: half of the points lie about the surface (standard deviation 0.05).
        test_fraction: the part kept for testing, the last ones.

    Raises:
        MissingData, DamagedData (both `UserError`): no such folder, no mesh in it; a mesh that is damaged or not
            watertight.
        FieldError: options that cannot be.
    """
    check_at_least("points", points, 1)
    check_at_least("pool", pool, points)
    check_choice("signal", signal, ("sdf", "occupancy"))
    check_choice("sampling", sampling, ("uniform", "near_surface"))
    where = (data_root() if root is None else root) / folder
    if not where.is_dir():
        raise MissingData(f"{where} is missing: a folder of meshes ({', '.join(MESHES)}) is expected there")
    files = [path.relative_to(where) for path in where.rglob("*") if path.suffix.lower() in MESHES]
    if not files:
        raise MissingData(f"{where} has no mesh in it: {', '.join(MESHES)} are expected")
    files.sort(key=lambda file: hashlib.sha256(file.as_posix().encode()).digest())
    train, test = split(len(files), test_fraction, str(where))
    coords, distances, digest = [], [], hashlib.sha256()
    for number, file in enumerate(files):
        vertices, faces = read_mesh(where / file)
        digest.update(fingerprint(vertices, faces).encode())
        at = _pool(vertices[faces], pool, sampling, stream(0, "pool", number))
        coords.append(torch.from_numpy(at).float())
        distances.append(torch.from_numpy(mesh_sdf(vertices, faces, at)).float())
    source = PoolSource(torch.stack(coords), signal_of(torch.stack(distances), signal), points)
    scale, shift, unit = signal_units(signal)
    return FieldSet(
        name="meshes",
        kind="real",
        detail=f"{len(files):,} meshes of the folder {folder}, {signal}, {points:,} points each ({sampling})",
        fingerprint=digest.hexdigest(),
        num_points=points,
        coord_dim=3,
        signal_dim=1,
        train=replace(source, pool=source.pool[train], signal=source.signal[train]),
        test=replace(source, pool=source.pool[test], signal=source.signal[test]),
        bounded=True,
        scale=scale,
        shift=shift,
        unit=unit,
    )


def read_mesh(path: Path) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Vertices, the middle of their bounding box at 0 and its longest side 1.8, and faces that turn outwards.

    Raises:
        DamagedData (a `UserError`): no readable mesh, or one that does not enclose a volume.
    """
    import trimesh

    try:
        mesh = trimesh.load_mesh(path, process=True, skip_materials=True)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    except Exception as error:  # trimesh's readers raise whatever their parsers meet
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedData(f"{path} is damaged or no mesh ({reason[:100]}): replace it, or take it out") from None
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if not len(faces):
        raise DamagedData(f"{path} has no faces: a watertight triangle mesh is expected")
    if not np.isfinite(vertices).all():
        raise DamagedData(f"{path} has vertices that are NaN or infinite: replace it, or take it out")
    if not (mesh.is_watertight and mesh.is_winding_consistent):
        raise DamagedData(
            f"{path} is not watertight: close its holes (every edge belongs to two faces), or take it out"
        )
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) * (2 * EXTENT / (high - low).max())
    return vertices, faces if mesh.volume > 0 else faces[:, ::-1].copy()


def mesh_sdf(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], points: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " n"]:
    """Exact signed distance to a watertight mesh, negative inside."""
    distance = nearest(vertices[faces], points)
    inside = np.concatenate([winding(vertices, faces, p) for p in _parts(points, len(faces))]) > 0.5
    return np.where(inside, -distance, distance)


def winding(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> Float64[np.ndarray, " n"]:
    """How often the surface winds about each point, 1 inside and 0 outside: solid angles of all faces over 4 pi.

    tan(angle/2) = det(a, b, c)/(|a||b||c| + (a b)|c| + (b c)|a| + (c a)|b|), a, b, c from the point to the corners.
    """
    v0, v1, v2 = (vertices[faces[:, k]] for k in range(3))
    crossed = np.cross(v0, v1) + np.cross(v1, v2) + np.cross(v2, v0)
    det = (v0 * np.cross(v1, v2)).sum(1) - points @ crossed.T
    square = ((points[:, None] - vertices) ** 2).sum(-1)
    norm = np.sqrt(square)
    (s0, s1, s2), (a, b, c) = (tuple(m[:, faces[:, k]] for k in range(3)) for m in (square, norm))
    ab, bc, ca = (((p - q) ** 2).sum(1) for p, q in ((v0, v1), (v1, v2), (v2, v0)))
    below = a * b * c + ((s0 + s1 - ab) * c + (s1 + s2 - bc) * a + (s2 + s0 - ca) * b) / 2
    return np.arctan2(det, below).sum(1) / (2 * np.pi)


def nearest(triangles: Float64[np.ndarray, "f 3 3"], points: Float64[np.ndarray, "n 3"]) -> np.ndarray:
    """Distance to the nearest triangle: of the k with the nearest centroids, k doubled until no other can be nearer."""
    centroids = triangles.mean(1)
    reach = np.linalg.norm(triangles - centroids[:, None], axis=-1).max()
    tree, best, left, k = cKDTree(centroids), np.full(len(points), np.inf), np.arange(len(points)), 16
    while len(left):
        k = min(2 * k, len(triangles))
        far = np.empty(len(left))
        for rows in _parts(np.arange(len(left)), k):
            near, found = tree.query(points[left[rows]], k=[*range(1, k + 1)])
            best[left[rows]] = np.sqrt(_square_distance(points[left[rows]], triangles[found]).min(1))
            far[rows] = near[:, -1]
        left = left[(far - reach < best[left]) & (k < len(triangles))]
    return best


def _square_distance(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Of points [n, 3] to triangles [n, k, 3, 3]: to the plane where the foot lies inside, else to the nearest edge."""
    p = points[:, None]
    corners = [triangles[..., i, :] for i in range(3)]
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    area = (normal * normal).sum(-1)
    inside, to_edge = area > 0, np.full(area.shape, np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge, away = corners[end] - corners[start], p - corners[start]
        length = np.maximum((edge * edge).sum(-1), 1e-300)
        along = np.clip((away * edge).sum(-1) / length, 0, 1)
        to_edge = np.minimum(to_edge, ((away - along[..., None] * edge) ** 2).sum(-1))
        inside &= (np.cross(edge, away) * normal).sum(-1) >= 0
    height = ((p - corners[0]) * normal).sum(-1) ** 2 / np.maximum(area, 1e-300)
    return np.where(inside, height, to_edge)


def _parts(points: np.ndarray, each: int, pairs: int = 200_000) -> list[np.ndarray]:
    """Points in parts of at most `pairs` when each meets `each` faces."""
    return np.array_split(points, max(1, -(-len(points) * each // pairs)))


def _pool(triangles: np.ndarray, pool: int, sampling: Sampling, generator: torch.Generator) -> np.ndarray:
    """Points uniform in [-1, 1]^3, or half of them about the surface (uniform on it by area), in random order."""
    points = (2 * torch.rand(pool, 3, generator=generator, dtype=torch.float64) - 1).numpy()
    if sampling == "uniform":
        return points
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.cumsum(np.linalg.norm(normal, axis=1))
    half = pool // 2
    u = torch.rand(half, 3, generator=generator, dtype=torch.float64).numpy()
    face = triangles[np.minimum(np.searchsorted(area, u[:, 0] * area[-1], side="right"), len(area) - 1)]
    root = np.sqrt(u[:, 1])
    weight = np.stack([1 - root, root * (1 - u[:, 2]), root * u[:, 2]], -1)
    noise = torch.randn(half, 3, generator=generator, dtype=torch.float64).numpy()
    points[:half] = np.clip((face * weight[..., None]).sum(1) + NEAR * noise, -1, 1)
    return points[torch.randperm(pool, generator=generator).numpy()]
