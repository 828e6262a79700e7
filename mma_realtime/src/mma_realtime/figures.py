"""The pictures of a tier: how often signals are found, the events in strain and score, slides, sensitive distance."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import gaussian
from shared.claims.results import Results
from shared.figures import COLOURS, Figure, finish, use_house_style

from mma_realtime import alerting_figures
from mma_realtime.data.glitches import GLITCHES
from mma_realtime.data.strain import EVENTS
from mma_realtime.evaluation.efficiency import SNRS
from mma_realtime.evaluation.events import AROUND
from mma_realtime.tables import PUBLISHED, confusion, having, octaves

STYLES = ("-", "--", "-.", ":")


def band(axes: Axes, x: list[float], runs: np.ndarray, label: str, colour: str, style: str = "-") -> None:
    """Mean over seeds with its range."""
    axes.plot(x, runs.mean(0), style, color=colour, label=label)
    if len(runs) > 1:
        axes.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)


def efficiency(results: Results, folder: Path) -> Figure | None:
    """E1."""
    nets, ideal = having(results, "tpr/fap1e-3/snr8"), having(results, "ideal_tpr/fap1e-3/snr8")
    if not nets:
        return None
    figure, all_axes = plt.subplots(1, 2, figsize=(7.2, 2.8), sharey=True)
    for axes, fap, text in zip(all_axes, ("1e-2", "1e-3"), ("1 in 100", "1 in 1,000")):
        for e, prefix, colour, style in [
            *((e, "tpr", COLOURS["ours"], style) for e, style in zip(nets, STYLES)),
            *((e, "ideal_tpr", "0.35", "--") for e in ideal),
        ]:
            runs = np.array([[run.metrics[f"{prefix}/fap{fap}/snr{s:g}"] for s in SNRS] for run in e.runs])
            band(axes, list(SNRS), runs, "known waveform" if prefix == "ideal_tpr" else e.title, colour, style)
        axes.set(xlabel="optimal signal-to-noise ratio", title=f"false alarms: {text} windows", ylim=(0, 1.02))
    all_axes[0].set_ylabel("share of signals found")
    all_axes[1].legend(frameon=False, fontsize=7, loc="lower right")
    return finish(
        figure, folder, "efficiency.svg",
        "Signals found in one-second windows of one detector against their strength: networks"
        + (", and the matched filter that knows the waveform (dashed grey)" if ideal else "")
        + ". Bands: range over seeds.",
        "Detection probability against signal-to-noise ratio",
    )  # fmt: skip


def above_slides(score: float, loudest: float) -> str:
    """What the drawn score and the drawn line say."""
    where = "above" if score > loudest else "not above"
    slides = f"the loudest of all time slides without the event's windows, {loudest:.1f}"
    return f"Its loudest, {score:.1f}, is {where} {slides}."


def event(results: Results, folder: Path, name: str, told: str) -> Figure | None:
    """E4: whitened strain, its time-frequency map, and the score."""
    head = f"curve/events/{name}/"
    found = [e for e in results.experiments.values() if e.runs and f"{head}score" in e.runs[0].curves]
    if not found:
        return None
    curves = found[0].runs[0].curves
    strain = {key.rsplit("_", 1)[1]: np.array(v) for key, v in curves.items() if key.startswith(f"{head}whitened_")}
    figure, all_axes = plt.subplots(3, 1, figsize=(7.2, 5.2), height_ratios=(1, 1.1, 0.9))
    rate = len(next(iter(strain.values()))) / (2 * AROUND)
    for (detector, x), colour in zip(strain.items(), (COLOURS["vermillion"], COLOURS["ours_variant"])):
        t = np.arange(len(x)) / rate - AROUND
        all_axes[0].plot(t, x, color=colour, linewidth=0.8, label=detector)
    all_axes[0].set(ylabel="whitened strain (sd)", xlim=(-0.4, 0.2), xlabel="s from the published time")
    all_axes[0].legend(frameon=False, fontsize=7, loc="upper left")
    detector, x = max(
        strain.items(), key=lambda pair: np.abs(pair[1][int(rate * (AROUND - 0.1)) : int(rate * AROUND)]).max()
    )
    transform = ShortTimeFFT(gaussian(96, 14), 4, rate, mfft=512, scale_to="magnitude")
    power = transform.spectrogram(x)
    t = transform.t(len(x)) - AROUND
    mesh = all_axes[1].pcolormesh(
        t, transform.f, power / np.median(power), cmap="viridis", shading="auto", rasterized=True
    )
    all_axes[1].set(
        xlim=(-0.4, 0.2), ylim=(20, 400), yscale="log", ylabel=f"{detector}, frequency (Hz)",
        xlabel="s from the published time",
    )  # fmt: skip
    all_axes[1].set_yticks([30, 60, 120, 240], ["30", "60", "120", "240"])
    all_axes[1].minorticks_off()
    figure.colorbar(mesh, ax=all_axes[1], label="power over median", pad=0.01)
    all_axes[2].plot(curves[f"{head}time"], curves[f"{head}score"], color=COLOURS["ours"], linewidth=0.8)
    loudest = found[0].runs[0].metrics[f"events/{name}/loudest_slide"]
    all_axes[2].axhline(loudest, color="0.4", linestyle="--", linewidth=0.8)
    all_axes[2].annotate("loudest of all time slides, without the event's windows", (0.01, loudest),
                         xycoords=("axes fraction", "data"), va="bottom", fontsize=7, color="0.3")  # fmt: skip
    all_axes[2].set(xlabel="s from the published time", ylabel="sum of logits")
    figure.align_ylabels()
    return finish(
        figure, folder, f"event_{name}.svg",
        f"{told}: whitened strain, its time-frequency map in the louder detector, and the score over the whole 32 s "
        f"({found[0].title}, seed {found[0].runs[0].seed}). {above_slides(max(curves[f'{head}score']), loudest)}",
        f"Strain, time-frequency map and score of {told}",
    )  # fmt: skip


def slides(results: Results, folder: Path) -> Figure | None:
    """Histograms of the slides with the event as a line."""
    shown = []
    for name in (*EVENTS, "stand_in"):
        head = f"curve/events/{name}/"
        for e in results.experiments.values():
            if e.runs and f"{head}slide_counts" in e.runs[0].curves:
                shown.append((name, e))
                break
    if not shown:
        return None
    figure, all_axes = plt.subplots(1, len(shown), figsize=(2.4 * len(shown), 2.4), squeeze=False)
    for axes, (name, e) in zip(all_axes[0], shown):
        run = e.runs[0]
        counts, edges = run.curves[f"curve/events/{name}/slide_counts"], run.curves[f"curve/events/{name}/slide_edges"]
        axes.stairs(counts, edges, fill=True, color="0.7")
        axes.axvline(run.metrics[f"events/{name}/statistic"], color=COLOURS["ours"])
        axes.set(
            yscale="log", ylim=(0.5, None), xlabel="sum of logits", title=name.replace("stand_in", "simulated stand-in")
        )
    all_axes[0][0].set_ylabel("clusters in the slides")
    return finish(
        figure, folder, "slides.svg",
        "What chance gives: clusters of the time slides (grey) and the event (line), in 32 s of strain each.",
        "Histograms of time slides with events",
    )  # fmt: skip


def distance(results: Results, folder: Path) -> Figure | None:
    """E5."""
    found = [e for e in results.experiments.values() if e.runs and "curve/distance" in e.runs[0].curves]
    if not found:
        return None
    glitchy = any("curve/distance_glitches" in e.runs[0].curves for e in found)
    figure, all_axes = plt.subplots(1, 1 + glitchy, figsize=(3.6 + 3.6 * glitchy, 3.0), sharey=True, squeeze=False)
    for axes, suffix in zip(all_axes[0], ("", "_glitches")):
        for e, style in zip(found, STYLES):
            drawn = [(f"curve/distance{suffix}", f"curve/far{suffix}", e.title, "")]
            drawn += [(f"curve/twin_distance{suffix}", f"curve/twin_far{suffix}", "twins that begin as these", "twin")]
            drawn += [(f"curve/bank_distance{suffix}", f"curve/bank_far{suffix}", "matched-filter bank", "bank")]
            for key, far, label, what in drawn:
                if key not in e.runs[0].curves:
                    continue
                bank = what == "bank" or "templates" in e.runs[0].metrics
                colour = "0.35" if bank else COLOURS["orange"] if what == "twin" else COLOURS["ours"]
                band(axes, e.runs[0].curves[far], np.array([run.curves[key] for run in e.runs]), label, colour, style)
        axes.set(xscale="log", xlabel="false alarms a month", title="with glitches" if suffix else "Gaussian noise")
    for (name, values), marker in zip(PUBLISHED.items(), "so^D"):
        all_axes[0][0].plot((100, 10, 1), values[0], marker, color="0.5", markersize=4, label=name)
    all_axes[0][0].set(ylabel="sensitive distance (Mpc)", ylim=(0, None))
    all_axes[0][0].legend(frameon=False, fontsize=6, loc="lower right")
    return finish(
        figure, folder, "distance.svg",
        "How far a search sees at a false-alarm rate: networks and matched filter on hours of our own sets; points: "
        "published searches on the challenge's set 1. Bands: range over seeds. The bank is measured on the first hour "
        "of each seed. Glitches are of the families that networks are trained on.",
        "Sensitive distance against false-alarm rate",
    )  # fmt: skip


def masses(results: Results, folder: Path) -> Figure | None:
    """E2."""
    found = having(results, "chirp_mass_error/snr10")
    if not found:
        return None
    snrs = sorted(float(k.rsplit("snr", 1)[1]) for k in found[0].runs[0].metrics if k.startswith("chirp_mass_error/"))
    figure, axes = plt.subplots(figsize=(4.8, 3.0))
    for e, style in zip(found, STYLES):
        runs = np.array([[100 * run.metrics[f"chirp_mass_error/snr{s:g}"] for s in snrs] for run in e.runs])
        band(axes, snrs, runs, e.title, COLOURS["ours"], style)
    for e in (e for e in found if "grid/template_error/snr10" in e.runs[0].metrics):
        for kind, marker, label in (
            ("template", "s", "loudest template"),
            ("network", "o", "network, same windows"),
        ):
            key = f"grid/{kind}_error/snr"
            at = sorted(float(k.removeprefix(key)) for k in e.runs[0].metrics if k.startswith(key))
            means = [np.mean([100 * run.metrics[f"{key}{s:g}"] for run in e.runs]) for s in at]
            axes.plot(at, means, marker, color="0.35" if kind == "template" else COLOURS["ours"], ms=4, label=label)
    beside = any("grid/template_error/snr10" in e.runs[0].metrics for e in found)
    guess = 100 * found[0].runs[0].metrics["guess_chirp_mass_error"]
    axes.axhline(guess, color="0.4", linestyle="--", linewidth=0.8)
    axes.annotate("always the median", (snrs[-1], guess), ha="right", va="bottom", fontsize=7, color="0.3")
    axes.set(xlabel="optimal signal-to-noise ratio", ylabel="median chirp-mass error (%)", ylim=(0, None))
    axes.legend(frameon=False, fontsize=6, loc="upper right", bbox_to_anchor=(1, 0.9))
    return finish(
        figure, folder, "masses.svg",
        "Error of the predicted chirp mass against the strength of the signal, masses that were not trained on."
        + (" Points: beside the loudest of a grid of templates, on windows of one design curve." if beside else ""),
        "Chirp-mass error against signal-to-noise ratio",
    )  # fmt: skip


def glitches(results: Results, folder: Path) -> Figure | None:
    """GlitchNet's confusions, and its accuracy against the transient's strength."""
    found = having(results, "test/chirps_from_glitches")
    if not found:
        return None
    names = [name.replace("_", " ") for name in GLITCHES]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), width_ratios=(1.25, 1), layout="constrained")
    shares = np.array(confusion(found[0]))
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.0005:
            left.text(column, row, f"{share:.3f}".lstrip("0") if share < 1 else "1", ha="center", va="center",
                      fontsize=7, color="white" if share > 0.5 else "0.15")  # fmt: skip
    left.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    left.set_yticks(range(len(names)), names)
    left.grid(visible=False)
    left.set(xlabel="taken for", ylabel="it is")
    strengths = octaves(found[0])
    for e, style in zip(found, STYLES):
        runs = np.array([[run.metrics[f"test/accuracy/snr{octave}"] for octave in strengths] for run in e.runs])
        band(right, list(range(len(strengths))), runs, e.title, COLOURS["ours"], style + "o")
    right.axhline(1 / len(names), color="0.4", linestyle="--", linewidth=0.8)
    right.annotate("chance", (0.98, 1 / len(names)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                   fontsize=7, color="0.3")  # fmt: skip
    right.set_xticks(range(len(strengths)), [octave.replace("-", "–") for octave in strengths])
    right.margins(x=0.08)
    right.set(xlabel="signal-to-noise ratio", ylabel="share rightly named", ylim=(0, 1.02))
    return finish(
        figure, folder, "glitches.svg",
        "What GlitchNet takes transients for, shares of each row over all seeds, and the share that it names rightly "
        "against their strength. Band: range over seeds.",
        "Confusion matrix of six classes of transients, and accuracy against signal-to-noise ratio",
    )  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    use_house_style()
    made = [efficiency(results, folder), masses(results, folder), distance(results, folder), slides(results, folder)]
    told = {**{name: name for name in EVENTS}, "stand_in": "a signal like GW150914 in simulated noise"}
    made += [event(results, folder, name, text) for name, text in told.items()]
    made += [glitches(results, folder)]
    return [figure for figure in made if figure is not None] + alerting_figures.draw(results, folder)
