"""`--only`: names, patterns, selections and groups of claims, as a user types them."""

from pathlib import Path

import pytest
from shared.claims.ledger import Ledger, load_ledger
from shared.errors import UserError
from shared.runs.only import experiments_of
from shared.runs.plan import Experiment, Plan, Selection

NAMES = ("gap_plain", "gap_dig", "cost", "ring", "t1.look")
PLAN = Plan(
    "toy",
    "cpu",
    [Experiment(name, name, {}, [0]) for name in NAMES],
    [Selection(name="best", title="best", among=["gap_plain", "ring"], by="val/fid", better="lower")],
)
CLAIM = """
  - id: {id}
    where: Table 1
    says: It is small.
    metric: {{name: fid, unit: "", better: lower}}
    paper: {{a: 1.0, b: 2.0}}
    rule: {{kind: order, smaller: a, larger: b, margin_se: 2, min_seeds: 3}}
    tiers: {{{tier}: {{experiments: {{a: {a}, b: {b}}}, setting: small}}}}
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    claims = [
        ("f1.gap", "cpu", "gap_dig", "best"), ("F1.cost", "cpu", "cost", "gap_dig"),
        ("f10.ring", "cpu", "ring", "cost"), ("t2.fid", "gpu", "ring", "cost"), ("t1.look.here", "cpu", "ring", "cost"),
    ]  # fmt: skip
    text = "paper: {title: Toy, venue: none, arxiv: none, code: none, source: primary, differs: []}\nclaims:"
    text += "".join(CLAIM.format(id=name, tier=tier, a=a, b=b) for name, tier, a, b in claims)
    (tmp_path / "claims.yaml").write_text(text)
    return load_ledger(tmp_path / "claims.yaml")


@pytest.mark.parametrize(
    ("only", "found"),
    [
        (None, set(NAMES)),
        ("ring", {"ring"}),
        ("gap_*", {"gap_plain", "gap_dig"}),
        ("best", {"gap_plain", "ring"}),  # a selection: what it is made from
        ("b?st,cost", {"gap_plain", "ring", "cost"}),
        ("f1", {"gap_dig", "gap_plain", "ring", "cost"}),  # f1.gap and F1.cost, not f10.ring
        ("F10, gap_dig", {"ring", "cost", "gap_dig"}),
        ("F1.GAP", {"gap_dig", "gap_plain", "ring"}),  # the id of one claim
        ("t1.look", {"t1.look"}),  # an experiment before a group
        ("T1.Look", {"ring", "cost"}),
        ("*", set(NAMES)),
    ],
)
def test_what_only_means(ledger: Ledger, only: str | None, found: set[str]) -> None:
    assert experiments_of(only, PLAN, ledger) == found


@pytest.mark.parametrize(("only", "part"), [("nothing", "nothing"), ("ring,t2", "t2"), ("f", "f"), ("ring,", "")])
def test_what_is_unknown_is_told_with_what_is_known(ledger: Ledger, only: str, part: str) -> None:
    with pytest.raises(UserError) as told:
        experiments_of(only, PLAN, ledger)
    assert str(told.value) == (
        f"--only: `{part}` is no experiment of tier cpu and no group of its claims. "
        "Groups: f1, f10, t1. Experiments: gap_plain, gap_dig, cost, ring, t1.look, best"
    )


def test_a_paper_without_a_ledger_has_no_groups() -> None:
    assert experiments_of("ring", PLAN, None) == {"ring"}
    with pytest.raises(UserError, match=r"Groups: none\. Experiments: gap_plain"):
        experiments_of("f1", PLAN, None)
