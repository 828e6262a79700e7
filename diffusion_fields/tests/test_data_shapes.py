"""Solid bodies against brute force and closed forms, voxel and mesh files in their real formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from diffusion_fields.data import load, space_grid
from diffusion_fields.data.shapes import CUT, FAMILIES, Shapes, ShapeSource, draw_shapes
from diffusion_fields.data.solids import mesh_sdf, nearest, read_mesh, winding
from diffusion_fields.errors import FieldError
from diffusion_fields.oracle import fibonacci_sphere
from shared.data.root import DamagedData, MissingData


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bodies(family: str, n: int = 20, seed: int = 0) -> Shapes:
    drawn = draw_shapes(n, generator(seed), [family])
    return Shapes(drawn.family, *(t.double() for t in (drawn.size, drawn.exponent, drawn.rotation, drawn.centre)))


def at_origin(family: str, n: int = 3) -> Shapes:
    drawn = bodies(family, n)
    eye, zero = torch.eye(3, dtype=torch.float64).expand(n, 3, 3), torch.zeros(n, 3, dtype=torch.float64)
    return Shapes(drawn.family, drawn.size, drawn.exponent, eye, zero)


def surface_points(family: str, size: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """Dense points of the surface, by its parametrisation."""
    n = torch.from_numpy(fibonacci_sphere(40_000))
    if family == "sphere":
        return n * size[0]
    if family == "superellipsoid":
        return n * ((n / size).abs() ** e).sum(-1, keepdim=True) ** (-1 / e)
    if family == "capsule":
        side = torch.cartesian_prod(torch.linspace(0, 2 * torch.pi, 200), torch.linspace(-1, 1, 200)).double()
        tube = torch.stack([side[:, 0].cos() * size[1], side[:, 0].sin() * size[1], side[:, 1] * size[0]], 1)
        caps = n * size[1] + torch.sign(n[:, 2:]) * torch.tensor([0, 0, 1.0]) * size[0]
        return torch.cat([tube, caps])
    if family == "torus":
        u, v = torch.cartesian_prod(*[torch.linspace(0, 2 * torch.pi, 250)] * 2).double().T
        ring = size[0] + size[1] * v.cos()
        return torch.stack([ring * u.cos(), ring * u.sin(), size[1] * v.sin()], 1)
    u = torch.linspace(-1, 1, 120).double()
    face = torch.cartesian_prod(u, u)
    sides = [torch.cat([face, torch.full_like(face[:, :1], s)], 1).roll(k, 1) for k in range(3) for s in (-1, 1)]
    return torch.cat(sides) * size


@pytest.mark.parametrize("family", FAMILIES)
def test_distance_is_that_to_the_nearest_surface_point(family: str) -> None:
    shapes = at_origin(family)
    points = 2 * torch.rand(150, 3, generator=generator(), dtype=torch.float64) - 1
    ours = shapes.sdf(points)
    for row in range(len(shapes.family)):
        nearest = torch.cdist(points, surface_points(family, shapes.size[row], shapes.exponent[row])).amin(1)
        error = ours[row].abs() - nearest  # dense points are a little farther than the surface
        assert error.max() < 1e-5
        assert error.min() > -0.008


def test_distance_to_a_superellipsoid_is_bounded_by_its_planes() -> None:
    """Convex: no supporting plane is farther than the body, and the nearest of many is almost as far."""
    shapes = at_origin("superellipsoid", 8)
    points = 2 * torch.rand(150, 3, generator=generator(), dtype=torch.float64) - 1
    n = torch.from_numpy(fibonacci_sphere(40_000))
    for row, ours in enumerate(shapes.sdf(points)):
        e = shapes.exponent[row]
        dual = e / (e - 1)
        height = ((shapes.size[row] * n).abs() ** dual).sum(-1) ** (1 / dual)
        bound = (points @ n.T - height).amax(1)
        assert (ours - bound).min() > -1e-6
        assert (ours - bound).max() < 5e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_slope_of_a_distance_is_one(family: str) -> None:
    shapes = bodies(family)
    points = 2 * torch.rand(20, 300, 3, generator=generator(), dtype=torch.float64) - 1
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    slope = torch.stack([(shapes.sdf(points + h) - shapes.sdf(points - h)) / 2e-5 for h in step], -1).norm(dim=-1)
    # Elsewhere than on the few points where two surface points are equally near.
    assert ((slope - 1).abs() < 1e-3).double().mean() > 0.99
    assert slope.max() < 1.01


@pytest.mark.parametrize("family", FAMILIES)
def test_bodies_lie_in_their_cube(family: str) -> None:
    shapes = bodies(family, 60)
    wall = torch.cartesian_prod(*[torch.linspace(-0.9, 0.9, 9).double()] * 3)
    wall = wall[(wall.abs() > 0.899).any(1)]
    assert shapes.sdf(wall).min() > -1e-9
    assert (shapes.sdf(space_grid(12).double()) < 0).any(1).all()


def test_a_pose_is_a_rigid_motion() -> None:
    shapes = draw_shapes(50, generator())
    eye = torch.eye(3).expand(50, 3, 3)
    assert torch.allclose(shapes.rotation @ shapes.rotation.transpose(1, 2), eye, atol=1e-5)
    assert torch.allclose(torch.linalg.det(shapes.rotation), torch.ones(50), atol=1e-5)
    still = Shapes(shapes.family, shapes.size, shapes.exponent, eye, torch.zeros(50, 3))
    points = torch.rand(50, 40, 3, generator=generator()) - 0.5
    moved = points @ shapes.rotation.transpose(1, 2) + shapes.centre[:, None]
    assert (still.sdf(points) - shapes.sdf(moved)).abs().max() < 1e-4


def test_signals_and_points() -> None:
    sdf, occupancy = (load("sdf_shapes", points=500, signal=signal) for signal in ("sdf", "occupancy"))
    index = torch.arange(40)
    one, other = (data.train(index, generator()) for data in (sdf, occupancy))
    assert torch.equal(one.coords, other.coords)
    assert one.coords.shape == (40, 500, 3)
    assert one.coords.abs().max() <= 1
    assert one.signal.abs().max() == 1
    assert torch.equal(torch.where(one.signal < 0, 1.0, -1.0), other.signal)
    assert sdf.denormalise(one.signal).abs().max() == pytest.approx(CUT)
    assert occupancy.denormalise(other.signal).unique().tolist() == [0, 1]
    assert torch.equal(one.signal, sdf.train(index, generator()).signal)
    assert one.label is not None
    assert one.label.unique().tolist() == [0, 1, 2, 3, 4]
    assert sdf.num_classes == 5
    assert load("sdf_shapes", families=["torus"]).train(index, generator()).label.unique().tolist() == [0]  # type: ignore[union-attr]


def test_half_of_the_points_lie_near_the_surface() -> None:
    source = load("sdf_shapes", points=400, sampling="near_surface").train
    assert isinstance(source, ShapeSource)
    shapes = draw_shapes(64, generator())
    distance = shapes.sdf(source.at(shapes, generator(1)).coords)[:, :200]
    # A sphere of deviation 0.05 about the surface has that deviation across it.
    assert distance.abs().median() < 0.05
    assert abs(float(distance.clamp(-0.15, 0.15).std()) - 0.05) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["cone"]}, "families: unknown family 'cone', there are sphere, box"),
        ({"families": []}, "families is empty: name at least one of sphere"),
        ({"points": 0}, "points is 0: it has to be at least 1"),
        ({"signal": "colour"}, "signal is 'colour': it has to be sdf or occupancy"),
        ({"sampling": "grid"}, "sampling is 'grid': it has to be uniform or near_surface"),
    ],
)
def test_what_cannot_be_is_said(options: dict, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        load("sdf_shapes", **options)


# -- voxels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def occupancy() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (5, 32, 32, 32), dtype=np.uint8)


def test_voxels(tmp_path: Path, occupancy: np.ndarray) -> None:
    labels = np.array([0, 1, 2, 0, 1])
    np.savez(tmp_path / "voxels.npz", occupancy=occupancy, labels=labels)
    torch.save({"occupancy": torch.from_numpy(occupancy), "labels": torch.from_numpy(labels)}, tmp_path / "v.pt")
    torch.save(torch.from_numpy(occupancy), tmp_path / "plain.pt")
    data = load("voxels", tmp_path)
    assert data.fingerprint == load("voxels", tmp_path, file="v.pt").fingerprint
    assert (data.train.size, data.test.size, data.num_points, data.num_classes) == (4, 1, 32**3, 3)
    assert load("voxels", tmp_path, file="plain.pt").num_classes is None
    batch = data.train(torch.tensor([2]), generator())
    assert batch.label is not None
    assert batch.label.tolist() == [2]
    place = torch.tensor([4, 20, 31])
    row = int(((batch.coords - ((2 * place + 1) / 32 - 1)).abs().sum(1) < 1e-6).nonzero())
    assert batch.signal[0, row, 0] == 2.0 * occupancy[2, 4, 20, 31] - 1
    assert torch.equal(data.denormalise(batch.signal)[0, :, 0], torch.from_numpy(occupancy[2]).flatten().float())


def test_damaged_voxels_are_named(tmp_path: Path, occupancy: np.ndarray) -> None:
    path = tmp_path / "voxels.npz"

    def fails(message: str, **arrays: np.ndarray) -> None:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(DamagedData, match=message):
            load("voxels", tmp_path)

    fails("has no `occupancy`", grid=occupancy)
    fails(r"shape \(5, 32, 32, 16\), expected is \(n, 32, 32, 32\) or", occupancy=occupancy[..., :16])
    fails("`occupancy` is empty", occupancy=occupancy[:0])
    fails("entries other than 0 and 1", occupancy=occupancy * 0.5)
    fails("entries other than 0 and 1", occupancy=np.where(occupancy > 0, np.nan, 0))
    fails("`labels` of int64", occupancy=occupancy, labels=np.arange(3))
    fails("holds pickled objects", occupancy=np.array([{}], dtype=object))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedData, match=r"voxels.npz .*damaged"):
        load("voxels", tmp_path)
    torch.save({"occupancy": Path("x")}, tmp_path / "v.pt")
    with pytest.raises(DamagedData, match="holds pickled objects or is damaged"):
        load("voxels", tmp_path, file="v.pt")


# -- meshes -----------------------------------------------------------------------------------------------------------


def test_distance_to_a_mesh_of_a_box_is_that_to_the_box() -> None:
    box = trimesh.creation.box((1.0, 0.6, 1.4))
    for mesh in (box, box.subdivide().subdivide().subdivide()):
        points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
        half = torch.tensor([[0.5, 0.3, 0.7]], dtype=torch.float64)
        eye = torch.eye(3, dtype=torch.float64)[None]
        exact = Shapes(torch.tensor([1]), half, half[:, 0], eye, half * 0).sdf(torch.from_numpy(points))[0].numpy()
        assert np.abs(mesh_sdf(mesh.vertices, mesh.faces, points) - exact).max() < 1e-9


def test_a_large_triangle_is_found_behind_many_small_ones() -> None:
    large = np.array([[[-1.0, -1, 0], [3, -1, 0], [-1, 3, 0]]])
    corner = np.array([[0.0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]])
    small = np.random.default_rng(0).uniform(-0.05, 0.05, (200, 1, 3)) + corner + [-0.9, -0.9, 0.5]
    points = np.array([[-0.9, -0.9, 0.1], [0.5, 0.5, -0.2]])
    assert nearest(np.concatenate([small, large]), points) == pytest.approx([0.1, 0.2])


def test_winding_counts_what_is_inside() -> None:
    mesh = trimesh.creation.torus(0.6, 0.25, major_sections=24, minor_sections=12)
    points = np.array([[0.6, 0, 0], [0, 0, 0], [0, 0.6, 0.1], [0.9, 0.9, 0]])
    assert np.abs(winding(mesh.vertices, mesh.faces, points) - [1, 0, 1, 0]).max() < 1e-9


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "off"])
def test_meshes_of_every_format(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        mesh = trimesh.creation.icosphere(subdivisions=3, radius=5.0)
        if number == 1:
            mesh.invert()  # faces inwards
        mesh.apply_translation([10, number, 3])
        (tmp_path / "meshes").mkdir(exist_ok=True)
        mesh.export(tmp_path / "meshes" / f"{number}.{suffix}")
    data = load("meshes", tmp_path, points=200, pool=300, test_fraction=0.34)
    assert (data.train.size, data.test.size) == (2, 1)
    for part in (data.train, data.test):
        batch = part(torch.arange(part.size or 0), generator())
        assert batch.coords.shape == (part.size, 200, 3)
        exact = ((batch.coords.norm(dim=-1) - 0.9) / 0.3).clamp(-1, 1)
        assert (batch.signal[..., 0] - exact).abs().max() < 0.05  # of an icosphere
    first = data.train(torch.tensor([0, 0]), generator())
    assert not torch.equal(first.coords[0], first.coords[1])  # other points of the pool
    assert len(first.coords[0].unique(dim=0)) == 200
    inside = load("meshes", tmp_path, points=300, pool=300, signal="occupancy", sampling="uniform", test_fraction=0.34)
    batch = inside.train(torch.arange(2), generator())
    clear = (batch.coords.norm(dim=-1) - 0.9).abs() > 0.02
    expected = torch.where(batch.coords.norm(dim=-1) < 0.9, 1.0, -1.0)
    assert torch.equal(batch.signal[..., 0][clear], expected[clear])


def test_damaged_meshes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    with pytest.raises(MissingData, match="has no mesh in it"):
        load("meshes", tmp_path)
    open_box = trimesh.creation.box((1, 1, 1))
    open_box.update_faces(np.arange(11))
    open_box.export(folder / "open.ply")
    with pytest.raises(DamagedData, match=r"open.ply is not watertight: close its holes"):
        read_mesh(folder / "open.ply")
    (folder / "cut.off").write_text("OFF\n8 12 0\n0 0 0\n")
    with pytest.raises(DamagedData, match=r"cut.off"):
        read_mesh(folder / "cut.off")
    (folder / "no.stl").write_bytes(b"x" * 50)
    with pytest.raises(DamagedData, match=r"no.stl"):
        read_mesh(folder / "no.stl")
    with pytest.raises(FieldError, match="pool is 5: it has to be at least 10"):
        load("meshes", tmp_path, points=10, pool=5)
    with pytest.raises(DamagedData):
        load("meshes", tmp_path)
