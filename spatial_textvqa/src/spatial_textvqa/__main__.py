"""What a person does with a trained network and with data of his own: python -m spatial_textvqa COMMAND --help."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from shared.errors import UserError, one_line_errors


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spatial_textvqa", description=(__doc__ or "").split(":")[0] + ".")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_ask, _example, _demo, _pages, _predict, _import, _score, _convert, _validate, _statistics):
        add(commands)
    args = parser.parse_args(argv)
    return args.run(args)


def _command(commands: argparse._SubParsersAction, name: str, run: Callable, says: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=says, description=says)
    parser.set_defaults(run=run)
    return parser


def _bad_box(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on_bad_box", choices=("error", "clip"), default="error", help="of boxes that are turned over or lie outside"
    )


def _check_out(*files: Path | None) -> None:
    """Before anything is computed: whether files can be written there.

    Raises:
        UserError: no such folder, or one that is not ours.
    """
    for file in files:
        if file is None:
            continue
        if not file.parent.is_dir():
            raise UserError(f"{file}: there is no folder {file.parent}: make it first")
        if file.is_dir():
            raise UserError(f"{file} is a folder: name a file in it")
        if not os.access(file.parent, os.W_OK):
            raise UserError(f"{file}: nothing may be written in {file.parent}: check its permissions")


# With a network --------------------------------------------------------------------------------------------------


def _ask(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "ask", run_ask, "Answer a question about a picture from its OCR file.")
    parser.add_argument("question")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained network")
    parser.add_argument("--ocr", type=Path, required=True, help="list of {text, box}, Vision reply or Tesseract TSV")
    parser.add_argument("--objects", type=Path, help="list of {box, label}")
    parser.add_argument("--features", type=Path, help="npz with object_features and ocr_features, a row for each box")
    parser.add_argument("--image", type=Path, help="PNG or JPEG: tells the size, and is drawn below the explanation")
    parser.add_argument("--size", type=_size, help="WIDTHxHEIGHT in pixels, where no file tells it")
    parser.add_argument("--explain", type=Path, metavar="SVG", help="draw boxes, answer and strongest edges there")
    _bad_box(parser)


def run_ask(args: argparse.Namespace) -> int:
    from spatial_textvqa.ask import Asker
    from spatial_textvqa.explain import embedded
    from spatial_textvqa.ocr_files import read_picture
    from spatial_textvqa.picture import as_data, opened_image

    _check_out(args.explain)
    size, backdrop = args.size, ""
    if args.image is not None:
        with opened_image(args.image, str(args.image)) as image:
            size = image.size
            data = as_data(image, str(args.image)) if args.explain else ""
    picture = read_picture(args.ocr, args.objects, args.features, size, args.on_bad_box)
    if args.image is not None and args.explain:
        backdrop = embedded(data, picture)
    asker = Asker.load(args.ckpt)
    picture, notes = asker.fitted(picture)
    answer = asker.ask(picture, args.question)
    out = Console(highlight=False, soft_wrap=True)
    for note in [*notes, *answer.notes]:
        print(f"note: {note}", file=sys.stderr)
    for n, line in enumerate(answer.lines(picture)):
        out.print(line, style="bold" if n == 0 else None, markup=False)
    if args.explain is not None:
        args.explain.write_text(answer.svg(picture, backdrop), encoding="utf-8")
        out.print(f"drawn: {args.explain}", markup=False)
    return 0


def _size(text: str) -> tuple[float, float]:
    width, x, height = text.lower().partition("x")
    if not x or not width.isdecimal() or not height.isdecimal() or int(width) * int(height) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 640x480")
    return float(width), float(height)


def _example(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "example", run_example, "Write a drawn scene as the files that `ask` takes.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="another scene for each, default 0")
    parser.add_argument("--ckpt", type=Path, help="network to be asked, for its features; default: the quick tier's")


def run_example(args: argparse.Namespace) -> int:
    from spatial_textvqa.ask import Asker
    from spatial_textvqa.example import OBJECTS, example_scene, write_example

    if args.ckpt is None:
        sample = example_scene(args.seed)
    else:
        asker = Asker.load(args.ckpt)
        objects = asker.scenes.get("objects", OBJECTS)
        sample = example_scene(args.seed, asker.model.config.feature_width, asker.appearance(), objects)
    write_example(sample, args.out)
    print(f"scene.png, ocr.json, objects.json and features.npz: {args.out}")
    print(f'question: "{sample.question}"\nright answer: {sample.answers[0]}')
    return 0


def _demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "demo", run_demo, "Serve a page: ask, flip the spatial word, see where it looks.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained network")
    parser.add_argument("--host", default="127.0.0.1", help="to listen at; default: this machine only")
    parser.add_argument("--token_file", type=Path, help="file with the token that requests have to bring")
    parser.add_argument("--port", type=int, default=8018, help="default 8018; 0: any that is free")
    parser.add_argument("--ocr_appearance", choices=("none", "object"), help="of synthetic scenes; default: as trained")


def run_demo(args: argparse.Namespace) -> int:
    from spatial_textvqa.demo.serve import serve_until_stopped

    return serve_until_stopped(args.ckpt, args.host, args.port, args.ocr_appearance, args.token_file)


def _pages(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "pages", run_pages, "Write a static page of attention, and the maps as npz.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained network")
    parser.add_argument("--data", type=Path, help="json-lines of questions; default: synthetic scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=12, help="samples, default 12")
    parser.add_argument("--ocr_appearance", choices=("none", "object"), help="of synthetic scenes; default: as trained")
    _bad_box(parser)


def run_pages(args: argparse.Namespace) -> int:
    from spatial_textvqa.ask import Asker
    from spatial_textvqa.custom import read_questions, sample_of
    from spatial_textvqa.demo.scenes import flippable_scenes
    from spatial_textvqa.pages.build import write_pages

    if args.count < 1:
        raise UserError(f"--count is {args.count}: at least 1")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file: name a folder")
    asker = Asker.load(args.ckpt)
    if args.data is not None:
        samples = [sample_of(question) for question in read_questions(args.data, args.on_bad_box)[: args.count]]
    else:
        samples = flippable_scenes(args.count, asker.model.config.feature_width, asker.appearance(args.ocr_appearance))
    page = write_pages(asker, samples, args.out)
    Console(soft_wrap=True, highlight=False).print(f"{len(samples)} samples: {page}", markup=False)
    return 0


def _predict(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "predict", run_predict, "Answer every question of a data file.")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained network")
    questions = parser.add_mutually_exclusive_group(required=True)
    questions.add_argument("--data", type=Path, help="json-lines of questions")
    questions.add_argument("--imdb", type=Path, help="folder of TextVQA or ST-VQA: imdb/ and features/ in it")
    parser.add_argument("--part", choices=("train", "val", "test"), default="test", help="of --imdb, default test")
    parser.add_argument("--out", type=Path, required=True, help="file of predictions to write")
    parser.add_argument("--form", choices=("evalai", "rrc"), default="evalai", help="TextVQA's or ST-VQA's server")
    _bad_box(parser)


def run_predict(args: argparse.Namespace) -> int:
    from spatial_textvqa.ask import Asker
    from spatial_textvqa.custom import read_questions
    from spatial_textvqa.predictions import Prediction, write_predictions

    _check_out(args.out)
    asker = Asker.load(args.ckpt)
    if args.imdb is not None:
        from spatial_textvqa.data.textvqa import QuestionsOnDisk
        from spatial_textvqa.predictions import predictions_on_disk

        said = predictions_on_disk(asker, QuestionsOnDisk(args.imdb, args.imdb.name, args.part), args.on_bad_box)
        write_predictions(said, args.out, args.form)
        print(f"{len(said)} answers: {args.out}")
        return 0
    found, notes = [], 0
    for question in read_questions(args.data, args.on_bad_box):
        picture, about = asker.fitted(question.picture)
        answer = asker.ask(picture, question.question, edges=False)
        notes += bool([*about, *answer.notes])
        sources = tuple(word.source for word in answer.words)
        found.append(Prediction(question.question_id, answer.text, question.image_id, sources))
    write_predictions(found, args.out, args.form)
    print(f"{len(found)} answers: {args.out}" + (f" ({notes} with notes: `ask` shows them)" if notes else ""))
    return 0


def _import(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "import", run_import, "Make a checkpoint of the published model's weights.")
    parser.add_argument("--weights", type=Path, required=True, help="state dict under the published names")
    parser.add_argument("--vocabulary", type=Path, required=True, help="fixed answers, in the classifier's order")
    parser.add_argument("--wordpiece", type=Path, required=True, help="BERT's vocab.txt")
    parser.add_argument("--word_vectors", required=True, help="fastText's .bin it was trained with, or hash")
    parser.add_argument("--layers", default="nnssss", help="n (full) and s (spatial), default nnssss")
    parser.add_argument("--context", type=int, default=3, help="c of the spatial layers, default 3")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")


def run_import(args: argparse.Namespace) -> int:
    from spatial_textvqa.published import import_published

    _check_out(args.out)
    files = args.weights, args.vocabulary, args.wordpiece, args.word_vectors, args.out
    model = import_published(*files, args.layers, args.context)
    print(f"{sum(p.numel() for p in model.parameters())} weights: {args.out}")
    return 0


# Without one -----------------------------------------------------------------------------------------------------


def _score(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "score", run_score, "Score a file of predictions; no network is needed.")
    parser.add_argument("--predictions", type=Path, required=True, help="file of either form")
    gold = 'answered questions: json-lines, {"data": [...]} or an imdb .npy'
    parser.add_argument("--gold", type=Path, required=True, help=gold)


def run_score(args: argparse.Namespace) -> int:
    from spatial_textvqa.predictions import METRICS, read_gold, read_predictions, score

    found = score(read_predictions(args.predictions), read_gold(args.gold))
    table = Table("questions", "number", *(f"{name} (%)" for name in METRICS))
    for name, row in found.by_subset.items():
        values = ("–" if math.isnan(row[metric]) else f"{100 * row[metric]:.2f}" for metric in METRICS)
        table.add_row(name, str(found.counts[name]), *values)
    Console().print(table)
    if found.missing:
        print(f"note: {found.missing} questions without a prediction count as wrong", file=sys.stderr)
    if found.unasked:
        print(f"note: {found.unasked} predictions are about none of these questions", file=sys.stderr)
    return 0


def _convert(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "convert", run_convert, "Make a data file of questions and an OCR engine's files.")
    parser.add_argument("--questions", type=Path, required=True, help="json-lines of {image_id, question, answers?}")
    parser.add_argument("--ocr", type=Path, required=True, help="folder of <image_id>.json or .tsv")
    parser.add_argument("--objects", type=Path, help="folder of <image_id>.json")
    parser.add_argument("--images", type=Path, help="folder of <image_id>.png, .jpg or .jpeg, for their sizes")
    parser.add_argument("--out", type=Path, required=True, help="json-lines to write")
    _bad_box(parser)


def run_convert(args: argparse.Namespace) -> int:
    from spatial_textvqa.custom import convert

    _check_out(args.out)
    count = convert(args.questions, args.ocr, args.out, args.objects, args.images, args.on_bad_box)
    print(f"{count} questions: {args.out}")
    return 0


def _validate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "validate", run_validate, "Look at every line of a data file; says all that is wrong.")
    parser.add_argument("data", type=Path, help="json-lines of questions")
    _bad_box(parser)


def run_validate(args: argparse.Namespace) -> int:
    from spatial_textvqa.custom import statistics, validate

    checked = validate(args.data, args.on_bad_box)
    for message in checked.wrong:
        print(f"error: {message}", file=sys.stderr)
    _print_statistics({"lines that are wrong": len(checked.wrong)} | statistics(checked.questions))
    return 1 if checked.wrong else 0


def _statistics(commands: argparse._SubParsersAction) -> None:
    says = "Shares of spatial and OCR-answerable questions, sizes and sparsity of a data file."
    parser = _command(commands, "statistics", run_statistics, says)
    parser.add_argument("data", type=Path, help="json-lines of questions, or of {question_id, text} without boxes")
    _bad_box(parser)


def run_statistics(args: argparse.Namespace) -> int:
    from spatial_textvqa.custom import is_question_only, question_only_statistics, read_questions, statistics

    if is_question_only(args.data):
        _print_statistics(question_only_statistics(args.data))
    else:
        _print_statistics(statistics(read_questions(args.data, args.on_bad_box)))
    return 0


def _print_statistics(found: dict[str, float | int]) -> None:
    """Shares as percent; what is no number is not told."""
    table = Table("", "", show_header=False)
    for name, value in found.items():
        if name in ("spatial", "OCR-answerable"):
            table.add_row(f"{name}, %", "–" if math.isnan(value) else f"{100 * value:.1f}")
        else:
            table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
