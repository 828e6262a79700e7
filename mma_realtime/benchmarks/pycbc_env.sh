#!/usr/bin/env bash
# An environment with PyCBC, the peer of bench_matched_filter.py, outside of this tree (it does not go beside torch).
#
#     benchmarks/pycbc_env.sh [FOLDER]
#
# MKL is PyCBC's fastest FFT on a CPU, and the one that torch uses: both sides get the same.
set -euo pipefail
folder="${1:-${TMPDIR:-/tmp}/mma_realtime_pycbc}"
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet "pycbc==2.11.0" mkl
"$folder/bin/python" -c "import pycbc; print(f'PyCBC {pycbc.__version__} in $folder')"
