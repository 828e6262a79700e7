"""The report in a headless browser and on disk, the READMEs' tables, and `check`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from shared.claims.ledger import load_ledger
from shared.claims.results import load_results, save
from shared.claims.verdicts import judge
from shared.errors import UserError
from shared.figures import COLOURS, mean_band, paper_line, use_house_style
from shared.figures import save as save_figure
from shared.report import build, text
from shared.report.collect import read_papers
from shared.report.readme import between

LEDGER = """
paper:
  title: {title}
  venue: Somewhere 2024
  arxiv: "2401.00001"
  code: none
  source: secondary
  differs: ["The widths are ours: the paper gives none.", "<b>Fewer</b> images & less time."]
claims:
  - id: table1.order
    where: "Table 1"
    says: "The method has a lower test error than the baseline at equal cost."
    metric: {{name: test_error, unit: "%", better: lower}}
    secondary: true
    paper: {{ours: {{value: 2.1, spread: 0.1}}, base: 3.4, other: "n/a"}}
    rule: {{kind: order, smaller: ours, larger: base}}
    tiers:
      quick: {{experiments: {{ours: best, base: base}}, metric: test/error, setting: "embedded, 2 epochs"}}
      cpu: {{experiments: {{ours: best, base: base, other: fast}}, metric: test/error, setting: "20k images"}}
  - id: table1.value
    where: "Table 1"
    says: "The method's test error."
    metric: {{name: test_error, unit: "%", better: lower}}
    paper: {{ours: 2.1}}
    rule: {{kind: within, role: ours, tolerance: 0.3}}
    tiers:
      cpu: {{experiments: {{ours: fast}}, metric: test/error, setting: "as in the paper", paper_setting: true}}
  - id: figure1.gain
    where: "Figure 1"
    says: "Later layers help."
    metric: {{name: gain, unit: points, better: higher}}
    secondary: true
    paper: {{ours: "n/a"}}
    rule: {{kind: shape, role: ours, statistic: test/gain, at_least: 5}}
    tiers:
      cpu: {{experiments: {{ours: fast}}, setting: "20k images"}}
  - id: table2.large
    where: "Table 2"
    says: "The same on the large data."
    metric: {{name: test_error, unit: "%", better: lower}}
    secondary: true
    paper: {{ours: 12.0}}
    rule: {{kind: within, role: ours, tolerance: 0.3}}
    tiers:
      paper: {{setting: "all images", paper_setting: true, not_run: "needs eight GPUs"}}
"""
TIER = """
paper: {name}
tier: {tier}
experiments:
  - {{name: base, title: the baseline, config: [a.yaml], seeds: [0, 1, 2]}}
  - {{name: fast, title: the method with a fast rate, config: [a.yaml], seeds: [0, 1, 2]}}
  - {{name: slow, title: the method with a slow rate, config: [a.yaml], seeds: [0, 1, 2]}}
selections:
  - {{name: best, title: at its best rate, from: [fast, slow], by: val/error, better: lower}}
"""
README = "# {title}\n\nWords before.\n\n<!-- {marker}:begin -->\n<!-- {marker}:end -->\n\nWords after.\n"
EVIDENCE = """# Kernels that ran

| kernel | shapes | date | device | versions | max error | time | floor | ratio |
|---|---|---|---|---|--:|--:|--:|--:|
| `alpha/scan` | 4096 x 1024 | 2026-01-02 | H100 | torch 2.13 | 1e-6 | 41 us | 33 us | 1.24 |
"""


def experiment(kind: str, errors: list[float], gain: float, tier: str, title: str) -> dict[str, Any]:
    return {
        "title": title,
        "config": {"model": {"width": 256, "rate": 0.001}, "data": {"dataset": "mnist"}},
        "data": {"name": "mnist", "kind": kind, "fingerprint": "ab12", "detail": "60,000 images"},
        "runs": [
            {
                "seed": seed,
                "key": f"{tier}{title[-9:]}{seed}",
                "metrics": {"test/error": error, "val/error": error + 0.1, "test/gain": gain + 0.1 * seed},
                "wall_seconds": 71.5,
                "device": "CPU, 2 cores",
                "date": "2026-01-02T03:04:05+00:00",
                "commit": "0123456789abcdef",
                "versions": {"torch": "2.13.0"},
            }
            for seed, error in enumerate(errors)
        ],
    }


def results(name: str, tier: str, kind: str) -> dict[str, Any]:
    experiments = {
        "base": experiment(kind, [3.4, 3.5, 3.62], 0.1, tier, "the baseline"),
        "fast": experiment(kind, [2.2, 2.25, 2.31], 3.0, tier, "the method with a fast rate"),
        "slow": experiment(kind, [2.6, 2.7, 2.8], 3.0, tier, "the method with a slow rate"),
    }
    selection = {"selected_from": ["fast", "slow"], "selected_by": "val/error", "chosen": "fast"}
    experiments["best"] = {**experiments["fast"], "title": "at its best rate", **selection}
    return {
        "paper": name,
        "tier": tier,
        "created": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": "2 cores",
        "versions": {"torch": "2.13.0", "python": "3.11"},
        "wall_seconds": 700,
        "experiments": experiments,
        "figures": [{"file": "curve.svg", "caption": "Ours falls faster.", "alt": 'Error over "epochs" & <layers>'}],
        "claims": {},
        "tables": [
            {"title": "Side & side", "columns": ["variant", "error"], "rows": [["fast", "2.3"], ["a|b", "<3>"]],
             "note": "Means."}
        ],
    }  # fmt: skip


def draw(path: Path) -> None:
    import matplotlib.pyplot as plt

    use_house_style()
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8))
    epochs = list(range(1, 9))
    mean_band(axes[0], epochs, [[4 / e + 0.1 * s + 2 for e in epochs] for s in range(3)], "ours", color=COLOURS["ours"])
    axes[0].set(xlabel="epoch", ylabel="test error (%)")
    paper_line(axes[0], 2.1)
    axes[1].plot(epochs, epochs)
    save_figure(figure, path)
    plt.close(figure)


def make_repository(root: Path, names: dict[str, str]) -> Path:
    """A repository of made-up papers: `names` maps a folder to its paper's title."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "README.md").write_text(README.format(title="All", marker="papers"))
    for name, title in names.items():
        folder = root / name
        (folder / "configs" / "tiers").mkdir(parents=True)
        (folder / "configs" / "a.yaml").write_text("model: {width: 256}\n")
        (folder / "claims.yaml").write_text(LEDGER.format(title=json.dumps(title)))
        markers = README.format(title=title, marker="claims").replace(
            "\n\nWords after.", "\n\n<!-- tables:begin -->\n<!-- tables:end -->\n\nWords after."
        )
        (folder / "README.md").write_text(markers)
        for kernel in ("scan", "gather"):
            (folder / "src" / name / "kernels" / kernel).mkdir(parents=True)
        for tier, kind in (("quick", "embedded"), ("cpu", "real")):
            (folder / "configs" / "tiers" / f"{tier}.yaml").write_text(TIER.format(name=name, tier=tier))
            file = folder / "results" / tier / "results.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(results(name, tier, kind)))
            draw(file.parent / "curve.svg")
            found = load_results(file)
            ledger = load_ledger(folder / "claims.yaml")
            claims = {claim.id: judge(claim, found, found.tier) for claim in ledger.claims}
            save(found.model_copy(update={"claims": claims}), file)
    (root / "docs").mkdir()
    (root / "docs" / "gpu-evidence.md").write_text(EVIDENCE)
    build.refresh(root)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that is current, with its report built: read it, do not change it."""
    root = make_repository(tmp_path_factory.mktemp("made") / "repo", {"alpha": "Alpha & Omega", "beta": "Beta"})
    build.build(root)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return shutil.copytree(made, tmp_path / "repo")


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def every(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def test_report_ids_are_unique_and_every_link_resolves(made: Path) -> None:
    page = Page(made / "report" / "index.html")
    ids = page.every("id")
    assert len(ids) == len(set(ids))
    links = page.every("href") + page.every("xlink:href")
    assert len([link for link in links if link.startswith("#")]) > 50
    assert any(link.startswith("../") for link in links)
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        elif link.startswith("../"):
            assert (made / "report" / link).is_file(), link
        else:
            assert link == "data:," or link.startswith("https://arxiv.org/abs/"), link
    source = (made / "report" / "index.html").read_text()
    for reference in re.findall(r"url\(#([^)]+)\)", source):
        assert reference in ids, reference


def test_report_is_self_contained(made: Path) -> None:
    page = Page(made / "report" / "index.html")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "img", "object", "embed", "video"}
    assert [attributes["href"] for tag, attributes in page.tags if tag == "link"] == ["data:,"]
    assert page.every("src") == []
    style = (made / "report" / "index.html").read_text()
    assert "@import" not in style
    assert "url(http" not in style


def test_report_shows_the_claims(made: Path) -> None:
    source = (made / "report" / "index.html").read_text()
    assert "Alpha &amp; Omega" in source
    assert "&lt;b&gt;Fewer&lt;/b&gt; images &amp; less time." in source  # text from a ledger is never markup
    row = source[source.index('<tr id="alpha.table1.order">') : source.index('<tr id="alpha.table1.value">')]
    words = " ".join(re.sub(r"<[^>]+>", " ", row).split())
    for piece in (
        "ours 2.1 ± 0.1 base 3.4 other n/a second-hand", "2.253 ± 0.055 · 3 seeds",
        "▲ trend reproduced", "cpu : 20k images", "mnist (real)", "make reproduce-alpha TIER=cpu", "2.2, 2.25, 2.31",
        "embedded, 2 epochs", "mnist (embedded)",
    ):  # fmt: skip
        assert piece in words, piece
    figure = source[source.index('<tr id="alpha.figure1.gain">') : source.index('<tr id="alpha.table2.large">')]
    assert "second-hand" not in figure  # n/a is nobody's number
    value = source[source.index('<tr id="alpha.table1.value">') : source.index('<tr id="alpha.figure1.gain">')]
    assert "reproduced</span>" in value
    assert "second-hand" not in value
    large = source[source.index('<tr id="alpha.table2.large">') :]
    assert "needs eight GPUs" in large[:4000]
    assert "fast, chosen by val/error among fast, slow" in source


def test_report_lists_kernels_with_and_without_evidence(made: Path) -> None:
    source = (made / "report" / "index.html").read_text()
    section = source[source.index('<section id="kernels">') :]
    words = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "alpha/scan 4096 x 1024 2026-01-02 H100 torch 2.13 1e-6 41 us 33 us 1.24" in words
    assert "Not yet run on a GPU: gather alpha gather beta scan beta" in words


def test_same_bytes_again(made: Path) -> None:
    before = (made / "report" / "index.html").read_bytes()
    command = [sys.executable, "-m", "shared.report", "build"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=True)  # another process, hash seed
    assert done.stdout == "report/index.html\n"
    assert (made / "report" / "index.html").read_bytes() == before


def test_check_passes_then_fails_on_each_stale_thing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> tuple[int, str]:
        code = build.main(["check", "--root", str(own)])
        return code, capsys.readouterr().err

    assert check() == (0, "")
    readme = own / "alpha" / "README.md"
    current = readme.read_text()
    readme.write_text(current.replace("2.253", "2.1"))
    code, said = check()
    assert code == 1
    assert said == f"{readme}: its table is stale: run `make report`\n"
    readme.write_text(current.replace("Words before.", "Other words."))  # outside the markers: the author's
    assert check() == (0, "")

    ledger = own / "alpha" / "claims.yaml"
    ledger.write_text(ledger.read_text().replace("at_least: 5", "at_least: 2"))
    code, said = check()
    assert code == 1
    assert "results/cpu/results.json: holds verdicts of an earlier claims.yaml: run `make report`" in said
    assert f"{readme}: its table is stale" in said
    assert f"{own / 'README.md'}: its table is stale" in said
    assert build.main(["readme", "--root", str(own)]) == 0
    capsys.readouterr()
    assert check() == (0, "")
    stored = load_results(own / "alpha" / "results" / "cpu" / "results.json")
    assert stored.claims["figure1.gain"].verdict == "trend reproduced"
    assert "Other words." in readme.read_text()

    ledger.write_text(ledger.read_text().replace("ours: best, base: base}", "ours: bets, base: base}", 1))
    code, said = check()
    assert code == 1
    assert "claims.yaml: claim table1.order.tiers.quick: no experiment or selection bets" in said


def test_commands_say_what_is_wrong_on_one_line(own: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "shared.report", *arguments]
        done = subprocess.run(command, cwd=own, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    (own / "alpha" / "README.md").write_text("# no markers\n")
    marker = "one line `<!-- claims:{} -->`"
    wanted = f"error: alpha/README.md: needs {marker.format('begin')} and, below it, {marker.format('end')}\n"
    assert run("check") == (2, wanted)
    (own / "alpha" / "results" / "cpu" / "curve.svg").unlink()
    assert run("build") == (
        2,
        "error: alpha/results/cpu/curve.svg: no such figure, but results.json lists it; run its tier again\n",
    )
    assert run("build", "--root", str(tmp_path)) == (
        2,
        f"error: no paper in {tmp_path}: run this at the root of the repository\n",
    )
    shutil.copy(own / "beta" / "results" / "cpu" / "results.json", own / "alpha" / "results" / "cpu")
    assert run("build") == (
        2,
        "error: alpha/results/cpu/results.json: holds the results of beta, tier cpu; move it or run again\n",
    )


def test_readme_tables(made: Path) -> None:
    root = (made / "README.md").read_text()
    assert "| [Alpha & Omega](alpha/README.md) | Somewhere 2024 | 1 | 1 | 1 | 1 | `make reproduce-alpha` |" in root
    lines = (made / "alpha" / "README.md").read_text().splitlines()
    assert lines[2] == "Words before."
    assert lines[-1] == "Words after."
    assert "| where | claim | paper | ours (quick) | ours (cpu) | verdict |" in lines
    value = next(line for line in lines if "The method's test error." in line)
    assert value == "|  | The method's test error. | 2.1 |  | 2.253&nbsp;±&nbsp;0.055&nbsp;(3) | ● reproduced (cpu) |"
    order = next(line for line in lines if "at equal cost" in line)
    assert "ours&nbsp;2.1 ± 0.1<br>base&nbsp;3.4<br>other&nbsp;n/a † |" in order
    large = next(line for line in lines if "large data" in line)
    assert large.endswith("| 12 † |  |  | ○ not run: needs eight GPUs |")


def test_tables_stand_in_the_readme_and_in_the_report(made: Path) -> None:
    lines = (made / "alpha" / "README.md").read_text().splitlines()
    start = lines.index("**Side & side** (cpu tier)")  # of the highest tier that made some
    assert lines[start + 2 : start + 6] == [
        "| variant | error |", "| --- | ---: |", "| fast | 2.3 |", "| a\\|b | <3> |",
    ]  # fmt: skip
    assert lines[start + 7] == "Means."
    source = (made / "report" / "index.html").read_text()
    section = source[source.index('<section id="alpha"') : source.index('<section id="beta"')]
    assert section.index('id="alpha.tables"') < section.index('id="alpha.claims"')
    assert section.count("<h4>Side &amp; side</h4>") == 2  # cpu, and quick below it
    assert "&lt;3&gt;" in section
    assert 'data-label="error"' in section


def test_a_paper_without_tables_needs_no_markers(own: Path) -> None:
    for file in own.glob("alpha/results/*/results.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "tables": []}))
    readme = own / "alpha" / "README.md"
    text = readme.read_text()
    readme.write_text(text[: text.index("<!-- tables:begin")] + text[text.index("<!-- tables:end -->") + 19 :])
    build.refresh(own)
    assert build.problems(own) == []
    assert 'id="alpha.tables"' not in build.build(own).read_text()


def test_seeds_are_written_as_ranges() -> None:
    assert text.ranges([0, 1, 2, 3, 7, 9, 10]) == "0–3, 7, 9, 10"
    assert text.ranges([5]) == "5"
    assert text.ranges([]) == ""


@pytest.mark.parametrize(
    "content",
    ["", "<!-- a:begin -->", "<!-- a:end --><!-- a:begin -->", "<!-- a:begin --><!-- a:begin --><!-- a:end -->"],
)
def test_markers_must_be_there_once_and_in_order(content: str) -> None:
    with pytest.raises(UserError, match=r"^R\.md: needs one line `<!-- a:begin -->` and, below it"):
        between(content, "a", "new", Path("R.md"))


def test_without_results_every_claim_is_not_run(own: Path) -> None:
    shutil.rmtree(own / "alpha" / "results")
    shutil.rmtree(own / "docs")
    page = read_papers(own)[0]
    assert page.count == {"reproduced": 0, "trend reproduced": 0, "not reproduced": 0, "not run": 4}
    source = build.build(own).read_text()
    assert "No tier has been run" in source
    assert "gpu-evidence.md" not in source
