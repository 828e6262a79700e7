"""What `python sample.py` runs: fields of a trained network at any coordinates.

    python sample.py --checkpoint runs/fit/<run>/final.ckpt --resolution 32 --num 8 --out digits.png digits.npz

The queries are those that the fields were trained on, a grid (--resolution), points of the sphere (--sphere), the
vertices of a mesh (--mesh; where coordinates are intrinsic, the mesh's own) or any coordinates (--coords). The context
is a subset of the queries, as in the paper; with `--context grid` it stands on the trained points instead, whatever is
queried: with `--noise hash` a seed is then one field that can be looked at anywhere.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from shared.runs.store import write_atomic
from torch import Tensor

from diffusion_fields import draw
from diffusion_fields.canvas import VIEWS, Canvas, globe_pixels, mollweide_pixels
from diffusion_fields.checkpoint import Trained, load, read_arrays
from diffusion_fields.completion import choose_context
from diffusion_fields.data.fields import check_coords, pixel_grid, space_grid
from diffusion_fields.domains import is_intrinsic
from diffusion_fields.errors import FieldError
from diffusion_fields.intrinsic import laplace_beltrami
from diffusion_fields.oracle import fibonacci_sphere
from diffusion_fields.sampling import sample

SHOWN = {"image": 64, "circle": 32}  # fields in a picture, of other kinds 12
FORMATS = (".png", ".npz", ".ply")
VOLUME = 32  # voxels along a side, where nothing is said


@dataclass(frozen=True)
class Queries:
    """Args:
    coords: [N, c]. canvas: how to draw values there; None where there is no picture. faces: of a mesh at them.
    pictures: canvases whose pixels are the coordinates, one after the other (a globe from several sides).
    """

    coords: Float[Tensor, "n c"]
    canvas: Canvas | None
    faces: np.ndarray | None = None
    pictures: tuple[Canvas, ...] = ()

    @property
    def places(self) -> Float[Tensor, "n d"]:
        """Where the values stand in space: intrinsic coordinates do not say."""
        return self.canvas.coords if self.canvas is not None and self.canvas.kind == "mesh" else self.coords


def queries(args: argparse.Namespace, trained: Trained) -> Queries:
    """The coordinates that the options name.

    Raises:
        FieldError: they do not fit the fields of this network, or cannot be read.
    """
    domain, c = trained.domain, trained.fields.coord_dim
    if args.coords is not None:
        coords = read_arrays(args.coords, ("coords",))["coords"]
        check_coords(coords, c, str(args.coords))
        if coords.ndim != 2:
            raise FieldError(f"{args.coords}: coordinates of shape {tuple(coords.shape)}, expected is (N, {c})")
        trained.warn_of_outside(coords, str(args.coords))
        return Queries(coords, None if domain == "other" else trained.canvas(coords))
    if args.mesh is not None:
        return _on_mesh(args.mesh, trained)
    if args.sphere is not None:
        if domain != "sphere":
            raise FieldError(f"--sphere: these fields live on the {domain}; choose --resolution or --coords")
        coords = torch.from_numpy(fibonacci_sphere(args.sphere)).float()
        return Queries(coords, trained.canvas(coords))
    if args.globe:
        if domain != "sphere":
            raise FieldError(f"--globe: these fields live on the {domain}, not on the sphere")
        pictures = tuple(globe_pixels(128, view) for view in VIEWS)
        return Queries(torch.cat([each.coords for each in pictures]), None, None, pictures)
    if args.resolution is not None:
        return _grid(args.resolution, trained)
    if domain == "space" and trained.fields.shared_coords is None:
        return _grid(VOLUME, trained)
    return Queries(trained.points, None if domain == "other" else trained.canvas(trained.points))


def _grid(n: int, trained: Trained) -> Queries:
    if n < 1:
        raise FieldError(f"--resolution is {n}: it has to be at least 1")
    if trained.domain == "plane":
        height, width = trained.fields.size or (1, 1)
        shape: tuple[int, ...] = (n, max(1, round(n * width / height)))
        coords = pixel_grid(shape[0], shape[1])
    elif trained.domain == "space":
        shape, coords = (n, n, n), space_grid(n)
    elif trained.domain == "circle":
        angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
        shape, coords = (n,), torch.stack([angle.cos(), angle.sin()], -1).float()
    elif trained.domain == "sphere":
        canvas = mollweide_pixels(n)
        return Queries(canvas.coords, canvas)
    else:
        raise FieldError("--resolution: there is no grid over these coordinates; give them with --coords")
    return Queries(coords, trained.canvas(coords, shape))


def _on_mesh(path: Path, trained: Trained) -> Queries:
    """The vertices of a mesh; of fields over intrinsic coordinates (section 9.6) its own eigenfunctions there."""
    intrinsic, c = is_intrinsic(trained.fields), trained.fields.coord_dim
    vertices, faces = _mesh(path, merged=intrinsic)
    places = torch.from_numpy(vertices).float()
    if intrinsic:
        try:
            coords = torch.from_numpy(laplace_beltrami(vertices, c, faces).coordinates())
        except FieldError as error:
            raise FieldError(f"{path}: {error}") from None
        canvas: Canvas | None = Canvas("mesh", places, faces=faces)
    else:
        check_coords(places, c, str(path))
        coords, canvas = places, None if trained.domain == "other" else trained.canvas(places)
    trained.warn_of_outside(coords, str(path))
    return Queries(coords, canvas, faces)


def _mesh(path: Path, merged: bool) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "f 3"]]:
    """Vertices and faces, as they stand in the file; `merged`: a vertex that is there several times is one."""
    import trimesh

    if not path.is_file():
        raise FieldError(f"{path} is missing")
    try:
        mesh = trimesh.load_mesh(path, process=merged)
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except Exception as error:  # trimesh's readers raise whatever their parsers meet
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FieldError(f"{path} is damaged or no mesh ({reason[:100]})") from None
    if not len(faces):
        raise FieldError(f"{path} is damaged or no mesh (it has no triangles)")
    return vertices, faces


def observed_pairs(path: Path, trained: Trained) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n s"]]:
    """`coords` and `signal` of an .npz, in the scale that the network was trained in.

    Raises:
        FieldError: not such arrays, or of other widths.
    """
    arrays = read_arrays(path, ("coords", "signal"))
    coords, signal = arrays["coords"], arrays["signal"]
    check_coords(coords, trained.fields.coord_dim, str(path))
    if coords.ndim != 2 or tuple(signal.shape) != (len(coords), trained.fields.signal_dim):
        raise FieldError(
            f"{path}: coords of shape {tuple(coords.shape)} and signal of {tuple(signal.shape)}; expected are (N, "
            f"{trained.fields.coord_dim}) and (N, {trained.fields.signal_dim})"
        )
    trained.warn_of_outside(coords, str(path))
    return coords, signal


def add_sampler(parser: argparse.ArgumentParser, num: int) -> None:
    """The options that sampling and completion share."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="final.ckpt in the folder of a run")
    parser.add_argument("--num", type=int, default=num, help=f"how many (default: {num})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=("ddpm", "ddim", "flow", "flow_heun"), help="default: as configured")
    parser.add_argument("--steps", type=int, help="default: as configured; ddpm takes every step")
    parser.add_argument("--eta", type=float, help="noise of ddim, 0 to 1 (default: as configured)")
    parser.add_argument("--clip", help="clamp of the clean field: a number or none (default: as configured)")
    parser.add_argument("--num-context", type=int, help="size of the context (default: that of training)")
    parser.add_argument("--allow-context-mismatch", action="store_true", help="a context of another size than trained")
    parser.add_argument("--noise", choices=("random", "hash"), default="random", help="hash: by seed and coordinate")
    parser.add_argument("--label", type=int, help="class to sample")
    parser.add_argument("--guidance", type=float, help="w of classifier-free guidance; needs --label")
    parser.add_argument("--chunk", type=int, default=16_384, help="queries read at once (memory, not the result)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, nargs="+", help="files, by their endings: .png .npz .ply")


def check_sampler(args: argparse.Namespace) -> None:
    """Raises FieldError for what is wrong before anything is loaded."""
    for name in ("num", "chunk", "steps", "num_context"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise FieldError(f"--{name.replace('_', '-')} is {value}: it has to be at least 1")
    if args.eta is not None and not 0 <= args.eta <= 1:
        raise FieldError(f"--eta is {args.eta:g}: it lies between 0 and 1")
    try:
        torch.zeros(1, device=args.device).item()
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ):  # no such name; none here; without CUDA; without numbers
        raise FieldError(f"--device is {args.device!r}: there is no such device here; choose cpu") from None
    if args.guidance is not None and args.label is None:
        raise FieldError("--guidance needs --label: it strengthens a class")
    for path in args.out or ():
        if path.suffix not in FORMATS:
            raise FieldError(f"--out {path}: the ending says the format, one of {' '.join(FORMATS)}")


def sampler_options(args: argparse.Namespace, trained: Trained) -> dict[str, Any]:
    """Keyword arguments of `sampling.sample` that the options and the training settle.

    Raises:
        FieldError: options that do not fit this network.
    """
    module = trained.module
    usual = module.settings
    method = args.method or usual.method
    options: dict[str, Any] = {"schedule": module.schedule, "method": method, "prediction": module.prediction}
    options["steps"] = args.steps or (None if method == "ddpm" else usual.steps)
    options["eta"] = usual.eta if args.eta is None else args.eta
    options |= {"clip": usual.clip, "query_chunk": args.chunk, "noise": args.noise}
    if args.clip is not None:
        try:
            options["clip"] = None if args.clip == "none" else float(args.clip)
        except ValueError:
            raise FieldError(f"--clip is {args.clip!r}: it is a positive number or none") from None
    if args.label is not None:
        classes = getattr(trained.net, "num_classes", None)
        if classes is None:
            raise FieldError("--label: this network was trained without classes")
        if not 0 <= args.label < classes:
            raise FieldError(f"--label is {args.label}: the classes are 0 to {classes - 1}")
        options["label"] = torch.full((args.num,), args.label, device=args.device)
    return options | {"guidance_weight": args.guidance, "noise_seed": args.seed}


def save_npz(path: Path, **arrays: Tensor) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: value.detach().cpu().numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def save_png(path: Path, figure: Any) -> None:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, bbox_inches="tight")
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def save_ply(path: Path, found: Queries, values: Float[Tensor, "k n s"], bounded: bool) -> list[Path]:
    """One file a field: of a volume its surface, else the mesh or the points with their colours."""
    import trimesh

    from diffusion_fields.surfaces import surface

    written = []
    norm = draw.scale(values.numpy(), bounded)
    points = torch.nn.functional.pad(found.places, (0, 3 - found.places.shape[1])).numpy()
    for number, each in enumerate(values):
        target = path if len(values) == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if found.canvas is not None and found.canvas.kind == "volume":
            try:
                shape: Any = surface(each, inside="positive" if found.canvas.positive_inside else "negative")
            except FieldError as error:
                if len(values) == 1:
                    raise
                print(f"field {number}: {error}")
                continue
        else:
            channels = each if each.shape[1] == 3 else each[:, :1]
            colours = (draw.rgba(channels.double().numpy(), norm) * 255).astype(np.uint8)
            if found.faces is not None:
                shape = trimesh.Trimesh(points, found.faces, vertex_colors=colours, process=False)
            else:
                shape = trimesh.PointCloud(points, colours)
        write_atomic(target, shape.export(file_type="ply"))
        written.append(target)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sample.py", description="Samples of a trained network at any coordinates.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--coords", type=Path, help=".npy of coordinates (N, c)")
    where.add_argument("--resolution", type=int, help="N x N pixels, N^3 voxels, N angles, or a map N pixels high")
    where.add_argument("--sphere", type=int, metavar="N", help="N Fibonacci points")
    where.add_argument("--mesh", type=Path, help="the vertices of a mesh (.ply .obj .stl .off)")
    where.add_argument("--globe", action="store_true", help="the sphere seen from two sides")
    add_sampler(parser, 4)
    parser.add_argument("--context", choices=("random", "farthest_point", "grid"), help="default: random; of maps grid")
    parser.add_argument("--observed", type=Path, help=".npz with coords and signal that every sample goes through")
    args = parser.parse_args(argv)
    check_sampler(args)
    if args.sphere is not None and args.sphere < 1:
        raise FieldError(f"--sphere is {args.sphere}: it has to be at least 1")
    torch.set_num_threads(1)
    trained = load(args.checkpoint, args.device)
    found = queries(args, trained)
    out = args.out or [trained.folder / name for name in ("samples.png", "samples.npz")]
    if found.canvas is None and not found.pictures:
        if args.out is None:
            out = out[1:]
        elif any(path.suffix == ".png" for path in out):
            trained.canvas(found.coords)  # says why there is no picture
    if found.places.shape[1] > 3 and any(path.suffix == ".ply" for path in out):
        raise FieldError(
            f"{found.places.shape[1]} coordinates are no place in space: a .ply needs --mesh; or write .npz"
        )
    if found.pictures and any(path.suffix == ".ply" for path in out):
        raise FieldError("--globe makes pictures: write .png or .npz, or take --sphere for a .ply")
    values, text = draw_samples(args, trained, found)
    print(f"{trained.fields.name}: {trained.fields.detail}")
    print(text)
    for path in write(out, found, values, trained, text):
        print(path)
    return 0


def draw_samples(args: argparse.Namespace, trained: Trained, found: Queries) -> tuple[Float[Tensor, "k n s"], str]:
    """(samples on the CPU, what they are in words)."""
    options = sampler_options(args, trained)
    picture = bool(found.pictures) or (found.canvas is not None and found.canvas.kind == "map")
    context = args.context or ("grid" if picture and args.observed is None else "random")
    generator = torch.Generator().manual_seed(args.seed)
    coords, kept = found.coords, slice(None)
    pairs = None if args.observed is None else observed_pairs(args.observed, trained)
    size = trained.num_context(args.num_context, args.allow_context_mismatch, 0 if pairs is None else len(pairs[0]))
    if context == "grid":
        if pairs is not None:
            raise FieldError("--context grid and --observed: observed pairs are context; leave --context out")
        chosen = choose_context(trained.points, size, "random", generator)
        coords, kept = torch.cat([trained.points[chosen].cpu(), coords]), slice(size, None)
        options["context_index"] = torch.arange(size)
    elif size > len(coords) + (0 if pairs is None else len(pairs[0])):
        raise FieldError(
            f"{len(coords)} coordinates hold no context of {size}, which this network was trained with: "
            "add --context grid, and the context stands on the trained points"
        )
    else:
        options["context"] = context
    if pairs is not None:
        options["observed"] = tuple(each.to(args.device) for each in pairs)
    values = sample(
        trained.net, coords.to(args.device), args.num, size, generator=generator, **options
    ).cpu()[:, kept]  # fmt: skip
    steps = options["steps"] or options["schedule"].T
    given = "" if pairs is None else f" through {len(pairs[0])} observed pairs"
    text = f"{args.num} samples at {len(found.coords):,} points{given}, context of {size} ({context}), "
    return values, f"{text}{options['method']} with {steps} steps, seed {args.seed}"


def write(
    out: Sequence[Path], found: Queries, values: Float[Tensor, "k n s"], trained: Trained, text: str
) -> list[Path]:
    """The files, by their endings; returns what was written."""
    fields, written = trained.fields, []
    for path in out:
        if path.suffix == ".npz":
            save_npz(path, coords=found.coords, signal=values, values=fields.denormalise(values))
        elif path.suffix == ".ply":
            written += save_ply(path, found, values, fields.bounded)
            continue
        else:
            save_png(path, _picture(found, values, fields.bounded, f"{fields.name}, {text}"))
        written.append(path)
    return written


def _picture(found: Queries, values: Float[Tensor, "k n s"], bounded: bool, title: str) -> Any:
    if found.pictures:
        sizes = [len(each.coords) for each in found.pictures]
        views = [list(field.split(sizes)) for field in values[:4]]
        return draw.globes(views, list(found.pictures), bounded, title)
    assert found.canvas is not None
    return draw.fields(found.canvas, values[: SHOWN.get(found.canvas.kind, 12)], bounded, title)
