"""The commands as a user types them: stream, search and slides, with a network by hand or an untrained one."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import SearchError, StrainError
from mma_realtime.models import build
from mma_realtime.search import __main__ as search
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.replay import Progress, Replay
from shared.errors import one_line_errors

from mma_realtime import models, slides, stream

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
START = inputs.START


@pytest.fixture(autouse=True)
def known_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.NETWORKS, "template", inputs.Template)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    inputs.template_model(time_offset=-0.1, trained_as="by hand").save(tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """For jobs, which are processes of their own and do not know the template."""
    torch.manual_seed(0)
    model = SearchModel(Recipe("deepfilter_shallow", threshold=0.05), [build("deepfilter_shallow")])
    model.save(tmp_path / "untrained.pt")
    return tmp_path / "untrained.pt"


@pytest.fixture
def event(tmp_path: Path) -> Path:
    write_npz(inputs.strain_with(16.4, seconds=32), tmp_path / "event.npz")
    return tmp_path / "event.npz"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_replayed_event_is_found_and_ranked_above_every_slide(
    event: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert stream.main(["--replay", str(event), "--checkpoint", str(checkpoint), "--json", str(out)]) == 0
    found = read(out)
    loudest = max(found["triggers"], key=lambda t: t["statistic"])
    assert loudest["gps"] == pytest.approx(START + 16.4, abs=0.15)
    assert loudest["utc"].startswith("2011-09-14T01:46:41")
    assert loudest["far_is_upper_limit"]
    assert loudest["far_hz"] == pytest.approx(1 / 2000, rel=0.5)
    independent = loudest["far_independent_hz"]  # all slides, 0.25 s apart, would say 8 times as little
    assert loudest["far_hz"] < independent / 5
    assert loudest["p_value"] == pytest.approx(1 - np.exp(-independent * found["searched_s"]))
    assert 0 < loudest["p_value"] < 0.1
    assert loudest["statistic"] > found["background"]["loudest"] / 2
    background = found["background"]
    assert background["livetime_s"] >= 2000
    assert background["correlated"]
    assert background["independent_livetime_s"] < background["livetime_s"] / 4
    assert found["model"]["trained_as"] == "by hand"
    assert len(found["model"]["sha256"]) == 64
    text = capsys.readouterr().out
    assert "< 1 per" in text
    assert "are independent" in text
    assert "H1 and L1" in text
    assert f"{loudest['gps']:.3f}" in text  # whole also on a narrow terminal
    assert f"{loudest['p_value']:.2g}" in text  # at 80 columns too


def test_noise_alone_gives_no_candidate(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_npz(inputs.strain_with(seconds=32), tmp_path / "noise.npz")
    args = ["--replay", str(tmp_path / "noise.npz"), "--checkpoint", str(checkpoint), "--threshold", "6"]
    assert stream.main(args) == 0
    assert "no trigger above 6" in capsys.readouterr().out


@pytest.mark.slow
def test_a_replay_that_was_stopped_goes_on_and_ends_the_same(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strain"
    folder.mkdir()
    strain = inputs.strain_with(20.4, 60.2, seconds=70)
    write_npz(strain, folder / "a.npz")
    write_npz(replace(inputs.strain_with(16.4, seconds=32, seed=3), gps_start=START + 500), folder / "b.npz")
    model = SearchModel.load(checkpoint)
    whole = Replay(model, [folder])
    for _ in whole.run():
        pass
    assert [round(t.gps - START - 0.1) for t in whole.progress.triggers if t.statistic > 12] == [20, 60, 516]
    assert [s.gps_start for s in whole.progress.stretches] == [START + 1, START + 501]
    state = tmp_path / "state"
    for stop in (1, 21, 61, 75, 200):
        replay = Replay(model, [folder], state=state)
        for i, _ in enumerate(replay.run()):
            if i == stop:
                replay.save()  # and killed
                break
    resumed = Replay(model, [folder], state=state)
    for _ in resumed.run():
        pass
    assert resumed.progress.triggers == whole.progress.triggers
    for a, b in zip(resumed.progress.stretches, whole.progress.stretches, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    half = Replay(model, [folder], state=tmp_path / "half")
    for i, _ in enumerate(half.run()):
        if i == 30:
            half.save()
            break
    assert half.progress.state is not None
    content = Progress.from_bytes((tmp_path / "half").read_bytes(), tmp_path / "half")
    content.state = replace(half.progress.state, fingerprint="of code that is gone")
    (tmp_path / "half").write_bytes(content.to_bytes())
    with pytest.raises(SearchError, match="another model or conditioning"):  # and the stretch is not passed over
        through(Replay(model, [folder], state=tmp_path / "half"))
    state.write_bytes(b"torn")
    with pytest.raises(SearchError, match="no state of a replay"):
        Replay(model, [folder], state=state)


def through(replay: Replay) -> Replay:
    for _ in replay.run():
        pass
    return replay


def test_a_state_is_of_one_replay_and_no_other(event: Path, checkpoint: Path, tmp_path: Path) -> None:
    model, state = SearchModel.load(checkpoint), tmp_path / "state"
    first = through(Replay(model, [event], state=state))
    moved = event.rename(tmp_path / "moved.npz")
    again = Replay(model, [moved], state=state, threshold=model.recipe.threshold)
    assert through(again).progress.triggers == first.progress.triggers
    assert again.progress.hops == first.progress.hops  # nothing was pushed again
    write_npz(inputs.strain_with(20.4, seconds=32, seed=7), tmp_path / "same_seconds.npz")
    write_npz(replace(inputs.strain_with(seconds=32), gps_start=START + 400), tmp_path / "later.npz")
    other = inputs.template_model(time_offset=-0.2)
    for given, says in (
        (
            {"paths": [tmp_path / "same_seconds.npz"]},
            r"other contents of the files \(SHA-256 \w+ then, SHA-256 \w+ now",
        ),
        (
            {"paths": [tmp_path / "later.npz"]},
            r"other strain \(H1 GPS 1000000000 to .* then, H1 GPS 1000000400 to .* now",
        ),
        ({"model": other}, rf"other model \(SHA-256 {model.checksum} then, SHA-256 {other.checksum} now\): give"),
        ({"threshold": 7.5}, r"other threshold \(0 then, 7\.5 now\): give another --state, or delete this one"),
        ({"noise": "trailing"}, r"other PSD \(auto then, trailing now\)"),
        ({"hop": 0.5}, r"other hop \(1 then, 0\.5 now\)"),
    ):
        with pytest.raises(SearchError, match=says):
            Replay(**{"model": model, "paths": [moved], "state": state} | given)


def test_a_state_of_another_version_is_refused(event: Path, checkpoint: Path, tmp_path: Path) -> None:
    head = {"triggers": [], "stretches": [], "open": False, "hops": 0}  # as it was before there were formats
    with (tmp_path / "state").open("wb") as file:
        np.savez(file, head=np.frombuffer(json.dumps(head).encode(), np.uint8))
    with pytest.raises(SearchError, match=r"state was written by another version .* delete it to start anew"):
        Replay(SearchModel.load(checkpoint), [event], state=tmp_path / "state")


def test_the_psd_is_chosen_by_the_whole_stretch_and_told(
    event: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_realtime.search.stretch.BLOCK", 40)  # the first block alone would be a short stretch
    long = replace(inputs.strain_with(20.4, seconds=70), gps_start=START + 500)
    write_npz(long, tmp_path / "long.npz")
    out = tmp_path / "out.json"
    args = ["--replay", str(event), str(tmp_path / "long.npz"), "--checkpoint", str(checkpoint), "--json", str(out)]
    assert stream.main(args) == 0
    found = read(out)
    told = [(s["gps_start"], s["gps_end"], s["psd"]) for s in found["stretches"]]
    assert told == [(START, START + 32, "file"), (START + 500, START + 570, "trailing")]
    assert sum(s["livetime_s"] for s in found["stretches"]) == found["searched_s"]
    assert {t["model_sha256"] for t in found["triggers"]} == {SearchModel.load(checkpoint).checksum}
    text = capsys.readouterr().out
    assert "psd: file, of the whole stretch (GPS 1000000000 to 1000000032)" in text
    assert "psd: trailing, of the seconds before each second (GPS 1000000500 to 1000000570)" in text
    assert stream.main([*args, "--psd", "file"]) == stream.FAILED  # 70 s are longer than what is held at once
    assert "failed GPS 1000000500 to 1000000570 are 70 s, and --psd file holds all" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("psd", ["auto", "trailing", "file"])
def test_strain_in_which_nothing_can_be_found_is_an_error(psd: str, untrained: Path, tmp_path: Path) -> None:
    good = inputs.strain_with(seconds=20)
    dead, lost = good.values.copy(), good.values.copy()
    dead[1], lost[0] = 0.0, np.nan
    for name, strain, says in (
        ("dead", replace(good, values=dead), r"L1, GPS 1000000000 to 1000000020: every second is a gap \(one constant"),
        ("lost", replace(good, values=lost), r"H1, GPS 1000000000 to 1000000020: every second is a gap \(NaN\)"),
        ("short", good.slice(START, START + 6), r"H1, GPS .* to 1000000006: the longest gapless stretch is 6 s"),
    ):
        write_npz(strain, file := tmp_path / f"{name}.npz")
        for main, args in (
            (stream.main, ["--replay", str(file), "--psd", psd]),
            (search.main, [str(file), "--psd", psd, "--jobs", "1", "--runs", str(tmp_path / "runs")]),
            (slides.main, [str(file), "--psd", psd]),
        ):
            with pytest.raises((SearchError, StrainError), match=rf"{name}\.npz, {says}"):
                main([*args, "--checkpoint", str(untrained)])


def test_strain_that_a_trailing_psd_uses_up_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    write_npz(inputs.strain_with(seconds=10), file := tmp_path / "ten.npz")
    common = ["--checkpoint", str(checkpoint)]
    with pytest.raises(SearchError, match=r"ten\.npz, H1 and L1, GPS .* to 1000000010: no window has a score: .* 10 s"):
        stream.main(["--replay", str(file), "--psd", "trailing", *common])
    assert stream.main(["--replay", str(file), *common]) == 0  # as a whole they are enough


def test_a_stretch_that_fails_is_told_and_the_others_are_searched(
    event: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = inputs.strain_with(seconds=20)
    write_npz(replace(dead, values=dead.values * [[1.0], [0.0]], gps_start=START + 400), tmp_path / "dead.npz")
    out, state = tmp_path / "out.json", tmp_path / "state"
    args = ["--replay", str(event), str(tmp_path / "dead.npz"), "--checkpoint", str(checkpoint), "--json", str(out)]
    for _ in range(2):  # the second time from the state
        assert stream.main([*args, "--state", str(state)]) == stream.FAILED
        found = read(out)
        assert found["triggers"][0]["gps"] == pytest.approx(START + 16.4, abs=0.15)
        (why,) = found["failed"].values()
        assert f"{tmp_path}/dead.npz, L1, GPS 1000000400 to 1000000420: every second is a gap" in why
        assert "failed" in capsys.readouterr().out


def test_a_stretch_that_lacks_a_detector_is_told(
    event: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = replace(inputs.strain_with(seconds=20).select("H1"), gps_start=START + 400)
    write_npz(alone, tmp_path / "alone.npz")
    args = ["--replay", str(event), str(tmp_path / "alone.npz"), "--checkpoint", str(checkpoint)]
    assert stream.main(args) == stream.FAILED
    assert "failed no file has strain of L1 in GPS 1000000400 to 1000000420" in capsys.readouterr().out


def test_a_detector_that_is_dead_for_a_part_is_a_gap(checkpoint: Path, tmp_path: Path) -> None:
    strain = inputs.strain_with(60.4, seconds=80)
    strain.values[1, 20 * inputs.FS : 40 * inputs.FS] = 0.0
    write_npz(strain, file := tmp_path / "part.npz")
    out = tmp_path / "out.json"
    assert stream.main(["--replay", str(file), "--checkpoint", str(checkpoint), "--json", str(out)]) == 0
    found = read(out)
    assert 40 < found["searched_s"] < 50
    assert max(found["triggers"], key=lambda t: t["statistic"])["gps"] == pytest.approx(START + 60.4, abs=0.15)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "loud"])
def test_a_threshold_is_a_finite_number(value: str, event: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mains = ((stream.main, ["--replay", str(event)]), (search.main, [str(event)]), (slides.main, [str(event)]))
    for main, args in mains:
        with pytest.raises(SystemExit) as stop:
            main([*args, f"--threshold={value}"])
        assert stop.value.code == 2
        assert f"argument --threshold: {value} is no finite number" in capsys.readouterr().err


def test_slides_tell_what_a_rate_costs(
    event: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [str(event), "--checkpoint", str(checkpoint)]
    out = tmp_path / "out.json"
    far = 30 * 86400 / 500.0
    args = [*common, "--on-source", str(START + 16.4), "--threshold", "-3", "--far", str(far), "--json", str(out)]
    assert slides.main(args) == 0
    found = read(out)
    assert found["background"]["livetime_s"] >= 2000
    assert found["psd"] == "file"
    statistic = found["statistic_at_far_per_month"][f"{far:g}"]
    assert -3 < statistic <= found["background"]["loudest"] + 1e-9
    assert f"{statistic:.3f}" in capsys.readouterr().out
    with pytest.raises(SearchError, match=r"too short for a false-alarm rate .* are needed"):
        slides.main([*common, "--far", "1"])
    with pytest.raises(SearchError, match=r"slide step of 0\.5 s is shorter than the window and 1 s"):
        slides.main([*common, "--step", "0.5"])
    assert slides.main([*common, "--step", "0.5", "--correlated"]) == 0
    assert slides.main([*args, "--psd", "trailing"]) == 0
    other = read(out)
    assert other["psd"] == "trailing"
    assert other["background"]["loudest"] != found["background"]["loudest"]


def test_a_model_is_read_back_and_named_by_its_sum(checkpoint: Path, tmp_path: Path) -> None:
    model = SearchModel.load(checkpoint)
    assert model.recipe == Recipe("template", {"channels": 1}, time_offset=-0.1, trained_as="by hand")
    assert model.window == 1.0
    x = torch.randn(2, 2048, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.series(x, 64), inputs.template_model().series(x, 64))
    changed = SearchModel(replace(model.recipe, threshold=1.0), model.members)
    assert changed.checksum != model.checksum
    for content in (b"", b"nothing", checkpoint.read_bytes()[:2000]):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(SearchError, match="is not a search model"):
            SearchModel.load(tmp_path / "bad.pt")
    torch.save({"format": 0, "recipe": {}, "members": []}, tmp_path / "old.pt")
    with pytest.raises(SearchError, match="format 0, this program reads 1"):
        SearchModel.load(tmp_path / "old.pt")


def test_members_are_combined_as_the_recipe_says() -> None:
    torch.manual_seed(0)
    members = [build("deepfilter_shallow") for _ in range(3)]
    x = torch.randn(2, 1500)
    each = torch.stack([SearchModel(Recipe("deepfilter_shallow"), [m]).series(x, 64) for m in members])
    for combine, expected in (("mean", each.mean(0)), ("min", each.amin(0))):
        recipe = Recipe("deepfilter_shallow", combine=combine)  # type: ignore[arg-type]
        torch.testing.assert_close(SearchModel(recipe, members).series(x, 64), expected)
    with pytest.raises(SearchError, match="combined by mean or min"):
        SearchModel(Recipe("deepfilter_shallow", combine="max"), members)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="1 channel"):
        SearchModel(Recipe("deepfilter_shallow", detectors=("H1", "L1")), members)


def test_errors_are_one_line_and_status_two(event: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, args in (
        (stream.main, ["--replay", str(event), "--checkpoint", "nowhere.pt"]),
        (stream.main, ["--replay", "nowhere.npz", "--checkpoint", str(checkpoint)]),
        (stream.main, ["--replay", str(event), "--checkpoint", str(checkpoint), "--hop", "0.3"]),
        (search.main, ["nowhere.npz", "--checkpoint", str(checkpoint)]),
    ):
        with pytest.raises(SystemExit) as stop, one_line_errors():
            main(args)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_a_model_of_two_detectors_together_is_slid_by_looking_again(
    event: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs.template_model(("H1", "L1"), threshold=4.0).save(tmp_path / "pair.pt")
    common = ["--checkpoint", str(tmp_path / "pair.pt")]
    out = tmp_path / "out.json"
    common += ["--json", str(out)]
    assert slides.main([str(event), *common, "--on-source", str(START + 16.4)]) == 0
    alone = read(out)["background"]
    assert alone["livetime_s"] >= 2000
    # 60,000 windows over all slides; the stretch has 489, of which the last ends half a second before it does.
    assert f"at most {60_000 // 489} slides of a stretch" in capsys.readouterr().out.replace("\n", " ")
    assert stream.main(["--replay", str(event), *common]) == 0
    loudest = max(read(out)["triggers"], key=lambda t: t["statistic"])
    assert loudest["far_is_upper_limit"]
    assert loudest["far_hz"] == pytest.approx(1 / alone["livetime_s"], rel=0.05)
    assert "H1+L1" in capsys.readouterr().out
