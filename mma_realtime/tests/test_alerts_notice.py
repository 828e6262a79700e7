"""Notices in both flavours: keys, strictness, round trips, and that each says it is a test."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mma_realtime.alerts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.alerts import notice as module
from mma_realtime.alerts.classify import SIGNALS, classify, p_astro
from mma_realtime.alerts.made_up import CREATED, FIRST, LOUDER, MODEL, PLACE, candidate, superevent
from mma_realtime.alerts.notice import (
    ExternalCoincidence,
    Notice,
    UnifiedNotice,
    headers_of,
    notice_of,
    unified_of,
)
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.alerts.voevent import read, voevent_of
from mma_realtime.errors import AlertError

FERMI = ExternalCoincidence(123, "ivo://x#1", "Fermi", "GRB", -1.7, 1e-6, 1e-8, b"map")
LOCATED = superevent().joined(LOUDER).located(replace(PLACE, masses=(36.0, 29.0)))


def told(**changes: Any) -> dict[str, Any]:
    return json.loads(notice_of(LOCATED, CREATED, FERMI).to_json()) | changes


def test_the_keys_are_those_of_the_specification() -> None:
    found = told()
    assert list(found) == ["alert_type", "time_created", "superevent_id", "urls", "event", "external_coinc"]
    assert set(found["event"]) == {
        "significant", "time", "far", "instruments", "group", "pipeline", "search", "properties", "classification",
        "duration", "central_frequency", "skymap",
    }  # fmt: skip
    assert set(found["external_coinc"]) == {
        "gcn_notice_id", "ivorn", "observatory", "search", "time_difference", "time_coincidence_far",
        "time_sky_position_coincidence_far", "combined_skymap",
    }  # fmt: skip
    assert set(found["event"]["properties"]) == {"HasNS", "HasRemnant", "HasMassGap"}
    assert set(found["event"]["classification"]) == {"BNS", "NSBH", "BBH", "Terrestrial"}
    assert found["alert_type"] == "INITIAL"
    assert found["superevent_id"] == "S150914a"
    assert found["event"]["far"] == 1e-5
    assert found["event"]["skymap"] == "U0lNUExFICA9"
    assert found["urls"]["model"] == f"urn:sha256:{MODEL}"


def test_a_retraction_has_no_event() -> None:
    found = json.loads(notice_of(LOCATED.retracted(), CREATED).to_json())
    assert found["alert_type"] == "RETRACTION"
    assert found["event"] is None
    assert found["external_coinc"] is None
    with pytest.raises(AlertError, match="a RETRACTION notice has an event"):
        Notice.from_json(json.dumps(told(alert_type="RETRACTION")).encode())
    with pytest.raises(AlertError, match="a INITIAL notice lacks its event"):
        Notice.from_json(json.dumps(told(event=None)).encode())


def lives() -> list[Superevent]:
    events = [superevent(), superevent(masses=(1.6, 1.4)), superevent(early_warning=True), LOCATED]
    events += [LOCATED.joined(candidate(far=1e-9)), LOCATED.retracted()]
    return events


@pytest.mark.parametrize("event", lives(), ids=lambda e: f"{e.state}{e.version}")
def test_round_trips(event: Superevent) -> None:
    notice, unified = notice_of(event, CREATED), unified_of(event, CREATED)
    assert Notice.from_json(notice.to_json()) == notice
    assert UnifiedNotice.from_json(unified.to_json()) == unified


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1e-20, 1e3), st.floats(0, 1e3), st.binary(min_size=1, max_size=200), st.booleans(),
    st.none() | st.tuples(st.floats(1, 100), st.floats(1, 100)), st.text(min_size=1, max_size=30),
)  # fmt: skip
def test_any_notice_round_trips(
    far: float, duration: float, fits: bytes, bound: bool, masses: tuple[float, float] | None, observatory: str
) -> None:
    pair = masses and (max(masses), min(masses))
    event = superevent(far=far, duration=duration, far_is_upper_limit=bound, masses=pair)
    event = event.located(replace(PLACE, fits=fits))
    notice = notice_of(event, CREATED, replace(FERMI, observatory=observatory, gcn_notice_id=None))
    assert Notice.from_json(notice.to_json()) == notice
    unified = unified_of(event, CREATED)
    assert UnifiedNotice.from_json(unified.to_json()) == unified
    kinds = notice.event.classification if notice.event else None
    assert kinds
    assert abs(kinds.BNS + kinds.NSBH + kinds.BBH + kinds.Terrestrial - 1) < 1e-6


def event(**changes: Any) -> dict[str, Any]:
    return told(event=told()["event"] | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (told(extra=1), "extra is no key"),
        ({k: v for k, v in told().items() if k != "urls"}, "urls is missing"),
        (event(far="1e-4"), "event.far is '1e-4': a number"),
        (event(far=0), "event.far is 0: out of its range"),
        (event(far=True), "event.far is 'True': a number"),
        (event(significant=1), "event.significant is 1"),
        (event(time="2015-09-14 09:50:45"), "event.time is"),
        (event(skymap="!!"), "event.skymap is no base64"),
        (event(skymap=""), "event.skymap is empty"),
        (event(group="Other"), "event.group is 'Other'"),
        (event(search="AllSky"), "event.search is 'AllSky': every notice of this program is of mock data, MDC"),
        (event(instruments="H1"), "event.instruments is no list"),
        (event(instruments=["H1", "H1"]), "one twice"),
        (event(instruments=[1]), "event.instruments is '1'"),
        (event(classification={"BNS": 0.5, "NSBH": 0, "BBH": 0, "Terrestrial": 0.4}), "adds up to 0.9, not to 1"),
        (event(classification={"BNS": 2, "NSBH": -1, "BBH": 0, "Terrestrial": 0}), "classification.BNS is 2"),
        (event(classification=[]), "event.classification is no object"),
        (event(properties={"HasNS": 1}), "event.properties.HasMassGap is missing"),
        (event(duration=-1), "event.duration is -1"),
        (told(alert_type="NEW"), "alert_type is 'NEW'"),
        (told(alert_type=["INITIAL"]), "alert_type is"),
        (told(urls={}), "urls.model"),
        (told(urls=[]), "urls is no object"),
        (told(urls={"model": 3}), "urls.model is 3"),
        (told(urls=told()["urls"] | {"a": 3}), "urls.a is '3'"),
        (told(superevent_id=7), "superevent_id is '7'"),
        (told(external_coinc=told()["external_coinc"] | {"time_coincidence_far": None}), "time_coincidence_far is"),
        (told(external_coinc=told()["external_coinc"] | {"gcn_notice_id": "1"}), "a whole number"),
    ],
)  # fmt: skip
def test_other_values_are_refused_by_name(content: dict[str, Any], message: str) -> None:
    with pytest.raises(AlertError, match=message):
        Notice.from_json(json.dumps(content).encode())


def test_numbers_that_are_none_twin_keys_and_depth_are_refused() -> None:
    text = notice_of(LOCATED, CREATED).to_json()
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        with pytest.raises(AlertError, match="no number of JSON"):
            Notice.from_json(text.replace(b'"far":1e-05', b'"far":' + number))
    with pytest.raises(AlertError, match=r"event\.far is 'inf': a number"):
        Notice.from_json(text.replace(b'"far":1e-05', b'"far":1e999'))
    with pytest.raises(AlertError, match="a key stands twice"):
        Notice.from_json(text.replace(b'"far":1e-05', b'"far":1e-05,"far":1'))
    for content in (b"[" * 100_000, b"", b"\xff", b"[]", b"{"):
        with pytest.raises(AlertError):
            Notice.from_json(content)


def test_what_is_too_large_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gigabyte(bytes):
        def __len__(self) -> int:
            return 10**9

    monkeypatch.setattr(module.json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    for parse in (Notice.from_json, UnifiedNotice.from_json):
        with pytest.raises(AlertError, match="1,000,000,000 bytes is refused"):
            parse(Gigabyte())
    huge = superevent().located(replace(PLACE, fits=bytes(module.LARGEST)))
    with pytest.raises(AlertError, match="too large"):
        notice_of(huge, CREATED).to_json()


KEYS = [*told(), *told()["event"]]
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from(KEYS))
def test_anything_in_place_of_a_value_is_read_or_refused(value: Any, key: str) -> None:
    content = told(**{key: value}) if key in told() else event(**{key: value})
    for each in (content, value):
        try:
            notice = Notice.from_json(json.dumps(each).encode())
        except AlertError:
            continue
        assert Notice.from_json(notice.to_json()) == notice


@pytest.mark.parametrize(
    ("masses", "kind", "properties"),
    [
        ((1.6, 1.4), "BNS", (1, 1, 0)),
        ((2.999, 2.999), "BNS", (1, 1, 0)),
        ((3.0, 2.0), "NSBH", (1, 0, 1)),
        ((10.0, 1.4), "NSBH", (1, 0, 0)),
        ((10.0, 3.0), "BBH", (0, 0, 1)),
        ((36.0, 29.0), "BBH", (0, 0, 0)),
    ],
)
def test_kinds_by_masses(masses: tuple[float, float], kind: str, properties: tuple[int, int, int]) -> None:
    found, has = classify(candidate(masses=masses))
    assert getattr(found, kind) == found.p_astro == p_astro(1e-4)
    assert has is not None
    assert (has.HasNS, has.HasRemnant, has.HasMassGap) == properties


def test_without_masses_the_kind_is_assumed_and_every_flavour_says_so() -> None:
    unknown = superevent().joined(LOUDER).located(PLACE)
    astro = p_astro(unknown.preferred.far)
    found = json.loads(notice_of(unknown, CREATED).to_json())["event"]
    assert found["properties"] is None
    assert found["classification"] == {"BNS": 0.0, "NSBH": 0.0, "BBH": astro, "Terrestrial": 1 - astro}
    unified = json.loads(unified_of(unknown, CREATED).to_json())
    assert "classification" not in unified
    assert unified["p_astro"] == astro
    assert headers_of(unknown, Origin.SIMULATED)["classification"] == "assumed"
    params = read(voevent_of(superevent(), Origin.SIMULATED, CREATED)).params
    assert params["ClassifiedBy"] == "assumed"
    assert [name for name in params if name.startswith("Properties")] == []
    assert headers_of(LOCATED, Origin.SIMULATED)["classification"] == "masses"
    assert json.loads(unified_of(LOCATED, CREATED).to_json())["classification"]["BBH"] == p_astro(1e-5)


def test_the_masses_come_with_the_map_and_go_with_it() -> None:
    assert LOCATED.preferred.masses == (36.0, 29.0)
    assert superevent(masses=(1.6, 1.4)).located(replace(PLACE, masses=(36.0, 29.0))).preferred.masses == (1.6, 1.4)
    assert LOCATED.joined(candidate(far=1e-9)).preferred.masses is None
    assert Superevent.from_json(LOCATED.to_json(), PLACE.fits) == LOCATED


def test_p_astro_is_one_half_where_chance_and_signals_are_as_frequent() -> None:
    assert p_astro(SIGNALS) == 0.5
    assert classify(candidate(far=SIGNALS))[0].Terrestrial == 0.5
    assert p_astro(1e-300) == 1.0


def test_the_unified_flavour_says_that_it_is_an_injection() -> None:
    found = json.loads(unified_of(LOCATED, CREATED).to_json())
    assert found["messenger"] == "GW"
    assert found["alert_tense"] == "injection"
    assert found["alert_type"] == "subsequent"
    assert (found["ra"], found["dec"], found["ra_dec_error"]) == (116.25, -69.5, 7.5)
    assert found["id"] == ["S150914a"]
    assert MODEL in found["additional_info"]
    assert json.loads(unified_of(LOCATED.retracted(), CREATED).to_json())["alert_type"] == "retraction"
    for tense in ("current", None):
        with pytest.raises(AlertError, match="alert_tense is not injection"):
            UnifiedNotice.from_json(json.dumps(found | {"alert_tense": tense}).encode())


UNIFIED = json.loads(unified_of(LOCATED, CREATED).to_json())


@settings(max_examples=100, deadline=None)
@given(VALUES, st.sampled_from(list(UNIFIED)))
def test_anything_in_place_of_a_unified_value_is_read_or_refused(value: Any, key: str) -> None:
    try:
        notice = UnifiedNotice.from_json(json.dumps(UNIFIED | {key: value}).encode())
    except AlertError:
        return
    assert UnifiedNotice.from_json(notice.to_json()) == notice


def test_no_role_but_a_tests_is_written_anywhere_in_the_package() -> None:
    """Constants of the sources, argument names included: other roles and tenses could only come from one of them."""
    allowed = {"origin.py"}
    for path in sorted(Path(mma_realtime.alerts.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text())
        documented = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented:
                words = {"observation", "prediction", "utility", "current", "archival", "planned", "commanded"}
                if path.name == "voevent.py" and node.value == "observation":  # the schema's default, when reading
                    continue
                assert node.value not in words, f"{path.name}:{node.lineno}"
                if path.name not in allowed:
                    assert node.value not in {"test", "injection"}, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.FunctionDef):
                names = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
                assert not names & {"role", "tense", "alert_tense"}, f"{path.name}: {node.name}"


@pytest.mark.parametrize("origin", Origin)
def test_every_origin_gives_a_test(origin: Origin) -> None:
    headers = headers_of(LOCATED, origin)
    assert (headers["role"], headers["alert_tense"], headers["origin"]) == ("test", "injection", origin.value)
    assert headers["model"] == MODEL
    assert headers["version"] == "3"
    assert FIRST.far_is_upper_limit is False
    assert headers["far_is_upper_limit"] == "false"
    assert json.loads(notice_of(LOCATED, CREATED).to_json())["event"]["search"] == "MDC"
