"""Readers of what comes from outside, fed with damaged bytes until something other than their declared error comes out.

    pip install -e "mma_realtime[fuzz]"
    python mma_realtime/benchmarks/fuzz.py --minutes 2               # every reader, two minutes each
    python mma_realtime/benchmarks/fuzz.py --target fits --minutes 10

Atheris (libFuzzer) mutates the inputs in `tests/corpus/<reader>/` and keeps those that reach new code, in a folder of
its own; the shortest of them join the committed corpus with `--keep N`. A crash is written to it as `crash-<hash>`, and
the exit status is 1: mend the reader, and the file stays as its test. `tests/test_fuzz_corpus.py`
runs the committed corpus through the readers without Atheris. Writes `fuzz.json`: runs, seconds and what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "tests" / "corpus"
LARGEST_INPUT = 1 << 16  # bytes: torn headers and lengths that lie need no more
MEMORY_MB = 2048  # above it a reader has believed a length that lies


class Target(NamedTuple):
    """A reader of bytes, what it may raise, and the packages whose branches are to be reached."""

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]


def _from_file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of files as one of bytes."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    path = Path(folder.name) / f"input{suffix}"

    def run(content: bytes, folder: object = folder) -> object:
        path.write_bytes(content)
        return read(path)

    return run


def targets() -> dict[str, Target]:
    """All readers of section 10 and 3 that take bytes from outside."""
    from mma_realtime.alerts.notice import Notice, UnifiedNotice
    from mma_realtime.alerts.voevent import read as read_voevent
    from mma_realtime.bus import vtp
    from mma_realtime.crossmatch.external import read_notice
    from mma_realtime.crossmatch.made_up import LSST
    from mma_realtime.crossmatch.survey import PacketReader
    from mma_realtime.data import mlgwsc
    from mma_realtime.data.strain import read_strain
    from mma_realtime.errors import AlertError, CrossMatchError, SearchError, SkyMapError, StrainError
    from mma_realtime.sky.fits import read_fits

    def strain(path: Path) -> object:
        return read_strain(path, sample_rate=64, psd_seconds=1)

    def wire(content: bytes) -> object:
        return [vtp.parse(message) for message in vtp.Framer(1 << 16).feed(content)]

    return {
        "voevent": Target(read_voevent, (AlertError,)),
        "vtp": Target(wire, (vtp.WireError,)),
        "external": Target(read_notice, (CrossMatchError,)),
        "notice": Target(Notice.from_json, (AlertError,)),
        "unified": Target(UnifiedNotice.from_json, (AlertError,)),
        "survey": Target(PacketReader({1: LSST}).read, (CrossMatchError,)),
        "fits": Target(read_fits, (SkyMapError,)),
        "strain_hdf5": Target(_from_file(".hdf5", strain), (StrainError,)),
        "strain_npz": Target(_from_file(".npz", strain), (StrainError,)),
        "events_hdf5": Target(_from_file(".hdf5", mlgwsc.read_events), (SearchError,)),
    }


def feed(target: Target, content: bytes) -> bool:
    """Whether the reader took it; what it may not raise comes through."""
    try:
        target.read(content)
    except target.errors:
        return False
    return True


def seeds() -> dict[str, list[bytes]]:
    """Whole inputs to begin with, as small as they can be made."""
    import fastavro
    import h5py
    import numpy as np
    from mma_realtime.alerts.made_up import CREATED, PLACE, superevent
    from mma_realtime.alerts.notice import notice_of, unified_of
    from mma_realtime.alerts.origin import Origin
    from mma_realtime.alerts.voevent import voevent_of
    from mma_realtime.bus import vtp
    from mma_realtime.crossmatch.made_up import packets
    from mma_realtime.data import mlgwsc
    from mma_realtime.data.strain import Strain, write_npz
    from mma_realtime.sky import fits
    from mma_realtime.sky.moc import FIRST_UNIQ
    from mma_realtime.sky.skymap import SkyMap

    first = superevent(masses=(36.0, 29.0))
    located = first.located(PLACE)
    voevents = [
        voevent_of(located, Origin.SIMULATED, CREATED, first),
        voevent_of(located.retracted(), Origin.REPLAYED, CREATED, located),
    ]
    burst = {
        "$schema": "https://gcn.nasa.gov/schema/v4/gcn/notices/fermi/gbm/alert.schema.json", "mission": "Fermi",
        "instrument": "GBM", "id": ["bn170817529"], "alert_datetime": "2017-08-17T12:41:20Z", "alert_type": "initial",
        "trigger_time": "2017-08-17T12:41:06Z", "ra": 176.8, "dec": -39.8, "ra_dec_error": 11.6, "far": 1e-6,
        "containment_probability": 0.68,
    }  # fmt: skip
    guano = {
        "$schema": "https://gcn.nasa.gov/schema/v6.1.0/gcn/notices/swift/bat/guano.schema.json", "mission": "SWIFT",
        "instrument": "BAT-GUANO", "id": ["1"], "alert_datetime": "2017-08-17T12:41:20Z", "alert_type": "initial",
        "trigger_time": "2017-08-17T12:41:06Z", "far": 1e-5,
    }  # fmt: skip
    neutrinos = {
        "type": "IceCube LVK Alert Nu Track Search", "ref_ID": "S170817a", "alert_datetime": "2017-08-17T12:50:00Z",
        "trigger_time": "2017-08-17T12:41:04Z", "id": "1",
        "coincident_events": [{"id": "a", "event_dt": -2.0, "localization": {"ra": 10, "dec": 5, "ra_dec_error": 1}}],
    }  # fmt: skip
    (ztf, _), = packets(1, 5, 1187008882.4, 3000, "ZTF")  # fmt: skip
    small = [_without_images(ztf, fastavro)]
    packet = {"objectId": "a", "candid": 1, "candidate": {"jd": 2457983.0285, "ra": 1.0, "dec": 2.0}}
    uniq = FIRST_UNIQ[1] + np.arange(48)
    sky = SkyMap(uniq, np.full(48, 1 / (4 * np.pi)))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        strain = Strain(
            ("H1", "L1"), 1126259450, 64, 1e-21 * np.sin(np.arange(512)).reshape(2, 256), np.ones((2, 4), dtype=bool)
        )
        write_npz(strain, here / "a.npz")
        mlgwsc.write_strain(here / "a.hdf5", strain)
        mlgwsc.write_events(here / "e.hdf5", mlgwsc.Events(np.array([1.0]), np.array([9.0]), np.array([0.2])))
        with h5py.File(here / "g.hdf5", "w") as file:
            data = file.create_dataset("strain/Strain", data=np.sin(np.arange(256)) * 1e-21)
            data.attrs["Xspacing"] = 1 / 64
            file["meta/GPSstart"], file["meta/Duration"], file["meta/Detector"] = 1126259450, 4, "H1"
            for kind in ("simple", "injections"):
                file[f"quality/{kind}/DQmask"] = np.full(4, 127)
                file[f"quality/{kind}/DQShortnames"] = [b"DATA"]
        hdf5, gwosc, npz, events = (
            (here / n).read_bytes() for n in ("a.hdf5", "g.hdf5", "a.npz", "e.hdf5")
        )  # fmt: skip
    return {
        "voevent": voevents,
        "vtp": [vtp.frame(voevents[0]), vtp.frame(vtp.transport("iamalive", "ivo://a/b"))],
        "external": [
            json.dumps(burst).encode(),
            json.dumps(neutrinos).encode(),
            voevents[0],
            json.dumps(guano).encode(),
        ],
        "notice": [notice_of(located, CREATED).to_json()],
        "unified": [unified_of(located, CREATED).to_json()],
        "survey": [*small, json.dumps(packet).encode()],
        "fits": [fits.to_bytes(sky)],
        "strain_hdf5": [hdf5, gwosc],
        "strain_npz": [npz],
        "events_hdf5": [events],
    }


def _without_images(content: bytes, fastavro: object) -> bytes:
    reader = fastavro.reader(io.BytesIO(content))  # type: ignore[attr-defined]
    record = next(iter(reader))
    for name in list(record):
        if name.startswith(("cutout", "prv_")):
            record[name] = None
    out = io.BytesIO()
    fastavro.writer(out, reader.writer_schema, [record])  # type: ignore[attr-defined]
    return out.getvalue()


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write_seeds() -> int:
    """Lay the first inputs where the corpus is; how many were new."""
    new = 0
    for name, contents in seeds().items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for content in contents:
            path = CORPUS / name / name_of(content)
            new += not path.exists()
            path.write_bytes(content)
    return new


def fuzz_one(name: str, seconds: int, folder: Path) -> None:
    """In a process of its own: libFuzzer never returns."""
    import atheris

    with atheris.instrument_imports(include=["mma_realtime"]):
        target = targets()[name]

    def one(content: bytes) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            feed(target, content)

    atheris.Setup(
        [
            sys.argv[0], str(folder), str(CORPUS / name), f"-max_total_time={seconds}", f"-max_len={LARGEST_INPUT}",
            f"-rss_limit_mb={MEMORY_MB}", "-timeout=20", f"-artifact_prefix={CORPUS / name}/", "-print_final_stats=1",
        ],
        one,
    )  # fmt: skip
    atheris.Fuzz()


def fuzz(name: str, seconds: int, keep: int) -> dict[str, object]:
    """Fuzz one reader; the row of `fuzz.json`."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}") as folder:
        command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds), "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        stats = {
            line.split()[0].removeprefix("stat::").rstrip(":"): int(line.split()[1])
            for line in done.stderr.splitlines()
            if line.startswith("stat::")
        }
        reached = sorted(Path(folder).iterdir(), key=lambda path: (path.stat().st_size, path.name))
        for path in reached[:keep]:
            content = path.read_bytes()
            (CORPUS / name / name_of(content)).write_bytes(content)
        row: dict[str, object] = {
            "runs": stats.get("number_of_executed_units", 0),
            "seconds": seconds,
            "inputs that reached new code": len(reached),
            "peak memory (MB)": stats.get("peak_rss_mb", 0),
            "passed": done.returncode == 0,
        }
        if done.returncode:
            row["error"] = next(
                (line for line in done.stderr.splitlines() if "Uncaught" in line or "ERROR" in line), ""
            )
            print(done.stderr[-3000:], file=sys.stderr)
        return row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", help="a reader (default: all); can be given several times")
    parser.add_argument("--minutes", type=float, default=2.0, help="per reader (default: 2)")
    parser.add_argument(
        "--keep", type=int, default=0, help="of the inputs that reached new code so many join the corpus"
    )
    parser.add_argument("--seeds", action="store_true", help="only write whole inputs into the corpus")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        fuzz_one(args.one, args.seconds, args.folder)
    if args.seeds:
        print(f"{write_seeds()} new inputs in {CORPUS.name}")
        return 0
    known = list(targets())
    for name in args.target or []:
        if name not in known:
            parser.error(f"no reader {name!r}; there are {', '.join(known)}")
    rows = {}
    for name in args.target or known:
        rows[name] = fuzz(name, max(1, round(60 * args.minutes)), args.keep)
        print(f"{name:12} " + ", ".join(f"{key} {value}" for key, value in rows[name].items()), flush=True)
    path = HERE / "fuzz.json"
    before = json.loads(path.read_text(encoding="utf-8"))["readers"] if path.exists() else {}
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "readers": {**before, **rows},
    }
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["passed"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
