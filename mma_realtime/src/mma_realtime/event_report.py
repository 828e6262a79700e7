"""One HTML file about one event: python -m mma_realtime.event_report FILE... [--gps GPS] -o report.html

Whitened strain, its Q map, the scores of the stretch, the slides' histogram with the event as a line, and, where they
are given, sky map and notice. The file needs nothing else: pictures are inside, there is no script.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from rich.console import Console
from shared.errors import one_line_errors
from shared.figures import COLOURS, use_house_style
from shared.runs.store import write_atomic

from mma_realtime.data.strain import Strain, read_strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS
from mma_realtime.search import report
from mma_realtime.search.coincidence import combine, find_triggers
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import conditioner_for, informed, score_strain
from mma_realtime.search.series import Scores
from mma_realtime.search.significance import Background
from mma_realtime.times import utc_iso

Q = 11.3  # cycles of the wavelet, about those of a merger of black holes
BEFORE, AFTER = 0.4, 0.2  # s of strain shown
LARGEST_NOTICE = 32 * 2**20  # bytes
STYLE = """
:root { color-scheme: light; font-family: system-ui, sans-serif; line-height: 1.45; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .3rem; }
.told { font-size: 1.05rem; } .origin { border-left: .3rem solid #e69f00; padding: .3rem .7rem; background: #fff7e5; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; padding: .15rem 1rem .15rem 0; }
td { padding: .15rem 0; overflow-wrap: anywhere; } figure { margin: 0; } figcaption { color: #444; font-size: .92rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
.row svg { flex: 1 1 20rem; max-width: 34rem; height: auto; min-width: 0; }
pre { overflow-x: auto; background: #f4f4f4; padding: .7rem; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Event:
    """All that the report shows.

    Args:
        judged: the trigger with its rates. background: of the stretch; None, and `why`, where it holds no slide.
        whitened: unit variance; `rate` its samples per second, `start` GPS s of the first.
    """

    strain: Strain
    model: SearchModel
    judged: report.Judged
    background: Background | None
    why: str
    scores: Scores
    whitened: Float64[np.ndarray, "detector time"]
    rate: int
    start: GPS
    psd: str


def find(model: SearchModel, strain: Strain, gps: GPS | None = None) -> Event:
    """The loudest trigger of a stretch, or the loudest within a second of `gps`.

    Raises:
        SearchError: there is none.
    """
    conditioner = informed(conditioner_for(model, strain.sample_rate), strain, "auto")
    scores = score_strain(model, strain, conditioner)
    triggers = find_triggers(
        scores, model.recipe.threshold, time_offset=model.recipe.time_offset,
        single_threshold=model.recipe.single_threshold,
    )  # fmt: skip
    near = [t for t in triggers if gps is None or abs(t.gps - gps) <= 1]
    if not near:
        where = "in the whole stretch" if gps is None else f"within 1 s of GPS {gps:.3f}"
        raise SearchError(f"{strain.source}: no trigger above {model.recipe.threshold:.3g} {where}")
    best = max(near, key=lambda t: t.statistic)
    slider = report.Slider(model.recipe.threshold, model.recipe.single_threshold)
    rows, _, why = report.judged(triggers, [scores], slider)
    judged = next(row for row in rows if row.trigger is best)
    own = slider.background([scores], [best.gps]) if judged.far is not None else None
    parts = list(conditioner.whitened(strain))
    whitened = np.concatenate([part.values for part in parts], axis=1).astype(np.float64)
    rate = conditioner.sample_rate
    return Event(
        strain, model, judged, own, why, scores, whitened, rate, strain.gps_start + parts[0].start / rate,
        "of the seconds before" if conditioner.psd == "trailing" else "of the whole file",
    )  # fmt: skip


def q_map(
    x: Float64[np.ndarray, " time"], rate: int, frequencies: Float64[np.ndarray, " f"], q: float = Q
) -> Float64[np.ndarray, "f time"]:
    """Power of Gaussian wavelets of constant Q, over the mean in white noise of unit variance.

    Args:
        frequencies: Hz, of the wavelets' middle. q: frequency over bandwidth.
    """
    n = len(x)
    spectrum, f = np.fft.fft(x), np.fft.fftfreq(n, 1 / rate)
    out = np.empty((len(frequencies), n))
    for row, centre in enumerate(frequencies):
        width = centre / q
        wavelet = np.where(f > 0, np.exp(-((f - centre) ** 2) / (2 * width**2)), 0.0)
        series = np.fft.ifft(spectrum * wavelet)
        out[row] = np.abs(series) ** 2 / (np.sum(wavelet**2) / n)
    return out


def strain_pictures(event: Event) -> list[str]:
    """SVG of whitened strain and its Q map, one for every detector, on common scales."""
    import matplotlib.pyplot as plt

    gps, rate = event.judged.trigger.gps, event.rate
    low, high = event.model.recipe.band
    frequencies = np.geomspace(low, high, 90)
    middle, pad = round((gps - event.start) * rate), round(2.0 * rate)  # the map's edges lie outside the picture
    first, last = max(0, middle - pad), min(event.whitened.shape[1], middle + pad)
    t = event.start + np.arange(first, last) / rate - gps
    shown = (t >= -BEFORE) & (t <= AFTER)
    waves = event.whitened[:, first:last]
    maps = [q_map(wave, rate, frequencies)[:, shown] for wave in waves]
    top, largest = max(float(m.max()) for m in maps), 1.05 * float(np.abs(waves[:, shown]).max())
    ticks = [f for f in (30, 60, 120, 240, 480) if low <= f <= high]
    out = []
    for name, wave, m in zip(event.strain.detectors, waves, maps, strict=True):
        figure, (above, below) = plt.subplots(2, 1, figsize=(4.6, 4.4), sharex=True, layout="constrained")
        above.plot(t[shown], wave[shown], color=COLOURS["ours"], linewidth=0.8)
        above.set(title=name, ylabel="whitened strain (sd)", ylim=(-largest, largest))
        mesh = below.pcolormesh(t[shown], frequencies, m, vmin=0, vmax=top, cmap="viridis", rasterized=True)
        below.set(yscale="log", xlabel="s from the event", ylabel="frequency (Hz)")
        below.set_yticks(ticks, [f"{f:g}" for f in ticks])
        below.minorticks_off()
        figure.colorbar(mesh, ax=below, label="power over noise", pad=0.01)
        out.append(svg(figure))
    return out


def score_pictures(event: Event) -> list[str]:
    """SVG of the scores of the stretch, and of the slides' histogram with the event as a line."""
    import matplotlib.pyplot as plt

    series, trigger = combine(event.scores, event.model.recipe.single_threshold), event.judged.trigger
    valid = np.isfinite(series)
    figure, axes = plt.subplots(figsize=(4.6, 2.8), layout="constrained")
    axes.plot(event.scores.times[valid] - trigger.gps, series[valid], color=COLOURS["ours"], linewidth=0.8)
    axes.set(xlabel="s from the event (end of the window)", ylabel="statistic")
    out = []
    if event.background is not None:
        axes.axhline(event.background.loudest, color="0.4", linestyle="--", linewidth=0.8)
        axes.annotate("loudest of all slides", (0.01, event.background.loudest), xycoords=("axes fraction", "data"),
                      va="bottom", fontsize=7, color="0.3")  # fmt: skip
        out.append(svg(figure))
        statistics = event.background.statistics
        edges = np.linspace(event.background.threshold, max(event.background.loudest, trigger.statistic) * 1.02, 50)
        figure, axes = plt.subplots(figsize=(4.6, 2.8), layout="constrained")
        counts = np.histogram(statistics, edges)[0]
        axes.stairs(counts, edges, fill=True, color="0.7", label="slides")
        axes.axvline(trigger.statistic, color=COLOURS["vermillion"], label="the event")
        axes.set(xlabel="statistic", ylabel="clusters in slides")
        if counts.any():
            axes.set(yscale="log", ylim=(0.5, None))
        axes.legend(frameon=False, fontsize=7)
    return [*out, svg(figure)]


def svg(figure: Any) -> str:
    """A figure as the text of an SVG element."""
    import matplotlib.pyplot as plt

    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = content.getvalue()
    return text[text.index("<svg") :]


def page(event: Event, notice: dict[str, Any] | None = None, sky: str = "", probability: str = "") -> str:
    """The whole file.

    Args:
        notice: of the event. sky: SVG of its map. probability: what the map says in words.
    """
    use_house_style()
    judged, trigger, background = event.judged, event.judged.trigger, event.background
    far = f"{judged.far}" if judged.far is not None else f"not known: {event.why}"
    above = background is not None and trigger.statistic > background.loudest
    told = (
        f"It stands above every one of {background.n_slides:,} time slides." if background is not None and above
        else "Time slides of the same strain have as loud ones: it is no detection." if background is not None
        else "There are no time slides to compare it with."
    )  # fmt: skip
    facts = [
        ("time", f"GPS {trigger.gps:.3f}, {utc_iso(trigger.gps)}"),
        ("detectors", ", ".join(event.strain.detectors)),
        ("statistic", f"{trigger.statistic:.2f} (" + ", ".join(f"{v:.2f}" for v in trigger.per_detector) + ")"),
        ("false alarms", far),
        ("chance in the time searched", "not known" if judged.p is None else f"{judged.p:.2g}"),
        ("background", report.background_text(background, event.why)),
        ("noise spectrum", event.psd),
        ("strain", event.strain.source),
        ("model", f"{event.model.recipe.network}, SHA-256 {event.model.checksum}"),
    ]
    rows = "".join(f"<tr><th scope=row>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts)
    parts = [
        f"<h1>Event of {html.escape(utc_iso(trigger.gps))}</h1>",
        "<p class=origin>Found in replayed or simulated strain: this is a test, not an alert.</p>",
        f"<p class=told>{html.escape(told)}</p><table>{rows}</table>",
        _figure("Strain", strain_pictures(event), "Whitened strain around the event, and power in wavelets of constant "
                f"Q = {Q:g} over what noise has. A merger rises in frequency and ends about 0."),
        _figure("Statistic", score_pictures(event), "The statistic of every window of the stretch, and how often "
                "chance gave which statistic where one detector was shifted in time, without the event's own windows."),
    ]  # fmt: skip
    if sky:
        parts.append(_figure("Sky map", [sky], probability))
    if notice is not None:
        shown = json.dumps(_without_map(notice), indent=2, ensure_ascii=False)
        parts.append(f"<h2>Notice</h2><pre>{html.escape(shown)}</pre>")
    title = html.escape(f"Event of {utc_iso(trigger.gps)}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f'img-src data:"><style>{STYLE}</style></head><body><main>{"".join(parts)}</main></body></html>\n'
    )


def _figure(title: str, pictures: Sequence[str], caption: str) -> str:
    row = f"<div class=row>{''.join(pictures)}</div>"
    return f"<h2>{html.escape(title)}</h2><figure>{row}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _without_map(notice: dict[str, Any]) -> dict[str, Any]:
    """A map of megabytes is told by its size."""
    event = notice.get("event")
    if isinstance(event, dict) and isinstance(event.get("skymap"), str):
        size = f"{len(event['skymap']):,} characters of base64"
        return notice | {"event": event | {"skymap": size}}
    return notice


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mma_realtime.event_report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("files", type=Path, nargs="+", help=".npz or HDF5 of one stretch")
    parser.add_argument("--gps", type=float, help="of the event, within a second; default: the loudest trigger")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument("--notice", type=Path, help="JSON notice of the event")
    parser.add_argument("--sky-map", type=Path, help="multi-order FITS map of the event")
    parser.add_argument("-o", "--output", type=Path, default=Path("event.html"))
    return parser


def read_json(path: Path) -> dict[str, Any]:
    """Raises:
    SearchError: no notice.
    """
    try:
        if path.stat().st_size > LARGEST_NOTICE:
            raise SearchError(f"{path} is larger than any notice: {LARGEST_NOTICE:,} bytes at most are read")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SearchError):
            raise
        raise SearchError(f"{path} is no notice in JSON: {error}") from None
    if not isinstance(found, dict):
        raise SearchError(f"{path} is no notice: a JSON object is expected")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)
    notice = read_json(args.notice) if args.notice else None
    event = find(report.load_model(args.checkpoint), read_strain(*args.files), args.gps)
    sky, words = "", ""
    if args.sky_map:
        from mma_realtime.sky.fits import read_fits
        from mma_realtime.sky.picture import mollweide

        sky_map = read_fits(args.sky_map)
        use_house_style()
        sky = svg(mollweide(sky_map))
        areas = [sky_map.area(level) for level in (0.9, 0.5)]
        words = f"90 % of the probability lies in {areas[0]:,.0f} square degrees, 50 % in {areas[1]:,.0f}."
    write_atomic(args.output, page(event, notice, sky, words).encode())
    trigger, far = event.judged.trigger, event.judged.far or "-"
    Console().print(
        f"{args.output}: GPS {trigger.gps:.3f}, statistic {trigger.statistic:.2f}, false alarms {far}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
