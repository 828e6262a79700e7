"""PyCBC's side of bench_matched_filter.py; runs in the environment that pycbc_env.sh makes, imports nothing of ours.

    PYTHON pycbc_peer.py DATA.npz

Reads the same strain, noise curve and templates as ours. Waits for lines on stdin; for each, filters every template
once with each of its engines and prints one line of JSON: CPU milliseconds per template, and the largest
signal-to-noise ratio of each template, for the comparison of values.

- `engine`: `MatchedFilterControl`, what `pycbc_inspiral` runs: planned in-place FFT, over-whitened data, threshold and
  clustering over 1 s.
- `function`: `matched_filter_core` of the library, the scalar call of most scripts, with the maximum of |z| per second.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import pycbc
import pycbc.scheme
from pycbc.fft import backend_cpu
from pycbc.filter import MatchedFilterControl, matched_filter_core, sigmasq
from pycbc.types import FrequencySeries, zeros


def main() -> int:
    data = np.load(sys.argv[1])
    rate, f_low, f_high = int(data["sample_rate"]), float(data["f_low"]), float(data["f_high"])
    n = int(data["samples"])
    df = rate / n

    def series(values: Any, dtype: Any) -> FrequencySeries:
        return FrequencySeries(values.astype(dtype), delta_f=df, epoch=0)

    psd = series(data["psd"], np.float32)
    stilde = series(data["strain_fd"], np.complex64)
    templates = data["templates"]
    out: dict[str, Any] = {}
    with pycbc.scheme.CPUScheme(num_threads=1):
        htilde = zeros(n // 2 + 1, dtype=np.complex64)
        htilde = FrequencySeries(htilde, delta_f=df, copy=False)
        over = series(np.where(psd.numpy() > 0, stilde.numpy() / psd.numpy(), 0), np.complex64)
        over.analyze = slice(0, n)
        engine = MatchedFilterControl(
            f_low, f_high, float(data["threshold"]), n, df, np.complex64, [over], htilde, use_cluster=True
        )
        filled, norms = [], []
        for template in templates:
            whole = np.zeros(n // 2 + 1, np.complex64)
            whole[int(data["first"]) : int(data["first"]) + len(template)] = template
            filled.append(series(whole, np.complex64))
            norms.append(sigmasq(filled[-1], psd, low_frequency_cutoff=f_low, high_frequency_cutoff=f_high))
        print(json.dumps({"version": pycbc.__version__, "fft": backend_cpu.cpu_backend}), flush=True)
        for _ in sys.stdin:
            spent, largest = 0.0, []
            for template, norm in zip(filled, norms):
                htilde.data[:] = template.data[:]  # the bank would have written it here: not timed
                start = time.thread_time()
                _, _, _, _, snr = engine.matched_filter_and_cluster(0, norm, rate)
                spent += time.thread_time() - start
                largest.append(float(np.abs(snr).max() * 4 * df / np.sqrt(norm)) if len(snr) else 0.0)
            out["engine_ms"], out["engine_snr"] = 1e3 * spent / len(filled), largest
            spent, largest = 0.0, []
            for template, norm in zip(filled, norms):
                start = time.thread_time()
                z, _, factor = matched_filter_core(
                    template, stilde, psd, low_frequency_cutoff=f_low, high_frequency_cutoff=f_high, h_norm=norm
                )
                peaks = np.abs(z.numpy()).reshape(-1, rate).max(1)
                spent += time.thread_time() - start
                largest.append(float(peaks.max()) * factor)
            out["function_ms"], out["function_snr"] = 1e3 * spent / len(filled), largest
            print(json.dumps(out), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
