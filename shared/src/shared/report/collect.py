"""Everything that the pages show, read once: each paper's ledger, its results by tier, and the verdicts they give."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shared.claims.ledger import Claim, Ledger, load_ledger
from shared.claims.results import VERDICTS, ClaimOutcome, Results, Verdict, load_results
from shared.claims.schema import TIERS, Tier
from shared.claims.verdicts import judge, overall
from shared.errors import UserError
from shared.runs.plan import load_plan


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict at every tier that tests it, and the one that stands for it."""

    claim: Claim
    outcomes: dict[Tier, ClaimOutcome]
    tier: Tier
    outcome: ClaimOutcome


@dataclass(frozen=True)
class PaperPage:
    """A paper: its folder, ledger, results and verdicts."""

    folder: Path
    ledger: Ledger
    results: dict[Tier, Results]
    claims: list[Judged]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def count(self) -> dict[Verdict, int]:
        counted = Counter(judged.outcome.verdict for judged in self.claims)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    @property
    def groups(self) -> list[tuple[str, list[Judged]]]:
        """The claims by where they stand in the paper, in the ledger's order."""
        out: dict[str, list[Judged]] = {}
        for judged in self.claims:
            out.setdefault(judged.claim.where, []).append(judged)
        return list(out.items())


def read_paper(folder: Path) -> PaperPage:
    """A paper with the verdicts that its ledger's rules give now.

    Raises:
        UserError: what is wrong with the claim file or a result file.
    """
    ledger = load_ledger(folder / "claims.yaml")
    results: dict[Tier, Results] = {}
    for tier in TIERS:
        file = folder / "results" / tier / "results.json"
        if file.is_file():
            found = load_results(file)
            if (found.paper, found.tier) != (folder.name, tier):
                raise UserError(f"{file}: holds the results of {found.paper}, tier {found.tier}; move it or run again")
            results[tier] = found
    judged = []
    for claim in ledger.claims:
        outcomes = {tier: judge(claim, results.get(tier), tier) for tier in TIERS if tier in claim.tiers}
        judged.append(Judged(claim, outcomes, *overall(claim, outcomes)))
    return PaperPage(folder, ledger, results, judged)


def read_papers(root: Path) -> list[PaperPage]:
    """Every folder under the repository's root that holds a `claims.yaml`, by name.

    Raises:
        UserError: there is none, or a file of one is wrong.
    """
    folders = sorted(path.parent for path in root.glob("*/claims.yaml"))
    if not folders:
        raise UserError(f"no paper in {root}: run this at the root of the repository")
    return [read_paper(folder) for folder in folders]


def misnamed(page: PaperPage) -> list[str]:
    """What the ledger names and no tier plans: an experiment that nothing would ever run."""
    out = []
    for tier in TIERS:
        tests = [(c, c.tiers[tier]) for c in page.ledger.claims if tier in c.tiers]
        if not any(test.experiments for _, test in tests):
            continue
        plan = load_plan(page.folder, tier)
        known = {e.name for e in plan.experiments} | {s.name for s in plan.selections}
        out += [
            f"{page.folder / 'claims.yaml'}: claim {claim.id}.tiers.{tier}: no experiment or selection {name}"
            for claim, test in tests
            for name in test.experiments.values()
            if name not in known
        ]
    return out


def outdated(page: PaperPage) -> list[str]:
    """The result files whose stored verdicts are not those that the rules give now."""
    return [
        f"{page.folder / 'results' / tier / 'results.json'}: holds verdicts of an earlier claims.yaml"
        for tier, results in page.results.items()
        if results.claims != verdicts(page, tier)
    ]


def verdicts(page: PaperPage, tier: Tier) -> dict[str, ClaimOutcome]:
    """What `results.json` of the tier should hold under `claims`: every claim, also those the tier does not test."""
    return {claim.id: judge(claim, page.results[tier], tier) for claim in page.ledger.claims}
