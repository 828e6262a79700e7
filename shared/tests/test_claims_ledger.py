"""Every way in which a claim file can be wrong has its own message, on one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.claims.ledger import PaperValue, load_ledger
from shared.errors import UserError

GOOD = """\
paper: {title: T, venue: V, arxiv: "2305.12393", code: none, source: secondary, differs: [widths]}
claims:
  - id: table1.a
    where: Table 1
    says: ours is lower
    metric: {name: error, unit: "%", better: lower}
    secondary: true
    paper: {ours: {value: 2.1, spread: 0.1}, base: 3.4, other: n/a}
    rule: {kind: order, smaller: ours, larger: base}
    tiers:
      cpu: {experiments: {ours: all, base: ff}, metric: test/error, setting: small}
      paper: {setting: whole, paper_setting: true, not_run: needs GPUs}
  - id: table1.b
    where: Table 1
    says: the number
    metric: {name: error, unit: "%", better: lower}
    paper: {ours: 1e-1}
    rule: {kind: within, role: ours, tolerance: 0.3, min_seeds: 5}
    tiers:
      cpu: {experiments: {ours: all}, setting: small}
  - id: figure1.c
    where: Figure 1
    says: it grows
    metric: {name: gain, unit: "", better: none}
    paper: {ours: n/a}
    rule: {kind: shape, role: ours, statistic: test/gain, at_least: 1}
    tiers:
      quick: {experiments: {ours: all}, setting: small}
"""


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    return load_ledger(path)


def test_a_good_ledger_is_read(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(GOOD)
    ledger = load_ledger(tmp_path / "claims.yaml")
    order, within, shape = ledger.claims
    assert order.paper == {"ours": PaperValue(value=2.1, spread=0.1), "base": PaperValue(value=3.4), "other": None}
    assert order.rule.model_dump() == {
        "kind": "order", "smaller": "ours", "larger": "base", "margin_se": 2.0, "min_seeds": 3,
    }  # fmt: skip
    assert order.secondary
    assert not within.secondary
    assert within.paper == {"ours": PaperValue(value=0.1)}
    assert [claim.measured_by(tier) for claim, tier in ((order, "cpu"), (within, "cpu"), (shape, "quick"))] == [
        "test/error",
        "error",
        "test/gain",
    ]


WRONG = [
    # what is replaced, by what, the message after the file's name
    ("paper: {title: T, ", "paper: {", "paper.title: is missing"),
    ("title: T,", "title: '  ',", "paper.title: is empty"),
    ("title: T,", "titel: T, title: T,", "paper.titel: no such key"),
    ('"2305.12393"', "2305.12393", "paper.arxiv: expected text, found 2305.12393 (put it in quotes)"),
    ("source: secondary", "source: hearsay", "paper.source: Input should be 'primary' or 'secondary'"),
    ("differs: [widths]", "differs: widths", "paper.differs: Input should be a valid list"),
    ("claims:\n", "claims: []\nx:\n", "claims: is empty"),
    ("claims:\n", "claims: 3\nx:\n", "claims: Input should be a valid list"),
    ("claims:\n", "claims:\n  - just text\n",
     "claim number 1: Input should be a valid dictionary or instance of Claim"),
    ("  - id: table1.a\n    where", "  - where", "claim number 1.id: is missing"),
    ("id: table1.b", "id: table1.a", "claims: the id table1.a is given to 2 claims"),
    ("id: table1.a", "id: table 1", "claim table 1.id: only letters, digits and _ . - can stand here"),
    ("says: ours is lower", "says: ''", "claim table1.a.says: is empty"),
    ("better: lower}", "better: smaller}", "claim table1.a.metric.better: Input should be 'lower', 'higher' or 'none'"),
    ("base: 3.4", "base: '3.4'",
     "claim table1.a.paper.base: expected a number, {value: ..., spread: ...} or n/a, found '3.4'"),
    ("base: 3.4", "base: true",
     "claim table1.a.paper.base: expected a number, {value: ..., spread: ...} or n/a, found True"),
    ("base: 3.4", "base: .nan", "claim table1.a.paper.base.value: is NaN or infinite"),
    ("spread: 0.1", "spread: -0.1", "claim table1.a.paper.ours.spread: Input should be greater than or equal to 0"),
    ("spread: 0.1", "sd: 0.1", "claim table1.a.paper.ours.sd: no such key"),
    ("base: 3.4", "1: 3.4", "claim table1.a.paper.1: expected text, found 1 (put it in quotes)"),
    ("paper: {ours: 1e-1}", "paper: {}", "claim table1.b.paper: is empty"),
    ("kind: order, ", "", "claim table1.a.rule: `kind` is missing: within, order, shape or ratio"),
    ("kind: order", "kind: sort", "claim table1.a.rule: Input tag 'sort' found using 'kind' does not match any of the "
     "expected tags: 'within', 'order', 'shape', 'ratio'"),
    ("larger: base", "larger: bass", "claim table1.a: rule: the role bass has no value under `paper` "
     "(n/a where the paper gives none)"),
    ("larger: base", "larger: ours", "claim table1.a: rule: order compares ours with itself"),
    ("kind: order, smaller: ours, larger: base", "kind: ratio, numerator: ours, denominator: ours, at_most: 1",
     "claim table1.a: rule: ratio compares ours with itself"),
    ("larger: base}", "larger: base, min_seeds: 2}",
     "claim table1.a.rule.min_seeds: Input should be greater than or equal to 3"),
    ("larger: base}", "larger: base, margin_se: -1}",
     "claim table1.a.rule.margin_se: Input should be greater than or equal to 0"),
    ("base: 3.4", "base: 1.4", "claim table1.a: rule: order says ours < base, but the paper has 2.1 and 1.4"),
    ("tolerance: 0.3", "tolerance: 0", "claim table1.b.rule.tolerance: Input should be greater than 0"),
    ("tolerance: 0.3", "tolerance: yes", "claim table1.b.rule.tolerance: expected a number, found True"),
    ("paper: {ours: 1e-1}", "paper: {ours: n/a}",
     "claim table1.b: rule: within needs the paper's number for ours, which is n/a"),
    (", at_least: 1", "", "claim figure1.c.rule: a shape needs a bound: at_least, at_most or both"),
    ("at_least: 1", "at_least: 1, at_most: 1",
     "claim figure1.c.rule: at_least 1 is not below at_most 1: nothing can satisfy it"),
    ("at_least: 1", "at_least: 1, min_seeds: 1", "claim figure1.c.rule: one seed has no standard error: "
     "set min_seeds to 2 or more, or margin_se to 0"),
    ("      quick:", "      fast:",
     "claim figure1.c.tiers.fast: Input should be 'quick', 'cpu', 'gpu' or 'paper'"),
    ("      quick: {experiments: {ours: all}, setting: small}", "      {}", "claim figure1.c.tiers: is empty"),
    ("{ours: all, base: ff}", "{ours: all}",
     "claim table1.a: tiers.cpu: no experiment for base, which the rule compares"),
    ("{ours: all, base: ff}", "{ours: all, base: all}", "claim table1.a: tiers.cpu: all would be compared with itself"),
    ("{ours: all, base: ff}", "{ours: all, base: ff, us: x}",
     "claim table1.a: tiers.cpu: us is no role of this claim; it has: ours, base, other"),
    ("setting: whole, ", "", "claim table1.a.tiers.paper.setting: is missing"),
    ("not_run: needs GPUs", "not_run: ''", "claim table1.a.tiers.paper.not_run: is empty"),
    ("quick: {experiments: {ours: all}", "quick: {metric: test/error, experiments: {ours: all}",
     "claim figure1.c: tiers.quick: a shape is measured by its statistic; leave `metric` out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), WRONG, ids=[f"{i}-{new[:25]}" for i, (_, new, _) in enumerate(WRONG)]
)
def test_a_wrong_ledger_says_where_and_what(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value) == f"{tmp_path / 'claims.yaml'}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected `key: value` pairs"),
        ("- a\n", ": expected `key: value` pairs"),
        ("paper: {title: [\n", ", line 2: expected the node content, but found '<stream end>'"),
        (GOOD.replace("    secondary: true", "    where: again"), ", line 7: where is given twice"),
    ],
)
def test_a_file_that_is_no_ledger(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'claims.yaml'}{message}"
    with pytest.raises(UserError, match="no such file"):
        load_ledger(tmp_path / "other.yaml")
