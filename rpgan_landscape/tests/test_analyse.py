"""The command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rpgan_landscape.analyse import main

ACCEPTED = ["js", "ls", "hinge", "rs", "rp_hinge", "rp_ls", "allpairs"]

OWN = """
import numpy as np
from rpgan_landscape.landscape import Game

def exponential(t):
    return -np.exp(-t)

def sine(t):
    return np.sin(t)

def line(t):
    return t

game = Game("allpairs", h=exponential)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_losses.py").write_text(OWN)
    (tmp_path / "broken_losses.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(out: str) -> dict[str, list[str]]:
    """The table's rows by their first cell."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def test_table_at_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--loss", *ACCEPTED, "--n", "5"]) == 0
    out = capsys.readouterr().out
    counts, barriers = out.split("escape barrier")
    table = rows(counts)
    names = [*ACCEPTED[:-1], "allpairs_logistic"]
    assert [table[name][1] for name in names] == ["3,005", "3,005", "0", "0", "0", "0", "3,005"]
    assert [table[name][2] for name in names] == ["6,230", "6,230", "0", "0", "0", "0", "6,230"]
    assert table["js"] == ["3,125", "3,005", "6,230", "3,005", "-0.693147"]
    assert table["hinge"] == ["120", "0", "0", "0", "-1.000000"]
    assert rows(barriers)["5"][:3] == ["0.020136", "0.003333", "0.000000"]
    assert "hinge: strict minima need xi(m) < xi(m - 1) + sup h2 for every m >= 1, which fails at m = 2" in out
    assert "3,005 bad strict minima; the same h with pairs fixed once has 0" in out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    assert main(["--loss", "js", "--n", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["loss"], found["n"], found["strict_bad"], found["unreach_all"]) == ("js", 2, 2, 2)
    assert {round(float(g), 6): count for g, count in found["hist_all"].items()} == {
        -0.693147: 2, -0.477386: 2, -0.346574: 4, 0: 1,
    }  # fmt: skip
    assert found["escape_barrier_by_occupancy"]["2"] == pytest.approx([0.130812], abs=1e-6)
    assert main(["--loss", "js", "rs", "--n", "2", "--json", str(file)]) == 0
    assert [it["loss"] for it in json.loads(file.read_text())] == ["js", "rs"]


def test_a_loss_of_ones_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {"rp": ["6", "0", "0", "0"], "separable": ["27", "21", "30", "21"], "allpairs": ["27", "21", "30", "21"]}
    for family, counts in expected.items():
        assert main(["--loss-fn", "own_losses:exponential", "--family", family, "--n", "3"]) == 0
        found = rows(capsys.readouterr().out.split("escape")[0])
        assert found["own_losses:exponential"] == [*counts, "-1.000000"]
    assert main(["--loss-fn", "own_losses:game", "--n", "3"]) == 0
    assert rows(capsys.readouterr().out.split("escape")[0])["own_losses:game"] == [*expected["allpairs"], "-1.000000"]
    assert main(["--loss-fn", "own_losses:exponential", "--n", "3"]) == 0  # a bare h pairs
    assert rows(capsys.readouterr().out.split("escape")[0])["own_losses:exponential"] == [*expected["rp"], "-1.000000"]


def test_as_a_user_types_it(own: Path) -> None:
    command = [sys.executable, "-m", "rpgan_landscape.analyse", "--loss-fn", "own_losses:exponential", "--n", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path != str(own))}
    done = subprocess.run(command, cwd=own, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout.split("escape")[0])["own_losses:exponential"] == ["2", "0", "0", "0", "-1.000000"]
    done = subprocess.run([*command[:-1], "0"], cwd=own, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: n is 0: at least one real and one fake point are needed, n >= 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--loss bce --n 3", "unknown loss 'bce': use one of js, ls, hinge, w, rs, rp_hinge, rp_ls, rp_w, "),
        ("--loss js --n 0", "n is 0: at least one real and one fake point are needed"),
        ("--loss js --n -2", "n is -2: at least one"),
        ("--loss js --n 9", "n <= 8"),
        ("--loss js --n two", "argument --n: invalid int value: 'two'"),
        ("--loss js", "the following arguments are required: --n"),
        ("--n 3", "one of the arguments --loss --loss-fn is required"),
        ("--loss js --n 3 --colour red", "unrecognized arguments: --colour red"),
        ("--loss w --n 3", "w: the supremum over all critics is infinite"),
        ("--loss js --n 3 --family rp", "--family belongs to --loss-fn"),
        ("--loss js --n 3 --json nowhere/out.json", "--json nowhere/out.json: name a file in a folder that exists"),
        ("--loss-fn own_losses --n 3", "write module:function"),
        ("--loss-fn own_losses:cosine --n 3", "module own_losses has no 'cosine'"),
        ("--loss-fn no_losses:h --n 3", "no module named 'no_losses' on the Python path"),
        ("--loss-fn broken_losses:h --n 3", "importing it failed with ZeroDivisionError: division by zero"),
        ("--loss-fn own_losses:sine --n 3", "`h` is not concave (near t = "),
        ("--loss-fn own_losses:line --n 3", "`h` has an infinite supremum"),
        ("--loss-fn own_losses:game --family rp --n 3", "own_losses:game says of itself that it is allpairs"),
        ("--loss-fn own_losses:OWN --n 3", "has no 'OWN'"),
    ],
)
def test_bad_arguments(own: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
