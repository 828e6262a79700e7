"""`python reproduce.py --coverage`: what the papers recommend, and what was measured for it; `--table E1`: the tables.

The evidence is that of the claims: each names its experiment, and the committed results its verdict and number. A
recommendation of which nothing was measured says NOT RUN.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from rich.console import Console
from rich.table import Table as Shown
from shared.claims.ledger import Claim, load_ledger
from shared.claims.results import ClaimOutcome, Results, Tier, load_results
from shared.errors import UserError

NOT_RUN = "NOT RUN"
EXPERIMENTS = [f"E{number}" for number in range(1, 11)]
TIERS = ("paper", "gpu", "cpu", "quick")  # the best first


class Recommendation(NamedTuple):
    """A row of the table at the head of the specification; `claims` are prefixes of the ids of the claims behind it."""

    group: str
    says: str
    by: str
    claims: tuple[str, ...]


RECOMMENDATIONS = (
    Recommendation(
        "i", "scalable, computationally efficient DL for detection",
        "Deep Filtering CNNs, residual and WaveNet variants, one net per detector or coherent",
        ("e1.", "e3.", "e4.", "e5."),
    ),
    Recommendation(
        "i", "DL for source characterisation in real time", "mass predictor, transfer to the classifier", ("e2.",)
    ),
    Recommendation(
        "i", "robustness to non-Gaussian transients (glitches)",
        "glitch-centred negatives, coherent input, glitch classifier", ("e5.twin.glitches", "e6.", "glitches."),
    ),
    Recommendation(
        "ii", "simulate sources, scale training", "batched waveform generator on device, DDP, resumable legs",
        ("e3.", "e9."),
    ),
    Recommendation(
        "ii", "inference at scale", "streaming engine with snapshot state, batched offline sweep", ("e3.month",)
    ),
    Recommendation(
        "iii", "manage triggers -> real-time alerts",
        "coincidence, time slides, FAR, superevents, sky map, VOEvent 2.0 and JSON notices, durable bus",
        ("e6.", "e7.", "e8.", "e10."),
    ),
    Recommendation("iii", "EM and neutrino follow-up", "cross-match with joint FAR, sky-map overlap", ("e8.",)),
    Recommendation(
        "iv", "cope with big data (LSST class streams)", "broker consumer and spatial filter at >= LSST rate",
        ("e9.filter",),
    ),
    Recommendation(
        "v", "community: benchmarks, open data, open models",
        "MLGWSC-1 file formats and metric, GWOSC strain reader, exported models", ("e4.", "e5."),
    ),
)  # fmt: skip

# What an experiment's line says in numbers: the first of these claims that the row has and a tier has measured.
HEADLINES = {
    "e1.fap1e-3.snr8": "share found at SNR 8, one false alarm in 1,000 windows:",
    "e2.chirp": "median chirp-mass error at SNR 10:",
    "e3.realtime": "speed over real time, offline:",
    "e3.month": "a month of data:",
    "e4.GW150914": "share of runs with GW150914 above every slide:",
    "e5.share": "distance over the matched filter's, 1,000 a month:",
    "e5.twin.glitches": "twins' gain in distance, with glitches:",
    "e6.poisson": "of two rates within the Poisson interval:",
    "glitches.accuracy": "transients rightly named:",
    "e7.pp": "truth within the 90 % region:",
    "e8.gain": "rate lowered by the places, times:",
    "e9.latency": "merger to notice, 99th percentile:",
    "e9.filter": "alerts filtered a second, beside a search:",
    "e10.kills": "lost or doubled in 20 kills:",
    "e10.quick": "lost or doubled in one kill:",
}


def results_of(root: Path) -> dict[Tier, Results]:
    """The committed results, the best tier first."""
    files = {tier: root / "results" / tier / "results.json" for tier in TIERS}
    return {cast(Tier, tier): load_results(file) for tier, file in files.items() if file.is_file()}


def outcome_of(claim: Claim, found: dict[Tier, Results]) -> tuple[Tier, ClaimOutcome] | None:
    """The claim's verdict in the best tier in which it was measured; None where it was in none."""
    for tier, results in found.items():
        outcome = results.claims.get(claim.id)
        if outcome is not None and outcome.verdict != "not run":
            return tier, outcome
    return None


def number_of(claim: Claim, outcome: ClaimOutcome) -> str:
    """Its first measured number, with the unit."""
    measured = next((each for each in outcome.ours.values() if each is not None), None)
    return "no number" if measured is None else f"{measured.mean:.4g} {claim.metric.unit}".strip()


def evidence(row: Recommendation, claims: Sequence[Claim], found: dict[Tier, Results]) -> str:
    """An experiment a line: verdicts counted, and its headline; NOT RUN where nothing was measured."""
    mine = [claim for claim in claims if claim.id.startswith(row.claims)]
    lines = []
    for experiment in sorted({prefix.split(".")[0] for prefix in row.claims}):
        those = [claim for claim in mine if claim.id.split(".")[0] == experiment]
        judged = [(claim, outcome) for claim in those if (outcome := outcome_of(claim, found)) is not None]
        name = experiment.upper() if re.fullmatch(r"e\d+", experiment) else experiment
        if not judged:
            lines.append(f"{name}: {NOT_RUN}")
            continue
        counts: Counter[str] = Counter(each.verdict for _, (_, each) in judged)
        if len(judged) < len(those):
            counts[NOT_RUN] = len(those) - len(judged)
        by_id = {claim.id: (claim, outcome) for claim, outcome in judged}
        claim, (tier, first) = next((by_id[id] for id in HEADLINES if id in by_id), judged[0])
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        lines.append(f"{name} ({tier}): {told}; {HEADLINES.get(claim.id, claim.says)} {number_of(claim, first)}")
    return NOT_RUN if all(line.endswith(NOT_RUN) for line in lines) else "\n".join(lines)


def coverage(root: Path) -> Shown:
    """The recommendations with what was measured.

    Raises:
        UserError: a ledger or results that cannot be read.
    """
    claims, found = load_ledger(root / "claims.yaml").claims, results_of(root)
    shown = Shown("group", show_lines=True)
    for name in ("recommendation", "realised by", "evidence"):
        shown.add_column(name, overflow="fold")  # a long word goes on in the next line, nothing is cut
    for row in RECOMMENDATIONS:
        shown.add_row(row.group, row.says, row.by, evidence(row, claims, found))
    return shown


def tables(root: Path, experiment: str, of: str | None = None) -> list[Shown]:
    """The tables of an experiment, as the best tier that has some left them, or the tier `of`.

    Raises:
        UserError: no such experiment, or one that was not run.
    """
    if experiment not in EXPERIMENTS:
        raise UserError(f"--table {experiment}: use one of {', '.join(EXPERIMENTS)}")
    for tier, results in results_of(root).items():
        mine = [table for table in results.tables if table.title.startswith(f"{experiment}.")]
        if not mine or of not in (None, tier):
            continue
        out = []
        for table in mine:
            shown = Shown(*table.columns, title=f"{table.title} ({tier} tier)", caption=table.note)
            for row in table.rows:
                shown.add_row(*row)
            out.append(shown)
        return out
    which = "no tier has" if of is None else f"the {of} tier has not"
    raise UserError(f"{experiment}: {NOT_RUN}: {which} a table of it; `reproduce.py --coverage` says what was run")


def main(root: Path, argv: Sequence[str]) -> int | None:
    """Print what was asked for; None where neither was."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--table")
    parser.add_argument("--tier")
    args, _ = parser.parse_known_args(argv)
    console = Console()
    if args.coverage:
        console.print(coverage(root))
    if args.table is not None:
        for shown in tables(root, args.table, args.tier):
            console.print(shown)
    return 0 if args.coverage or args.table is not None else None
