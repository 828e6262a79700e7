"""What a trained network sees: `python -m autofocusformer visualise|segment|export_tokens|export`; see `--help`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from shared.errors import UserError, one_line_errors

FORMS = ("torch-export", "torchscript", "onnx")
PICTURES = (".svg", ".png", ".pdf", ".jpg")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m autofocusformer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, says: str, what: str | None = None, ckpt: bool = True) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=says, description=says)
        if what:
            one.add_argument("input", type=Path, help=what)
        one.add_argument("--ckpt", type=Path, required=ckpt, help="final.ckpt of a run, or released weights")
        one.add_argument("--variant", help="whose weights a released file holds: mini, tiny, small, base, base384")
        one.add_argument("--average", action="store_true", help="of released weights, their average (model_ema)")
        one.add_argument("--sampling", help="another mode than in training: adaptive, grid or random")
        return one

    for name, says, what in (
        ("visualise", "tokens of each stage, importance and prediction of one image, as a picture", "an image"),
        ("segment", "class of every pixel, and a coloured picture, for each image of a folder", "a folder of images"),
        ("export_tokens", "positions, importance and features of each stage of one image, as .npz", "an image"),
    ):
        one = command(name, says, what)
        one.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize the image to this first")
        one.add_argument("--out", type=Path, required=name == "segment", help="where to (default: beside the image)")
    one = command("export", "the classifier as a file for other programs", ckpt=False)
    one.add_argument("--form", choices=FORMS, default="torch-export")
    one.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(224, 224))
    one.add_argument("--batch", type=int, default=1, help="images that the exported network takes at once")
    one.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def prepared(path: Path, size: tuple[int, int] | None) -> tuple[np.ndarray, torch.Tensor]:
    """(RGB image as it is shown, normalised and padded image)."""
    from autofocusformer.data.augment import denormalise
    from autofocusformer.data.module import one_image
    from autofocusformer.data.read import read_image

    image = read_image(path)
    h, w = size or image.shape[:2]
    if min(h, w) < 1:
        raise UserError(f"--size {h} {w}: both have to be at least 1")
    x = one_image(image, (h, w) if size else None)
    if size:
        image = (denormalise(x)[0, :, :h, :w].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return image, x


def writable(out: Path, folder: Path) -> None:
    """Raises UserError where `out` cannot be made in the folder: tried, as permissions do not say it all."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"--out {out}: nothing can be written in {folder} ({error.strerror}): choose another") from None


def destination(out: Path) -> Path:
    """`out`, before any work is done for it."""
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: {out.parent} is no folder: make it first")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file in it")
    if out.exists() and not os.access(out, os.W_OK):
        raise UserError(f"--out {out} cannot be written over: choose another")
    writable(out, out.parent)
    return out


def visualise(options: argparse.Namespace) -> Path:
    """A picture: the image, importance of stage 1, tokens of stages 2 to 4, and the prediction where there is one."""
    out = destination(options.out or options.input.with_name(f"{options.input.stem}_tokens.svg"))
    if out.suffix not in PICTURES:
        raise UserError(f"--out {out}: a picture is written as {', '.join(PICTURES)}: choose one of these endings")
    import matplotlib.pyplot as plt
    from shared.figures import save, use_house_style

    from autofocusformer.pictures import coloured, faded, show, tokens_over
    from autofocusformer.tokens import export_tokens
    from autofocusformer.trained import load

    loaded = load(options.ckpt, options.variant, options.sampling, options.average)
    image, x = prepared(options.input, options.size)
    h, w = image.shape[:2]
    levels = export_tokens(loaded.backbone, x)[0]
    use_house_style()
    figure, axes = plt.subplots(2, 3, figsize=(7.5, 0.6 + 5 * h / w))
    show(axes[0, 0], image, "image")
    canvas = np.full(levels[0].canvas, np.nan)
    canvas[levels[0].positions[:, 1], levels[0].positions[:, 0]] = levels[0].importance
    axes[0, 1].imshow(canvas[: -(-h // 4), : -(-w // 4)], cmap="magma", interpolation="nearest", vmin=0, vmax=1)
    axes[0, 1].set_axis_off()
    axes[0, 1].set_title(f"importance, stage 1: {np.nanmin(canvas):.2f} to {np.nanmax(canvas):.2f}", fontsize=8)
    for place, level, dot in zip((axes[0, 2], axes[1, 0], axes[1, 1]), levels[1:], (1.6, 2.6, 4.0)):
        there = (level.pixels[:, 0] < w) & (level.pixels[:, 1] < h)
        show(place, faded(image), f"{level.name}: {len(level.positions)} tokens")
        tokens_over(place, torch.from_numpy(level.positions[there]), dot)
    if loaded.segments:
        labels = loaded.labels(x).classes[:h, :w].numpy()
        show(axes[1, 2], coloured(labels, len(loaded.names)), "prediction")
        for c in np.unique(labels[labels < len(loaded.names)]):
            name = loaded.names[c]
            axes[1, 2].plot([], [], "s", color=coloured(np.array([[c]]), len(loaded.names))[0, 0] / 255, label=name)
        axes[1, 2].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    else:
        best = loaded.backbone(x).softmax(1)[0].topk(min(5, len(loaded.names) or 5))
        words = [f"{loaded.names[i] if loaded.names else i}: {p:.0%}" for p, i in zip(*(v.tolist() for v in best))]
        axes[1, 2].set_axis_off()
        axes[1, 2].text(0, 0.9, "\n".join(words), va="top", fontsize=8, transform=axes[1, 2].transAxes)
        axes[1, 2].set_title("prediction", fontsize=8)
    if out.suffix == ".svg":
        save(figure, out)
    else:
        figure.savefig(out, dpi=150)
    plt.close(figure)
    return out


def written_for(images: list[Path], folder: Path, things: bool) -> dict[Path, list[Path]]:
    """Where the classes of each image's pixels go, `<stem>.png`, their picture, `<stem>_colour.png`, and of networks
    trained on instances their numbers, `<stem>_instances.png`.

    Raises:
        UserError: two images would be written to one file.
    """
    out, taken = dict[Path, list[Path]](), dict[Path, Path]()
    for image in images:
        endings = (".png", "_colour.png", *(["_instances.png"] if things else []))
        out[image] = [folder / f"{image.stem}{ending}" for ending in endings]
        for path in out[image]:
            if path in taken:
                raise UserError(f"{taken[path].name} and {image.name} would be written to {path}: rename one of them")
            taken[path] = image
    return out


def segment(options: argparse.Namespace) -> Path:
    """For each image `<stem>.png` (class of each pixel) and `<stem>_colour.png`.

    A network trained on instances leaves most pixels to no class (255); `<stem>_instances.png` numbers what it found.
    """
    from PIL import Image

    from autofocusformer.data.read import pictures
    from autofocusformer.pictures import coloured
    from autofocusformer.trained import load

    if not options.input.is_dir():
        raise UserError(f"{options.input} is no folder: give a folder of images")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file: give a folder for the pictures")
    if options.out.exists() and options.out.samefile(options.input):
        raise UserError(f"--out {options.out} is the folder of the images: choose another, they would be overwritten")
    images = pictures(options.input)
    there = next(folder for folder in (options.out, *options.out.absolute().parents) if folder.is_dir())
    writable(options.out, there)
    loaded = load(options.ckpt, options.variant, options.sampling, options.average)
    if not loaded.segments:
        raise UserError(
            f"{options.ckpt} is a classifier: segmenting needs a network that was trained on labelled pixels"
        )
    written = written_for(images, options.out, loaded.things)
    options.out.mkdir(parents=True, exist_ok=True)
    for path, (plain, picture, *numbers) in written.items():
        image, x = prepared(path, options.size)
        h, w = image.shape[:2]
        found = loaded.labels(x)
        labels = found.classes[:h, :w].numpy().astype(np.uint8)
        Image.fromarray(labels).save(plain)
        if found.instances is not None:
            Image.fromarray(found.instances[:h, :w].numpy().astype(np.uint16)).save(numbers[0])
        Image.fromarray(coloured(labels, len(loaded.names))).save(picture)
        print(plain)
    (options.out / "classes.txt").write_text("\n".join(loaded.names) + "\n", encoding="utf-8")
    return options.out / "classes.txt"


def write_tokens(options: argparse.Namespace) -> Path:
    from autofocusformer.tokens import export_tokens, save_tokens
    from autofocusformer.trained import load

    out = destination(options.out or options.input.with_suffix(".npz"))
    loaded = load(options.ckpt, options.variant, options.sampling, options.average)
    _, x = prepared(options.input, options.size)
    save_tokens(out, export_tokens(loaded.backbone, x)[0])
    return out


def write_network(options: argparse.Namespace) -> Path:
    from autofocusformer.backbone import VARIANTS, AutoFocusFormer
    from autofocusformer.exporting import export
    from autofocusformer.trained import load

    out = destination(options.out)
    if options.ckpt is not None:
        model = load(options.ckpt, options.variant, options.sampling, options.average).backbone
        if not isinstance(model, AutoFocusFormer):
            raise UserError(f"{options.ckpt} is no classifier: only the classifier is exported")
    elif options.variant in VARIANTS:
        model = AutoFocusFormer(VARIANTS[options.variant])  # untrained: to try the form
    else:
        raise UserError(f"export needs --ckpt, or --variant for an untrained network: {', '.join(VARIANTS)}")
    height, width = options.size
    export(model, options.form, out, height, width, options.batch)
    return out


COMMANDS = {"visualise": visualise, "segment": segment, "export_tokens": write_tokens, "export": write_network}


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if getattr(options, "size", None):
        options.size = tuple(options.size)
    print(COMMANDS[options.command](options))
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
