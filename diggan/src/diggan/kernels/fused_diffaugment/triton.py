"""DiffAugment in Triton: a program makes an image, or a stretch of a large one, for all operations of the policy.

A pixel of the result is one pixel of x, or none: the policy is followed backwards from where the pixel lies to where it
comes from, then forwards with its channels in registers. Only contrast needs more than the pixel, the mean of the image
that reaches it; brightness and saturation change that mean by brightness alone, so it is the mean before `color`. The
program sums it by the same walk, from x in its cache.

Colour is a symmetric linear map (of channels, saturation, and of all entries, contrast; they commute) plus a constant,
a hole is symmetric, a shift's adjoint is the shift back: the adjoint of a policy is the linear part of the policy in
reverse order with shifts reversed. One kernel serves all three.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from .reference import Draws, hole, parse_policy

COLOR, TRANSLATION, CUTOUT = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
CODES = {"color": 1, "translation": 2, "cutout": 3}  # two bits for each operation of a policy, the first lowest
MEANS = tl.constexpr(8)  # operations of a policy that may need a mean
ENTRIES = 4096  # of a tile: 16 for each thread
PROGRAMS = 132  # large images are shared among programs while there are fewer than multiprocessors


@triton.jit
def load_draw(draws, image):
    return tl.load(draws + image)


@triton.jit
def walk(
    x, image, place, brightness, saturation, contrast, shift_h, shift_w, hole_h, hole_w, means, stride_c, stride_h,
    stride_w, CODE: tl.constexpr, UPTO: tl.constexpr, CHANNELS: tl.constexpr, HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr, HOLE_H: tl.constexpr, HOLE_W: tl.constexpr, BLOCK_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The pixels `place` of the image after the first `UPTO` operations: [BLOCK_C, BLOCK_P], pads 0."""
    channel = tl.arange(0, BLOCK_C)[:, None]
    row, column = place // WIDTH, place % WIDTH
    for i in tl.static_range(UPTO):
        if (CODE >> (2 * i)) & 3 == TRANSLATION:
            row += shift_h
            column += shift_w
    within = (place < HEIGHT * WIDTH) & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    within = within[None, :] & (channel < CHANNELS)
    start = x + row[None, :] * stride_h + column[None, :] * stride_w + channel * stride_c
    value = tl.load(start, within, other=0.0).to(WIDE)
    for i in tl.static_range(UPTO):
        if (CODE >> (2 * i)) & 3 == TRANSLATION:
            # `row` is where the pixel lies before the shift: a pixel may leave the image and come back as zero.
            alive = (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
            value = tl.where(alive[None, :], value, 0.0)
            row -= shift_h
            column -= shift_w
        elif (CODE >> (2 * i)) & 3 == CUTOUT:
            top, left = tl.maximum(hole_h, 0), tl.maximum(hole_w, 0)
            bottom, right = tl.minimum(hole_h + HOLE_H, HEIGHT) - 1, tl.minimum(hole_w + HOLE_W, WIDTH) - 1
            # A hole beyond the border still covers the edge line.
            top, left = tl.minimum(top, HEIGHT - 1), tl.minimum(left, WIDTH - 1)
            bottom, right = tl.maximum(bottom, 0), tl.maximum(right, 0)
            cut = (row >= top) & (row <= bottom) & (column >= left) & (column <= right)
            value = tl.where(cut[None, :], 0.0, value)
        else:
            mean = tl.sum(tl.where(tl.arange(0, MEANS) == i, means, 0.0), 0) + brightness
            value = tl.where(channel < CHANNELS, value + brightness, 0.0)
            grey = tl.sum(value, 0)[None, :] / CHANNELS
            value = (value - grey) * saturation + grey
            value = (value - mean) * contrast + mean
    return tl.where((place < HEIGHT * WIDTH)[None, :] & (channel < CHANNELS), value, 0.0)


@triton.jit
def diffaugment_kernel(
    x, brightness_u, saturation_u, contrast_u, shift_h, shift_w, offset_h, offset_w, y, stride_n, stride_c, stride_h,
    stride_w, CODE: tl.constexpr, LENGTH: tl.constexpr, LINEAR: tl.constexpr, SIGN: tl.constexpr,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, HOLE_H: tl.constexpr, HOLE_W: tl.constexpr,
    WIDE: tl.constexpr, SPAN: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Pixels `pid_s * SPAN ...` of image `pid_n`. Sizes are constants: one size of images is trained on."""
    image = tl.program_id(0)
    first = tl.program_id(1) * SPAN
    brightness, saturation, contrast = 0.0, 1.0, 1.0
    down, across, hole_h, hole_w = 0, 0, 0, 0
    if brightness_u is not None:
        brightness = 0.0 if LINEAR else load_draw(brightness_u, image).to(WIDE) - 0.5
        saturation = load_draw(saturation_u, image).to(WIDE) * 2
        contrast = load_draw(contrast_u, image).to(WIDE) + 0.5
    if shift_h is not None:
        down = SIGN * load_draw(shift_h, image).to(tl.int32)
        across = SIGN * load_draw(shift_w, image).to(tl.int32)
    if offset_h is not None:
        hole_h = load_draw(offset_h, image).to(tl.int32) - HOLE_H // 2
        hole_w = load_draw(offset_w, image).to(tl.int32) - HOLE_W // 2
    x += image.to(tl.int64) * stride_n
    y += image.to(tl.int64) * (CHANNELS * HEIGHT * WIDTH)
    pixel = tl.arange(0, BLOCK_P)
    means = tl.zeros((MEANS,), WIDE)
    for i in tl.static_range(LENGTH):
        if (CODE >> (2 * i)) & 3 == COLOR:
            total = tl.zeros((BLOCK_C, BLOCK_P), WIDE)
            for start in range(0, HEIGHT * WIDTH, BLOCK_P):
                total += walk(
                    x, image, start + pixel, brightness, saturation, contrast, down, across, hole_h, hole_w, means,
                    stride_c, stride_h, stride_w, CODE, i, CHANNELS, HEIGHT, WIDTH, HOLE_H, HOLE_W, BLOCK_C, WIDE,
                )  # fmt: skip
            mean = tl.sum(tl.sum(total, 1), 0) / (CHANNELS * HEIGHT * WIDTH)
            means = tl.where(tl.arange(0, MEANS) == i, mean, means)
    for start in range(0, SPAN, BLOCK_P):
        place = first + start + pixel
        value = walk(
            x, image, place, brightness, saturation, contrast, down, across, hole_h, hole_w, means, stride_c, stride_h,
            stride_w, CODE, LENGTH, CHANNELS, HEIGHT, WIDTH, HOLE_H, HOLE_W, BLOCK_C, WIDE,
        )  # fmt: skip
        channel = tl.arange(0, BLOCK_C)[:, None]
        inside = (place < HEIGHT * WIDTH)[None, :] & (channel < CHANNELS)
        tl.store(y + channel * (HEIGHT * WIDTH) + place[None, :], value.to(y.dtype.element_ty), inside)


@lru_cache
def constants(policy: str, part: str, channels: int, height: int, width: int, images: int) -> dict[str, Any]:
    """Compile-time constants of a launch: the policy's code, and tiles."""
    names = parse_policy(policy)
    if part == "adjoint":
        names.reverse()
    block_c = triton.next_power_of_2(channels)
    block_p = max(16, min(triton.next_power_of_2(height * width), ENTRIES // block_c))
    tiles = triton.cdiv(height * width, block_p)
    # Without colour a program is a tile. With it each program sums the image, so there are no more than help.
    programs = min(tiles, max(1, PROGRAMS // images)) if "color" in names else tiles
    return {
        "CODE": sum(CODES[name] << (2 * i) for i, name in enumerate(names)),
        "LENGTH": len(names),
        "LINEAR": part != "map",
        "SIGN": -1 if part == "adjoint" else 1,
        "CHANNELS": channels,
        "HEIGHT": height,
        "WIDTH": width,
        "HOLE_H": hole(height),
        "HOLE_W": hole(width),
        "SPAN": triton.cdiv(tiles, programs) * block_p,
        "BLOCK_C": block_c,
        "BLOCK_P": block_p,
        "num_warps": max(1, min(8, block_c * block_p // 512)),
        "num_stages": 1,
    }


def launch_diffaugment(x: Tensor, draws: Draws, policy: str, part: str) -> Tensor:
    """`policy` on images of any strides, computed in float32 (float64 in float64); a contiguous result.

    Raises:
        ValueError: draws of another number of images.
    """
    n, channels, height, width = x.shape
    for field, values in zip(Draws._fields, draws):
        if values is not None and values.shape != (n,):
            raise ValueError(f"draws.{field} has shape {tuple(values.shape)} for {n} images")
    chosen = constants(policy, part, channels, height, width, n)
    wide = tl.float64 if x.dtype is torch.float64 else tl.float32
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    given = [None if d is None else d.to(x.device).contiguous() for d in draws]
    grid = (n, triton.cdiv(height * width, chosen["SPAN"]))
    with torch.cuda.device_of(x):
        diffaugment_kernel[grid](x, *given, y, *x.stride(), WIDE=wide, **chosen)
    return y


def build(
    policy: str, part: str, size: tuple[int, int, int], dtype: str, aligned: bool = True, images: int = 100
) -> Build:
    chosen = constants(policy, part, *size, images)
    launch = {k: v for k, v in chosen.items() if k in ("BLOCK_C", "BLOCK_P", "num_warps", "num_stages")}
    fixed = {"WIDE": tl.float32, **{k: v for k, v in chosen.items() if k not in launch}}
    used = {"color": Draws._fields[:3], "translation": Draws._fields[3:5], "cutout": Draws._fields[5:]}
    pointers = {"x": "data", "y": "data"}
    for name, fields in used.items():
        here = name in policy
        fixed |= {} if here else dict.fromkeys(fields)
        pointers |= dict.fromkeys(fields, "*fp32" if name == "color" else "*i64") if here else {}
    if aligned:
        fixed["stride_w"] = 1
    numbers = ("stride_n", "stride_c", "stride_h", "stride_w")
    where = "x".join(map(str, size))
    name = f"{policy} {part} {where} {dtype}" + ("" if aligned else " any strides")
    return variant(
        diffaugment_kernel,
        name,
        dtype=dtype,
        pointers=pointers,
        numbers=numbers,
        constants=fixed,
        launch=launch,
        aligned=aligned,
    )


ALL = "color,translation,cutout"
AOT = [
    *[build(ALL, part, (3, 32, 32), "fp32") for part in ("map", "linear", "adjoint")],
    *[build(policy, "map", (3, 32, 32), "fp32") for policy in ("color", "translation", "cutout", "translation,cutout")],
    *[build(ALL, part, (3, 32, 32), dtype) for part in ("map", "adjoint") for dtype in ("bf16", "fp16")],
    *[build(ALL, part, (3, 128, 128), "fp32") for part in ("map", "adjoint")],
    build("translation,cutout", "map", (3, 128, 128), "fp32"),
    build("translation,cutout", "map", (1, 28, 28), "fp32"),
    build("cutout,color,translation,color", "map", (3, 64, 64), "fp32"),
    build(ALL, "map", (3, 9, 12), "fp32", aligned=False),
    build(ALL, "map", (256, 9, 12), "fp32", aligned=False),
]
