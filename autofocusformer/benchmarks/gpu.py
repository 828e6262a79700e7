"""Attention and whole networks on a GPU: the fused kernel against gathers, the authors' chain, SDPA and FlexAttention.

    python autofocusformer/benchmarks/gpu.py          # `make bench-autofocusformer` calls it where there is a GPU

Writes gpu.json next to this file; exit status 1 where a target was missed, 2 without a GPU. Every form is compared with
the gathers before it is timed. Medians of 30 calls, the device's cache flushed before each; memory is the most that a
call holds beyond its operands and result. FlexAttention's block mask is prepared outside of what is timed, once for all
blocks of a stage; the dense bias of SDPA depends on the parameters and is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gather
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer
from autofocusformer.kernels.cluster_attention import cluster_attention
from autofocusformer.kernels.cluster_attention.check import CHECK
from autofocusformer.kernels.cluster_attention.rivals import dense, flex, flex_blocks, unfused
from shared.kernels.gpu_check import seconds
from shared.kernels.harness import draw, is_real, relative_error
from torch import Tensor

HERE = Path(__file__).resolve().parent
DENSE_TOKENS = 784  # above, a bias of [b, H, n, n + 1] takes tens of GB
TARGETS = {  # Tiny's first stage at batch 64, forwards and backwards, in either precision
    "gather": ("ms", 3.0), "unfused": ("ms", 1.5), "unfused, memory": ("MiB", 4.0),
}  # fmt: skip
Form = Callable[..., Tensor]


def forms(operands: tuple[Any, ...]) -> dict[str, Form]:
    """Name to function; all take the operands of `cluster_attention`."""
    _, _, _, positions, near, *_, size = operands
    out: dict[str, Form] = {"kernel": cluster_attention, "gather": gather.cluster_attention, "unfused": unfused}
    if positions.shape[1] <= DENSE_TOKENS:
        out["dense SDPA"] = dense
    return out | {"FlexAttention": partial(flex, blocks=flex_blocks(positions, near, size))}


def measured(call: Callable[[], Any], device: str) -> dict[str, float]:
    """Milliseconds of a call, and on a GPU the MiB that it holds at most beyond what was there before."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return {"ms": (time.perf_counter() - start) * 1e3}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return {"ms": seconds(call) * 1e3, "MiB": peak / 2**20}


def attention(shape: dict[str, int], dtype: torch.dtype, device: str) -> dict[str, dict[str, Any]]:
    """Name of a form to its times and memory, forwards and forwards with backwards; or why it is not there."""
    operands = draw(CHECK, shape, device, dtype)
    wide = (x.float() if is_real(x) else x for x in operands)
    exact = gather.cluster_attention(*wide)
    again = [x.detach().requires_grad_() if is_real(x) else x for x in operands]
    leaves = [x for x in again if is_real(x)]
    seed, rows = torch.randn_like(exact).to(dtype), dict[str, dict[str, Any]]()
    for name, form in forms(operands).items():

        def both(form: Form = form) -> None:
            torch.autograd.grad(form(*again).to(dtype), leaves, seed)

        try:
            with torch.no_grad():
                error = relative_error(form(*operands), exact)
                forward = measured(partial(form, *operands), device)
            rows[name] = {"error": error, "forward": forward}
            if not error < (1e-4 if dtype == torch.float32 else 3e-2):
                rows[name] = {"not run": f"differs from the gathers by {error:.1e}"}
            elif name == "FlexAttention" and device == "cpu":
                rows[name]["both"] = {"not run": "no backward on a CPU"}
            else:
                rows[name]["both"] = measured(both, device)
        except torch.OutOfMemoryError:
            rows[name] = {"not run": "out of memory"}
        if device == "cuda":
            torch.cuda.empty_cache()
    return rows


def throughput(variant: str, batch: int, dtype: torch.dtype, device: str, size: int = 224) -> dict[str, float]:
    """Images a second of a classifier in use, under autocast where dtype is not float32."""
    torch.manual_seed(0)
    model = AutoFocusFormer(VARIANTS[variant]).to(device).eval()
    images = torch.randn(batch, 3, size, size, device=device)

    def once() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            model(images)

    found = measured(once, device)
    return {"images_per_second": batch / found["ms"] * 1e3, **{k: v for k, v in found.items() if k == "MiB"}}


def targets(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times more each rival takes than the kernel, forwards and backwards."""
    ours, out = rows["kernel"]["both"], {}
    for name, (unit, _) in TARGETS.items():
        rival = rows[name.partition(",")[0]].get("both", {})
        if unit in rival and unit in ours:
            out[name] = rival[unit] / ours[unit]
    return out


def main(device: str = "cuda") -> int:
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU: attention and throughput are not run")
        return 2
    record: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "attention": []}
    missed = []
    for shape in CHECK.timed:
        for dtype in (torch.float32, torch.bfloat16):
            rows = attention(shape, dtype, device)
            kind = str(dtype).removeprefix("torch.")
            record["attention"].append({"shape": shape, "dtype": kind, "rows": rows})
            print(f"{shape}, {kind}")
            for name, row in rows.items():
                print(f"  {name}: {json.dumps(row)}", flush=True)
            if shape == CHECK.timed[0]:
                for name, ratio in targets(rows).items():
                    met = ratio >= TARGETS[name][1]
                    missed += [] if met else [name]
                    print(f"  {name}: {ratio:.2f}x, at least {TARGETS[name][1]}: {'met' if met else 'missed'}")
    record["throughput"] = {}
    for variant in ("mini", "tiny", "small", "base"):
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{variant}, {str(dtype).removeprefix('torch.')}"
            record["throughput"][name] = throughput(variant, 64, dtype, device)
            print(
                f"{name}: {record['throughput'][name]['images_per_second']:.0f} images/s at 224 px, batch 64",
                flush=True,
            )
    (HERE / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
