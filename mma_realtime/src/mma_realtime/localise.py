"""Where a candidate came from: `python -m mma_realtime.localise H-H1_*.hdf5 L-L1_*.hdf5 --gps 1126259462.4`.

The loudest template of the matched-filter bank at that time gives each detector's complex SNR series; the localiser
gives the map. `--masses M1 M2` takes one template and saves the bank. `--prob-at RA DEC` (degrees) says how the map
judges a place.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.signal import resample
from shared.errors import one_line_errors

from mma_realtime.data.challenge import CURVE
from mma_realtime.data.strain import Strain, read_strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.detectors import DETECTORS, light_travel_time
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.arguments import new_file
from mma_realtime.search.bank import Bank, template_bank
from mma_realtime.search.matched_filter import MatchedFilterSearch, SnrSeries, snr_series_at
from mma_realtime.sky.fits import write_fits
from mma_realtime.sky.localise import localise
from mma_realtime.sky.skymap import SkyMap

NEAR: Seconds = 0.1  # between the candidate's time and a peak of its template
FINE = 8192  # Hz: of the series that are localised; arrival times of loud signals are known to a tenth of a millisecond
AROUND: Seconds = 0.25  # of series on either side, before they are made finer
KEPT: Seconds = 0.06  # on either side of each detector's peak
LATE: Seconds = 0.001  # of peaks, beyond the light's way
MASSES, MASS_RATIO, BAND, FILTER = (10.0, 50.0), 5.0, (20.0, 1000.0), 2.0  # of the default bank, as in the yardstick


def loudest_template(search: MatchedFilterSearch, strain: Strain, gps: GPS, near: Seconds = NEAR) -> int:
    """The template whose peaks within `near` of `gps`, one in each detector, have the largest sum of squares.

    Raises:
        SearchError: no template has a peak there.
    """
    found = search.triggers(strain)
    power = np.zeros(len(search.bank))
    for peaks in found.peaks:
        close = np.abs(found.gps_start + peaks.time - gps) <= near
        highest = np.zeros(len(search.bank))
        np.maximum.at(highest, peaks.template[close], peaks.snr[close])
        power += highest**2
    if not power.any():
        raise SearchError(
            f"no template reaches a signal-to-noise ratio of {search.threshold:g} within {near:g} s of GPS {gps:.3f}: "
            "is it the time of a candidate?"
        )
    return int(power.argmax())


def arrivals(series: SnrSeries) -> tuple[dict[str, np.ndarray], dict[str, GPS]]:
    """Each detector's series at 8192 Hz around its own peak, and the time of that peak.

    The loudest detector's peak is looked for near the candidate, the others' within the light's way of it.
    """
    n = round(series.snr.shape[1] * FINE / series.sample_rate)
    fine = resample(series.snr.numpy(), n, axis=1)  # z is limited to the band: nothing is made up
    begin = series.toa[0] - (series.snr.shape[1] // 2) / series.sample_rate
    middle, kept = (series.snr.shape[1] // 2) * FINE // series.sample_rate, round(KEPT * FINE)
    size = np.abs(fine)

    def peak(row: int, at: int, reach: Seconds) -> int:
        low = max(at - math.ceil(reach * FINE), kept)
        high = min(at + math.ceil(reach * FINE) + 1, n - kept)
        return low + int(size[row, low:high].argmax())

    first = [peak(row, middle, NEAR) for row in range(len(fine))]
    best = max(range(len(fine)), key=lambda row: size[row, first[row]])
    one = DETECTORS[series.detectors[best]]
    ways = [light_travel_time(one, DETECTORS[name]) + LATE for name in series.detectors]
    at = [first[best] if row == best else peak(row, first[best], way) for row, way in enumerate(ways)]
    cut = {name: fine[row, at[row] - kept : at[row] + kept + 1] for row, name in enumerate(series.detectors)}
    return cut, {name: begin + at[row] / FINE for row, name in enumerate(series.detectors)}


def localise_candidate(search: MatchedFilterSearch, strain: Strain, gps: GPS, template: int | None = None) -> SkyMap:
    """The sky map of a candidate at `gps`.

    Args:
        template: place in the bank; default: the loudest there.

    Raises:
        SearchError: no strain or no template there.
        SkyMapError: what `localise` refuses.
    """
    if not strain.gps_start <= gps < strain.gps_end:
        raise SearchError(
            f"{strain.source or 'the strain'} is of GPS {strain.gps_start:.0f} to {strain.gps_end:.0f}, "
            f"GPS {gps:.3f} is not in it"
        )
    chosen = loudest_template(search, strain, gps) if template is None else template
    series = snr_series_at(search, strain, chosen, gps, AROUND)
    snr, toa = arrivals(series)
    meta = {"creator": "mma_realtime", "masses": (float(search.bank.m1[chosen]), float(search.bank.m2[chosen]))}
    return localise(snr, FINE, toa, dict(zip(series.detectors, series.horizon)), gps=gps, meta=meta)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.localise", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="strain: .npz or HDF5, one file or one per detector")
    parser.add_argument("--gps", type=float, required=True, help="of the candidate (s)")
    parser.add_argument("--masses", type=float, nargs=2, metavar=("M1", "M2"), help="one template; default: the bank's")
    parser.add_argument("--out", type=new_file, default=Path("skymap.multiorder.fits"), help="FITS file to write")
    parser.add_argument("--picture", type=Path, help="SVG to write; one more with the densest place enlarged")
    parser.add_argument("--prob-at", type=float, nargs=2, metavar=("RA", "DEC"), help="degrees: judge this place")
    parser.add_argument("--name", help="of the event, for the file's header")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)
    strain = read_strain(*args.files)
    if args.masses:
        heavy, light = sorted(args.masses, reverse=True)
        bank = Bank(torch.tensor([heavy]).double(), torch.tensor([light]).double(), *BAND)
    else:
        bank = template_bank(MASSES, MASS_RATIO, design_curve(CURVE), *BAND)
    search = MatchedFilterSearch(bank, strain.sample_rate, filter_length=FILTER)
    begin = time.perf_counter()
    skymap = localise_candidate(search, strain, args.gps, 0 if args.masses else None)
    took = time.perf_counter() - begin
    if args.name:
        skymap.meta["object"] = args.name
    write_fits(skymap, args.out)
    place = (math.radians(args.prob_at[0]), math.radians(args.prob_at[1])) if args.prob_at else None
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("template", "{:.1f} and {:.1f} solar masses".format(*skymap.meta["masses"]))
    table.add_row("detectors", ", ".join(skymap.meta["instruments"]))
    for level in (0.5, 0.9):
        table.add_row(f"{level:.0%} region", f"{skymap.area(level):,.1f} deg²")
    table.add_row("distance", "{:,.0f} ± {:,.0f} Mpc".format(*skymap.distance_mean_std))
    if place is not None:
        level, searched = float(skymap.credible_level(*place)), float(skymap.searched_area(*place))
        density = float(skymap.density_at(*place)) * math.radians(1) ** 2
        table.add_row("at that place", f"credible level {level:.3f}, {searched:,.1f} deg² denser, {density:.3g} deg⁻²")
    table.add_row("time taken", f"{took:.1f} s, filtering included")
    console = Console()
    console.print(table)
    written = [args.out]
    if args.picture:
        from shared.figures import save, use_house_style

        from mma_realtime.sky.picture import caption, enlarged, mollweide

        use_house_style()
        second = args.picture.with_stem(f"{args.picture.stem}_enlarged")
        for draw, path in ((mollweide, args.picture), (enlarged, second)):
            save(draw(skymap, host=place), path)
        written += [args.picture, second]
        console.print(caption(skymap), soft_wrap=True)
    console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
