"""The key of a run changes with what its numbers depend on, and with nothing else."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared.errors import UserError
from shared.runs import key as keys
from shared.runs.key import code_fingerprint, run_key

CONFIG = {"model": {"width": 8, "theta": 1.0}, "seed": 0}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "keyed_paper"
    (root / "kernels").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "model.py").write_text('"""The network."""\n\n\ndef f(x):\n    """Twice."""\n    return 2 * x\n')
    (root / "figures.py").write_text("COLOUR = 'blue'\n")
    (root / "kernels" / "fast.cu").write_text("// nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield root
    sys.modules.pop("keyed_paper", None)


def key(config: dict | None = None, data: str = "f00") -> str:
    code_fingerprint.cache_clear()
    return run_key(config or CONFIG, ["keyed_paper"], data)


def test_the_same_run_has_the_same_key(package: Path) -> None:
    first = key()
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert key({"seed": 0, "model": {"theta": 1.0, "width": 8}}) == first


def test_what_the_numbers_depend_on_changes_the_key(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [key(), key({**CONFIG, "seed": 1}), key(data="f01")]
    (package / "model.py").write_text("def f(x):\n    return 3 * x\n")
    seen.append(key())
    (package / "kernels" / "fast.cu").write_text("// something\n")
    seen.append(key())
    (package / "new.py").write_text("")
    seen.append(key())
    (package / "new.py").rename(package / "newer.py")
    seen.append(key())
    for name in ("torch", "numpy"):
        monkeypatch.setattr(keys, "installed", lambda asked, name=name: "9.9" if asked == name else "1.0")
        seen.append(key())
    assert len(set(seen)) == len(seen)


def test_what_no_number_depends_on_keeps_the_key(package: Path) -> None:
    first = key()
    (package / "model.py").write_text("# Eq. 2\ndef f(x):\n    '''Two times x.'''\n\n    return (2 * x)\n")
    (package / "figures.py").write_text("COLOUR = 'orange'\n")
    (package / "notes.txt").write_text("text")
    assert key() == first


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no_such_paper is not installed: run `make setup`"):
        run_key(CONFIG, ["no_such_paper"], "f00")


def test_a_configuration_with_nan_has_no_key(package: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        key({"theta": float("nan")})


RUNS = {
    "forward_forward": {
        "model": {"class_path": "forward_forward.module.ForwardForward", "init_args": {"hidden": [8]}},
        "data": {"dataset": "digits", "label_slots": "prepend"},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    },
    "rpgan_landscape": {
        "model": {"network": "cnn32", "width": 4, "evaluation": {"samples": 30, "score_samples": 30}},
        "data": {"dataset": "digits", "iterations": 1},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    },
}


@pytest.mark.parametrize("paper", RUNS)
def test_a_run_imports_nothing_that_its_key_leaves_out(paper: str, tmp_path: Path) -> None:
    """On a GPU a run imports the kernels' `triton.py` too, and these `aot`: a list of what to compile ahead of time."""
    if importlib.util.find_spec(paper) is None:
        pytest.skip(f"{paper} is not installed here")
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        f"from {paper}.experiment import data_fingerprint, run\n"
        "config = json.loads(sys.argv[1])\ndata_fingerprint(config)\nrun(config, 0, Path(sys.argv[2]))\n"
        f"print(*(m for m in sys.modules if m.split('.')[0] in ('shared', '{paper}')))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(RUNS[paper]), str(tmp_path)]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    imported = {m.partition(".")[2].replace(".", "/") for m in done.stdout.splitlines()[-1].split()}
    assert {"cli", "module"} <= imported
    left_out = {part.removesuffix(".py") for part in keys.NOT_IN_A_RUN}
    assert not {m for m in imported if any(m == part or m.startswith(part + "/") for part in left_out)}
