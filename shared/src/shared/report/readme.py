"""The tables in the READMEs, between markers, from the same ledgers and results as the page."""

from __future__ import annotations

from pathlib import Path

from shared.claims.ledger import Claim
from shared.claims.results import VERDICTS, ClaimOutcome
from shared.claims.schema import TIERS, Tier
from shared.errors import UserError
from shared.report import text
from shared.report.collect import PaperPage


def table(header: list[str], align: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; `align` is l or r for each column."""
    lines = [header, ["---:" if a == "r" else "---" for a in align], *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def papers_table(pages: list[PaperPage]) -> str:
    """One row a paper: how many claims of each verdict."""
    header = ["paper", "venue", *[f"{text.SHAPES[v]} {v}" for v in VERDICTS], "run it"]
    rows = [
        [
            f"[{page.ledger.paper.title}]({page.name}/README.md)",
            page.ledger.paper.venue,
            *[str(page.count[v]) for v in VERDICTS],
            f"`make reproduce-{page.name}`",
        ]
        for page in pages
    ]
    return table(header, ["l", "l", *["r"] * len(VERDICTS), "l"], rows)


def claims_table(page: PaperPage) -> str:
    """One row a claim: the paper's numbers, ours at every tier that has results, the verdict."""
    tiers: list[Tier] = [tier for tier in TIERS if tier in page.results]
    header = ["where", "claim", "paper", *[f"ours ({tier})" for tier in tiers], "verdict"]
    rows, before = [], None
    second_hand = False
    for judged in page.claims:
        claim = judged.claim
        second_hand = second_hand or text.second_hand(claim)
        where = claim.where if claim.where != before else ""
        before = claim.where
        paper = "<br>".join(_labelled(claim, role, text.paper_number(value)) for role, value in claim.paper.items())
        ours = [_ours(claim, judged.outcomes.get(tier)) for tier in tiers]
        aside = f": {judged.outcome.why}" if judged.outcome.verdict == "not run" else f" ({judged.tier})"
        verdict = f"{text.SHAPES[judged.outcome.verdict]} {judged.outcome.verdict}{aside}"
        rows.append([where, claim.says, paper + (" †" if text.second_hand(claim) else ""), *ours, verdict])
    out = table(header, ["l", "l", "r", *["r"] * len(tiers), "l"], rows)
    notes = ["Ours: mean ± standard deviation over seeds (number of seeds)."]
    if second_hand:
        notes.append("†: the paper's number came to us second-hand.")
    return f"{out}\n\n{' '.join(notes)}"


def measured_tables(page: PaperPage) -> str:
    """The tables of the highest tier that made some."""
    for tier in reversed(TIERS):
        results = page.results.get(tier)
        if results is not None and results.tables:
            return "\n\n".join(
                f"**{each.title}** ({tier} tier)\n\n"
                + table(each.columns, ["l", *["r"] * (len(each.columns) - 1)], each.rows)
                + (f"\n\n{each.note}" if each.note else "")
                for each in results.tables
            )
    return "No tier has been run yet."


def _labelled(claim: Claim, role: str, value: str) -> str:
    return f"{role}&nbsp;{value}" if len(claim.paper) > 1 else value


def _ours(claim: Claim, outcome: ClaimOutcome | None) -> str:
    shown = []
    for role, measured in (outcome.ours if outcome else {}).items():
        if measured is not None:
            spread = f"&nbsp;±&nbsp;{text.spread(measured)}" if measured.n > 1 else ""
            shown.append(_labelled(claim, role, f"{text.mean(measured)}{spread}&nbsp;({measured.n})"))
    return "<br>".join(shown)


def between(content: str, marker: str, new: str, path: Path) -> str:
    """`content` with what stands between `<!-- marker:begin -->` and `<!-- marker:end -->` replaced.

    Raises:
        UserError: the markers are not there, once each and in this order.
    """
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise UserError(f"{path}: needs one line `{begin}` and, below it, one line `{end}`")
    head, rest = content.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{new}\n{end}{tail}"


def readmes(root: Path, pages: list[PaperPage]) -> dict[Path, tuple[str, str]]:
    """For every README: what it holds, and what it should hold.

    Raises:
        UserError: a README or its markers are missing.
    """
    wanted = [(root / "README.md", {"papers": papers_table(pages)})]
    for page in pages:
        tables = {"tables": measured_tables(page)} if any(results.tables for results in page.results.values()) else {}
        wanted.append((page.folder / "README.md", {"claims": claims_table(page), **tables}))
    out = {}
    for path, parts in wanted:
        try:
            old = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; it holds tables between the markers `{' and '.join(parts)}`"
            ) from None
        new = old
        for marker, part in parts.items():
            new = between(new, marker, part, path)
        out[path] = (old, new)
    return out
