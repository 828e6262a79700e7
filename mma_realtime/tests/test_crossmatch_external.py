"""External notices: as they come, out of order, twice, retracted, and malformed."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.crossmatch.external import ExternalEvent, Externals, read_notice, spot
from mma_realtime.crossmatch.joint import overlap, ranges
from mma_realtime.errors import CrossMatchError

spec = importlib.util.spec_from_file_location("external_inputs", Path(__file__).with_name("external_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
voevent = inputs.voevent

GW170817 = 1187008882.43
GBM: dict[str, Any] = {
    "mission": "Fermi", "instrument": "GBM", "messenger": "EM", "alert_datetime": "2017-08-17T12:41:20Z",
    "alert_tense": "test", "alert_type": "initial", "trigger_time": "2017-08-17T12:41:06.47Z", "id": ["524666471"],
    "ra": 176.8, "dec": -39.8, "ra_dec_error": 11.6, "containment_probability": 0.6827,
}  # fmt: skip
ICECUBE: dict[str, Any] = {
    "type": "IceCube LVK Alert Nu Track Search", "ref_ID": "S230914ak", "alert_datetime": "2023-09-14T11:49:16.526Z",
    "trigger_time": "2023-09-14T11:14:01Z", "coincident_events": [
        {"event_dt": 12.91, "id": ["138590_1"], "event_pval_generic": 0.02,
         "localization": {"ra": 17.48, "dec": 16.15, "ra_dec_error": 0.5, "containment_probability": 0.9}},
        {"event_dt": -222.5, "id": ["138590_2"],
         "localization": {"ra": 13.8, "dec": 18.7, "ra_dec_error": 0.7}},
    ],
}  # fmt: skip


def test_a_burst_as_a_voevent() -> None:
    trigger = '<Param name="TrigID" value="524666471" ucd="meta.id"/>'
    (event,) = read_notice(b"\n" + voevent(params=trigger))
    assert (event.id, event.mission, event.kind) == ("Fermi 524666471", "Fermi", "GRB")
    assert (event.tense, event.alert_type) == ("test", "initial")
    assert event.gps == pytest.approx(GW170817 + 2.04, abs=0.02)
    assert event.sent - event.gps == pytest.approx(13.53, abs=0.01)
    assert (event.ra, event.dec) == (176.8, -39.8)
    assert event.sigma == pytest.approx(math.hypot(11.6, 3.7))  # Fermi's radius is one sigma
    assert event.ivorn == "ivo://nasa.gsfc.gcn/Fermi#GBM_524666471_1"


@pytest.mark.parametrize(
    ("role", "tense"), [("observation", "current"), ("prediction", "planned"), ("utility", "commanded")]
)
def test_a_role_is_a_tense(role: str, tense: str) -> None:
    assert read_notice(voevent(role=role))[0].tense == tense


@pytest.mark.parametrize(
    ("cite", "alert_type"), [("supersedes", "update"), ("retraction", "retraction"), ("followup", "subsequent")]
)
def test_a_voevent_that_cites_another_is_of_its_event(cite: str, alert_type: str) -> None:
    (first,) = read_notice(voevent(ivorn="ivo://nasa.gsfc.gcn/Fermi#GBM_524666471_0"))
    (second,) = read_notice(voevent(cite=cite))
    assert (second.id, second.alert_type) == (first.id, alert_type)


def test_a_neutrino_as_a_voevent_has_the_rate_whose_unit_it_says() -> None:
    ivorn = "ivo://amon/icecube_gold#1"
    (event,) = read_notice(voevent(ivorn, params='<Param name="FAR" value="3.65" unit="yr^-1"/>', radius=1.0))
    assert (event.mission, event.kind) == ("IceCube", "neutrino")
    assert event.far == pytest.approx(0.01 / 86400)
    assert event.sigma == pytest.approx(1 / math.sqrt(2 * math.log(10)))  # of 90 %
    assert read_notice(voevent(ivorn, params='<Param name="FAR" value="3.65"/>'))[0].far is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<no xml", "no XML"),
        (voevent().replace(b"</What>", b""), "no XML"),
        (voevent(role="rumour"), "schema"),
        (voevent(radius=200.0), "ra_dec_error"),
        (voevent(params='<Param name="FAR" value="often" unit="Hz"/>'), "FAR"),
        (voevent(params='<Param name="FAR" value="0" unit="Hz"/>'), "FAR"),
        (voevent(params=f'<Param name="TrigID" value="{"7" * 1001}"/>'), "TrigID"),
        (voevent(ivorn="ivo://nasa.gsfc.gcn/Fermi#" + "1" * 1000), "ivorn"),
        (voevent().replace(b"2017-08-17T12:41:06.47", b"2017-08-17T25:41:06"), "schema|ISOTime"),
    ],
)
def test_a_voevent_that_cannot_be_used_says_why(content: bytes, message: str) -> None:
    with pytest.raises(CrossMatchError, match=message):
        read_notice(content)


def read(notice: dict[str, Any], **changes: Any) -> ExternalEvent:
    return read_notice(json.dumps(notice | changes).encode())[0]


def test_a_burst_of_fermi() -> None:
    event = read(GBM)
    assert (event.id, event.kind, event.tense, event.real) == ("Fermi 524666471", "GRB", "test", False)
    assert event.gps - GW170817 == pytest.approx(2.04, abs=0.02)
    # 11.6 deg of 68.27 % in the plane is a sigma of 7.66 deg, and 3.7 deg are systematic.
    assert event.sigma == pytest.approx(math.hypot(11.6 / math.sqrt(-2 * math.log(1 - 0.6827)), 3.7))
    assert read(GBM, systematic_included=True).sigma == pytest.approx(7.66, abs=0.01)
    assert read(GBM, containment_probability=None).sigma == pytest.approx(
        math.hypot(11.6 / math.sqrt(2 * math.log(10)), 3.7)
    )


def test_swift_says_a_rate_and_a_place_without_error() -> None:
    event = read(GBM, mission="Swift", instrument="BAT-GUANO", far=1e-4, ra_dec_error=0, id=7)
    assert (event.id, event.far, event.sigma, event.kind) == ("Swift 7", 1e-4, 0.0, "GRB")


GUANO: dict[str, Any] = {
    "$schema": "https://gcn.nasa.gov/schema/v6.1.0/gcn/notices/swift/bat/guano.schema.json", "mission": "SWIFT",
    "instrument": "BAT-GUANO", "messenger": "EM", "record_number": 1, "alert_datetime": "2017-08-17T20:01:13Z",
    "alert_tense": "test", "alert_type": "initial", "trigger_time": "2017-08-17T12:41:06Z", "id": ["524666471"],
    "systematic_included": True, "rate_snr": 8.1, "rate_duration": 0.256, "rate_energy_range": [15, 350],
    "classification": {"GRB": 1}, "far": 2e-5, "follow_up_event": "S170817a", "follow_up_type": "GW",
}  # fmt: skip


def test_a_burst_of_a_mission_that_is_not_known_is_a_burst() -> None:
    """GECAM, say: its notice says what it is; without that it is looked at by its place alone."""
    assert read(GBM, mission="GECAM", classification={"GRB": 1}, id=7).kind == "GRB"
    assert read(GBM, mission="GECAM", id=7).kind == "optical"


def test_searches_below_threshold_are_known_by_their_names() -> None:
    """Swift's GUANO has no key that says so, and its notices write the mission in capitals."""
    event = read(GUANO)
    assert (event.mission, event.kind, event.subthreshold, event.far) == ("Swift", "GRB", True, 2e-5)
    assert event.id == "Swift 524666471"
    assert read(GUANO, instrument="BAT").subthreshold
    assert read(GUANO, **{"$schema": None}).subthreshold
    assert not read(GUANO, **{"$schema": None}, instrument="BAT").subthreshold
    fermi = "https://gcn.nasa.gov/schema/v6.1.0/gcn/notices/fermi/gbm/subthreshold.schema.json"
    assert read(GBM, **{"$schema": fermi}, far=1e-5).subthreshold
    assert not read(GBM).subthreshold
    ivorn = "ivo://nasa.gsfc.gcn/Fermi#GBM_SubThresh_2017-08-17T12:41:06.47_524666471_0-701"
    (event,) = read_notice(voevent(ivorn, params='<Param name="FAR" value="3e-5" unit="Hz"/>'))
    assert (event.subthreshold, event.far) == (True, pytest.approx(3e-5))
    assert not read_notice(voevent())[0].subthreshold


@pytest.mark.parametrize("mission", ["SWIFT", "swift", "Swift "])
def test_a_mission_is_the_same_in_capitals(mission: str) -> None:
    assert read(GUANO, mission=mission).id == read(GUANO).id


def test_a_follow_up_of_icecube_tells_several_neutrinos() -> None:
    first, second = read_notice(json.dumps(ICECUBE).encode())
    assert (first.mission, first.kind, first.superevent) == ("IceCube", "neutrino", "S230914ak")
    assert first.gps - second.gps == pytest.approx(12.91 + 222.5, abs=1e-6)
    assert first.sigma == pytest.approx(0.5 / math.sqrt(2 * math.log(10)))
    assert first.id != second.id


def test_a_map_is_its_bytes() -> None:
    assert read(GBM, healpix_file=base64.b64encode(b"SIMPLE").decode()).sky_map == b"SIMPLE"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ra": 400}, "'ra'"), ({"ra": None}, "one is missing"), ({"dec": "north"}, "'dec'"), ({"far": 0}, "'far'"),
        ({"far": 1e-320}, "'far'"), ({"far": 1e300}, "'far'"), ({"mission": "M" * 1001}, "'mission'"),
        ({"ivorn": "ivo://" + "i" * 1000}, "'ivorn'"), ({"id": "i" * 1001}, "'id'"), ({"id": " "}, "'id'"),
        ({"trigger_time": "9999-12-31T23:59:59-10:00"}, "'trigger_time'"),
        ({"far": -1e-9}, "'far'"), ({"far": True}, "'far'"), ({"alert_type": "final"}, "'alert_type'"),
        ({"alert_tense": "real"}, "'alert_tense'"), ({"trigger_time": "yesterday"}, "'trigger_time'"),
        ({"trigger_time": 5}, "'trigger_time'"), ({"alert_datetime": None}, "'alert_datetime'"), ({"id": []}, "'id'"),
        ({"id": None}, "'id'"), ({"mission": ""}, "'mission'"), ({"mission": 3}, "'mission'"),
        ({"containment_probability": 1.0}, "'containment_probability'"), ({"ra_dec_error": -1}, "'ra_dec_error'"),
        ({"healpix_file": "***"}, "base64"), ({"coincident_events": 4}, "no list"),
        ({"coincident_events": [4]}, "no object"),
        ({"coincident_events": [{"id": 1}]}, "event_dt"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(CrossMatchError, match=told):
        read(GBM, **changes)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"far": NaN}', b'{"ra": 1e999}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_notice_is_refused(content: bytes) -> None:
    with pytest.raises(CrossMatchError):
        read_notice(content)


def test_a_gigabyte_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mma_realtime.crossmatch import external

    monkeypatch.setattr(external.json, "loads", lambda *args, **kwargs: pytest.fail("it was parsed"))
    with pytest.raises(CrossMatchError, match="refused"):
        read_notice(bytes(external.LARGEST + 1))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sorted(GBM), "event_dt"]), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*GBM, "far", "healpix_file", "coincident_events", "messenger", "search"]), values)
)
def test_whatever_comes_is_read_or_refused(changes: dict[str, Any]) -> None:
    for notice in (GBM, ICECUBE):
        try:
            events = read_notice(json.dumps(notice | changes).encode())
        except CrossMatchError:
            continue
        for event in events:
            assert math.isfinite(event.gps)
            assert event.far is None or event.far > 0
            assert (event.ra is None) == (event.sigma is None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_refused_with_the_declared_error(content: bytes) -> None:
    with contextlib.suppress(CrossMatchError):
        read_notice(content)


def test_the_order_of_arrival_means_nothing() -> None:
    first = read(GBM)
    better = read(GBM, alert_type="update", alert_datetime="2017-08-17T12:55:00Z", ra=180.0, ra_dec_error=3.0)
    bare = read(GBM, alert_type="update", alert_datetime="2017-08-17T13:00:00Z", ra=None, dec=None, far=1e-5)
    gone = read(GBM, alert_type="retraction", alert_datetime="2017-08-17T14:00:00Z")
    for order in itertools.permutations([first, better, bare]):
        held = Externals(order).get(first.id)
        assert held is not None
        assert (held.ra, held.far, held.sent) == (180.0, 1e-5, bare.sent)
    for order in itertools.permutations([first, better, bare, gone]):
        externals = Externals(order)
        assert externals.standing() == []
        held = externals.get(first.id)
        assert held is not None
        assert held.alert_type == "retraction"


def test_a_duplicate_changes_nothing_and_an_older_one_neither() -> None:
    update = read(GBM, alert_type="update", alert_datetime="2017-08-17T12:55:00Z", far=1e-6)
    externals = Externals()
    assert externals.add(update)
    assert not externals.add(update)
    assert not externals.add(read(GBM))
    assert len(externals.standing()) == 1


def test_a_retraction_of_what_never_came_is_kept_for_it() -> None:
    gone = read(GBM, alert_type="retraction", alert_datetime="2017-08-17T14:00:00Z", trigger_time=None)
    externals = Externals([gone])
    assert not externals.add(read(GBM)) or externals.standing() == []
    assert externals.standing() == []


def test_voevents_that_cite_each_the_one_before_are_of_one_event() -> None:
    """Three versions and a retraction, as our own notices cite, in every order."""
    names = [f"ivo://nasa.gsfc.gcn/Fermi#GBM_524666471_{number}" for number in range(4)]
    cites = ["", "supersedes", "supersedes", "retraction"]
    packets = [
        voevent(names[n], cite=cites[n], cited=names[n - 1]).replace(b"T12:41:20", f"T12:4{n + 2}:20".encode())
        for n in range(4)
    ]
    events = [read_notice(packet)[0] for packet in packets]
    for order in itertools.permutations(events):
        externals = Externals()
        changed = {name for event in order for name in externals.add(event)}
        assert externals.standing() == []
        held = externals.get(f"Fermi {names[0]}")
        assert held is not None
        assert (held.alert_type, held.sent) == ("retraction", events[3].sent)
        assert [externals.get(f"Fermi {name}") for name in names[1:]] == [None] * 3
        assert f"Fermi {names[0]}" in changed
        assert externals.add(events[2]) == []
    (standing,) = Externals(events[2::-1]).standing()
    assert (standing.id, standing.sent) == (f"Fermi {names[0]}", events[2].sent)


def test_voevents_that_cite_each_other_in_a_circle_end() -> None:
    first, second = (f"ivo://nasa.gsfc.gcn/Fermi#GBM_{n}" for n in "12")
    circle = [voevent(first, cite="supersedes", cited=second), voevent(second, cite="supersedes", cited=first)]
    assert len(Externals(read_notice(packet)[0] for packet in circle).standing()) == 1


def test_a_citation_of_a_packet_with_a_trigger_number_is_of_its_event() -> None:
    first = read_notice(voevent(params='<Param name="TrigID" value="524666471"/>'))[0]
    gone = read_notice(voevent("ivo://nasa.gsfc.gcn/Fermi#GBM_R", cite="retraction", cited=first.ivorn or ""))[0]
    for order in itertools.permutations([first, gone]):
        externals = Externals(order)
        assert externals.standing() == []
        assert externals.get("Fermi 524666471") is not None


@pytest.mark.parametrize("sigma", [12.2, 1.0, 0.01])
@pytest.mark.parametrize("place", [(176.8, -39.8), (0.0, 90.0), (45.0, 41.81)])
def test_a_spot_adds_up_to_one_and_has_its_width(sigma: float, place: tuple[float, float]) -> None:
    found = spot(*place, sigma)
    first, end = ranges(found.uniq)
    order = np.argsort(first)
    assert first[order][0] == 0
    assert (first[order][1:] == end[order][:-1]).all()
    assert end[order][-1] == 12 * 4**29
    # int p^2 dOmega of exp(kappa cos d) is kappa coth(kappa) / (4 pi): a sum over pixels knows the width by it
    kappa = 1 / math.radians(sigma) ** 2
    expected = kappa / math.tanh(kappa)
    assert overlap(found, found) == pytest.approx(expected, rel=5e-3)


def test_two_spots_overlap_as_in_closed_form() -> None:
    """4 pi int p q for two von Mises-Fisher densities, kappa R / sinh of the resultant's length."""
    a, b, d = math.radians(5.0), math.radians(8.0), math.radians(11.0)
    ka, kb = 1 / a**2, 1 / b**2
    r = math.sqrt(ka**2 + kb**2 + 2 * ka * kb * math.cos(d))
    # sinh x is exp(x) / 2 here
    expected = ka * kb / r * 2 * math.exp(r - ka - kb)
    assert overlap(spot(100.0, 20.0, 5.0), spot(100.0, 31.0, 8.0)) == pytest.approx(expected, rel=2e-3)


def test_a_point_is_no_spot() -> None:
    with pytest.raises(CrossMatchError, match="density"):
        spot(0.0, 0.0, 0.0)


def test_ten_thousand_notices_a_second_are_read_and_kept() -> None:
    """Five seconds' worth; the bound is the rate itself."""
    import time

    contents = [json.dumps(GBM | {"id": str(i % 7000), "alert_datetime": f"2017-08-17T12:{i % 60:02d}:20Z"}).encode()
                for i in range(50_000)]  # fmt: skip
    externals = Externals()
    begin = time.process_time()
    for content in contents:
        for event in read_notice(content):
            externals.add(event)
    assert time.process_time() - begin < 5
