"""K1 in Triton: one program is one GAN, and the whole training is one launch. Everything stays on chip.

A network 1 - w - w - 1 is held as vectors of `UNITS` entries and a matrix [UNITS, UNITS], the points as a vector of
`POINTS`. Units past w and points past n are pads: their weights are zero and stay so, as every gradient is masked.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

from .recipe import Players, Recipe, width_of

MOST_POINTS, MOST_UNITS = 256, 32
CHUNK = 32  # points whose activations are held at a time: those of all would not fit into the registers


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) without overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1 + e)


@triton.jit
def activate(x, TANH: tl.constexpr):
    if TANH:
        e = tl.exp(-2 * tl.abs(x))
        t = (1 - e) / (1 + e)
        return tl.where(x >= 0, t, -t)
    else:
        return sigmoid(x)


@triton.jit
def slope(a, TANH: tl.constexpr):
    """The activation's derivative, from its value."""
    if TANH:
        return 1 - a * a
    else:
        return a * (1 - a)


@triton.jit
def forward(x, w1, b1, w2, b2, w3, b3, TANH: tl.constexpr):
    a1 = activate(w1[:, None] * x[None, :] + b1[:, None], TANH)
    a2 = activate(tl.dot(w2, a1, input_precision="ieee") + b2[:, None], TANH)
    return a1, a2, tl.sum(w3[:, None] * a2, 0) + b3


@triton.jit
def output(x, w1, b1, w2, b2, w3, b3, TANH: tl.constexpr):
    _a1, _a2, f = forward(x, w1, b1, w2, b2, w3, b3, TANH)
    return f


@triton.jit
def backward(delta, a1, a2, w2, w3, TANH: tl.constexpr):
    """Gradients of the pre-activations of the second and of the first layer, from that of the output."""
    d2 = w3[:, None] * delta[None, :] * slope(a2, TANH)
    d1 = tl.dot(tl.trans(w2), d2, input_precision="ieee") * slope(a1, TANH)
    return d1, d2


@triton.jit
def pull(t, COST: tl.constexpr):
    """Derivative of the cost u(t)."""
    if COST == "logistic":
        return sigmoid(t)
    elif COST == "ls":
        return 2 * (1 + t)
    else:
        return tl.where(t > -1, 1.0, 0.0)


@triton.jit
def cost_value(t, COST: tl.constexpr):
    if COST == "logistic":
        return tl.maximum(t, 0.0) + tl.log(1 + tl.exp(-tl.abs(t)))
    elif COST == "ls":
        return (1 + t) * (1 + t)
    else:
        return tl.maximum(1 + t, 0.0)


@triton.jit
def mix(x):
    """A bijection of 32-bit words that scatters them (C. Wellons' lowbias32)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def shuffled(values, seed, step, n, LOW: tl.constexpr, POINTS: tl.constexpr):
    """`values` in the order of n random words, which follow from seed, step and point (`reference.shuffles`)."""
    i = tl.arange(0, POINTS)
    keys = mix(mix(mix(seed) ^ step.to(tl.uint32)) ^ i.to(tl.uint32))
    keys = (keys & (0x7FFFFFFF & ~LOW)).to(tl.int32) | i
    keys = tl.sort(tl.where(i < n, keys, 0x7FFFFFFF))
    return tl.gather(values, tl.where(i < n, keys & LOW, i), 0)


@triton.jit
def pull_of_each(own, others, n, sign, COST: tl.constexpr, POINTS: tl.constexpr):
    """Mean over j of u'(sign (others_j - own_i)) for every i, 16 of the others at a time."""
    total = tl.zeros((POINTS,), tl.float32)
    for start in range(0, n, 16):
        j = start + tl.arange(0, 16)
        some = tl.gather(others, tl.minimum(j, POINTS - 1), 0)
        matrix = pull(sign * (some[None, :] - own[:, None]), COST)
        total += tl.sum(tl.where(j[None, :] < n, matrix, 0.0), 1)
    return total / n


@triton.jit
def cost_of_pairs(low, high, n, COST: tl.constexpr, POINTS: tl.constexpr):
    """Sum over i of the mean over j of u(high_j - low_i)."""
    i = tl.arange(0, POINTS)
    total = tl.zeros((POINTS,), tl.float32)
    for start in range(0, n, 16):
        j = start + tl.arange(0, 16)
        some = tl.gather(high, tl.minimum(j, POINTS - 1), 0)
        matrix = cost_value(some[None, :] - low[:, None], COST)
        total += tl.sum(tl.where((j[None, :] < n) & (i[:, None] < n), matrix, 0.0), 1)
    return tl.sum(total, 0) / n


@triton.jit
def load_net(base, WIDTH: tl.constexpr, UNITS: tl.constexpr):
    u = tl.arange(0, UNITS)
    on = u < WIDTH
    square = on[:, None] & on[None, :]
    w1 = tl.load(base + u, on, other=0.0)
    b1 = tl.load(base + WIDTH + u, on, other=0.0)
    w2 = tl.load(base + 2 * WIDTH + u[:, None] * WIDTH + u[None, :], square, other=0.0)
    b2 = tl.load(base + 2 * WIDTH + WIDTH * WIDTH + u, on, other=0.0)
    w3 = tl.load(base + 3 * WIDTH + WIDTH * WIDTH + u, on, other=0.0)
    b3 = tl.load(base + 4 * WIDTH + WIDTH * WIDTH)
    return w1, b1, w2, b2, w3, b3


@triton.jit
def store_net(base, w1, b1, w2, b2, w3, b3, WIDTH: tl.constexpr, UNITS: tl.constexpr):
    u = tl.arange(0, UNITS)
    on = u < WIDTH
    tl.store(base + u, w1, on)
    tl.store(base + WIDTH + u, b1, on)
    tl.store(base + 2 * WIDTH + u[:, None] * WIDTH + u[None, :], w2, on[:, None] & on[None, :])
    tl.store(base + 2 * WIDTH + WIDTH * WIDTH + u, b2, on)
    tl.store(base + 3 * WIDTH + WIDTH * WIDTH + u, w3, on)
    tl.store(base + 4 * WIDTH + WIDTH * WIDTH, b3)


@triton.jit
def gradients(x, delta, a1, a2, w2, w3, WIDTH: tl.constexpr, UNITS: tl.constexpr, TANH: tl.constexpr):
    """Of all weights, summed over points, from that of the output; zero for pads."""
    d1, d2 = backward(delta, a1, a2, w2, w3, TANH)
    u = tl.arange(0, UNITS)
    on = u < WIDTH
    g1 = tl.where(on, tl.sum(d1 * x[None, :], 1), 0.0)
    gb1 = tl.where(on, tl.sum(d1, 1), 0.0)
    g2 = tl.where(on[:, None] & on[None, :], tl.dot(d2, tl.trans(a1), input_precision="ieee"), 0.0)
    gb2 = tl.where(on, tl.sum(d2, 1), 0.0)
    g3 = tl.where(on, tl.sum(a2 * delta[None, :], 1), 0.0)
    return g1, gb1, g2, gb2, g3, tl.sum(delta, 0)


@triton.jit
def nothing(UNITS: tl.constexpr):
    one = tl.zeros((UNITS,), tl.float32)
    return one, one, tl.zeros((UNITS, UNITS), tl.float32), one, one, 0.0


@triton.jit
def population_kernel(
    d_in, g_in, dv_in, gv_in, x, z, windows, lr_d, lr_g, seeds, d_out, g_out, dv_out, gv_out, losses, counts,
    n, first_step, iterations, d_steps, g_steps, momentum, factor,
    COST: tl.constexpr, RELATIVISTIC: tl.constexpr,
    PAIRING: tl.constexpr, MINIMAX: tl.constexpr, D_WIDTH: tl.constexpr, G_WIDTH: tl.constexpr,
    UNITS: tl.constexpr, POINTS: tl.constexpr, CHUNK: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    gan = tl.program_id(0)
    D_SIZE: tl.constexpr = D_WIDTH * D_WIDTH + 4 * D_WIDTH + 1
    G_SIZE: tl.constexpr = G_WIDTH * G_WIDTH + 4 * G_WIDTH + 1
    w1, b1, w2, b2, w3, b3 = load_net(d_in + gan * D_SIZE, D_WIDTH, UNITS)
    p1, q1, p2, q2, p3, q3 = load_net(dv_in + gan * D_SIZE, D_WIDTH, UNITS)
    v1, c1, v2, c2, v3, c3 = load_net(g_in + gan * G_SIZE, G_WIDTH, UNITS)
    r1, s1, r2, s2, r3, s3 = load_net(gv_in + gan * G_SIZE, G_WIDTH, UNITS)
    i = tl.arange(0, POINTS)
    there = i < n
    real = tl.load(x + gan * n + i, there, other=0.0)
    latent = tl.load(z + gan * n + i, there, other=0.0)
    rate_d, rate_g = tl.load(lr_d + gan), tl.load(lr_g + gan)
    low1, high1 = tl.load(windows + 4 * gan), tl.load(windows + 4 * gan + 1)
    low2, high2 = tl.load(windows + 4 * gan + 2), tl.load(windows + 4 * gan + 3)
    seed = tl.load(seeds + gan).to(tl.uint32)
    shift = 0.0
    if COST == "ls":
        shift = 1.0
    fake = output(latent, v1, c1, v2, c2, v3, c3, True)
    for iteration in range(iterations):
        step = first_step + iteration * (d_steps + g_steps)
        for k in range(d_steps):
            last = k == d_steps - 1
            partner = fake
            if PAIRING == "shuffled":
                partner = shuffled(fake, seed, step + k, n, LOW, POINTS)
            if PAIRING == "all_pairs":
                f_all = output(real, w1, b1, w2, b2, w3, b3, False)
                g_all = output(fake, w1, b1, w2, b2, w3, b3, False)
                df_all = -pull_of_each(f_all, g_all, n, 1.0, COST, POINTS)
                dg_all = pull_of_each(g_all, f_all, n, -1.0, COST, POINTS)
            loss = 0.0
            m1, n1, m2, n2, m3, n3 = nothing(UNITS)
            for start in range(0, n, CHUNK):
                j = start + tl.arange(0, CHUNK)
                inside = j < n
                j = tl.minimum(j, POINTS - 1)
                xs, ys = tl.gather(real, j, 0), tl.gather(partner, j, 0)
                a1, a2, f = forward(xs, w1, b1, w2, b2, w3, b3, False)
                e1, e2, g = forward(ys, w1, b1, w2, b2, w3, b3, False)
                if PAIRING == "all_pairs":
                    df, dg = tl.gather(df_all, j, 0), tl.gather(dg_all, j, 0)
                elif RELATIVISTIC:
                    dg = pull(g - f, COST)
                    df = -dg
                    loss += tl.sum(tl.where(inside, cost_value(g - f, COST), 0.0), 0)
                else:
                    loss += tl.sum(tl.where(inside, cost_value(-f, COST) + cost_value(g - shift, COST), 0.0), 0)
                    if COST == "ls":
                        df, dg = 2 * (f - 1), 2 * g
                    else:
                        df, dg = -pull(-f, COST), pull(g, COST)
                df, dg = tl.where(inside, df, 0.0), tl.where(inside, dg, 0.0)
                t1, u1, t2, u2, t3, u3 = gradients(xs, df, a1, a2, w2, w3, D_WIDTH, UNITS, False)
                m1, n1, m2, n2, m3, n3 = m1 + t1, n1 + u1, m2 + t2, n2 + u2, m3 + t3, n3 + u3
                t1, u1, t2, u2, t3, u3 = gradients(ys, dg, e1, e2, w2, w3, D_WIDTH, UNITS, False)
                m1, n1, m2, n2, m3, n3 = m1 + t1, n1 + u1, m2 + t2, n2 + u2, m3 + t3, n3 + u3
            if last:
                if PAIRING == "all_pairs":
                    loss = cost_of_pairs(f_all, g_all, n, COST, POINTS)
                tl.store(losses + gan * iterations + iteration, factor * loss / n)
            scale = factor / n
            p1, q1, p2 = momentum * p1 + scale * m1, momentum * q1 + scale * n1, momentum * p2 + scale * m2
            q2, p3, q3 = momentum * q2 + scale * n2, momentum * p3 + scale * m3, momentum * q3 + scale * n3
            w1, b1, w2 = w1 - rate_d * p1, b1 - rate_d * q1, w2 - rate_d * p2
            b2, w3, b3 = b2 - rate_d * q2, w3 - rate_d * p3, b3 - rate_d * q3
        # D does not change any more: f(x) of all steps of G.
        f_all = output(real, w1, b1, w2, b2, w3, b3, False)
        for k in range(g_steps):
            point = latent
            if PAIRING == "shuffled":
                point = shuffled(latent, seed, step + d_steps + k, n, LOW, POINTS)
            if PAIRING == "all_pairs":
                y_all = output(latent, v1, c1, v2, c2, v3, c3, True)
                g_all = output(y_all, w1, b1, w2, b2, w3, b3, False)
                dg_all = -pull_of_each(g_all, f_all, n, -1.0 if MINIMAX else 1.0, COST, POINTS)
            m1, n1, m2, n2, m3, n3 = nothing(UNITS)
            for start in range(0, n, CHUNK):
                j = start + tl.arange(0, CHUNK)
                inside = j < n
                j = tl.minimum(j, POINTS - 1)
                zs, f = tl.gather(point, j, 0), tl.gather(f_all, j, 0)
                h1, h2, y = forward(zs, v1, c1, v2, c2, v3, c3, True)
                e1, e2, g = forward(y, w1, b1, w2, b2, w3, b3, False)
                if PAIRING == "all_pairs":
                    dg = tl.gather(dg_all, j, 0)
                elif RELATIVISTIC:
                    dg = -pull(g - f if MINIMAX else f - g, COST)
                elif MINIMAX:
                    dg = -pull(g - shift, COST)
                elif COST == "hinge":
                    dg = -1.0 + 0.0 * g
                else:
                    dg = -pull(-g, COST)
                dg = tl.where(inside, dg, 0.0)
                d1, _d2 = backward(dg, e1, e2, w2, w3, False)
                dy = tl.sum(w1[:, None] * d1, 0)
                t1, u1, t2, u2, t3, u3 = gradients(zs, dy, h1, h2, v2, v3, G_WIDTH, UNITS, True)
                m1, n1, m2, n2, m3, n3 = m1 + t1, n1 + u1, m2 + t2, n2 + u2, m3 + t3, n3 + u3
            r1, s1, r2 = momentum * r1 + m1 / n, momentum * s1 + n1 / n, momentum * r2 + m2 / n
            s2, r3, s3 = momentum * s2 + n2 / n, momentum * r3 + m3 / n, momentum * s3 + n3 / n
            v1, c1, v2 = v1 - rate_g * r1, c1 - rate_g * s1, v2 - rate_g * r2
            c2, v3, c3 = c2 - rate_g * s2, v3 - rate_g * r3, c3 - rate_g * s3
        fake = output(latent, v1, c1, v2, c2, v3, c3, True)
        hit1 = there & (fake >= low1) & (fake <= high1)
        hit2 = there & (fake >= low2) & (fake <= high2)
        place = counts + 2 * (gan * iterations + iteration)
        tl.store(place, tl.sum(hit1.to(tl.int32), 0))
        tl.store(place + 1, tl.sum(hit2.to(tl.int32), 0))
    store_net(d_out + gan * D_SIZE, w1, b1, w2, b2, w3, b3, D_WIDTH, UNITS)
    store_net(dv_out + gan * D_SIZE, p1, q1, p2, q2, p3, q3, D_WIDTH, UNITS)
    store_net(g_out + gan * G_SIZE, v1, c1, v2, c2, v3, c3, G_WIDTH, UNITS)
    store_net(gv_out + gan * G_SIZE, r1, s1, r2, s2, r3, s3, G_WIDTH, UNITS)


def options(recipe: Recipe, n: int, d_width: int, g_width: int) -> dict[str, int | str | bool]:
    """The compile-time constants of a launch."""
    return {
        "COST": recipe.cost,
        "RELATIVISTIC": recipe.relativistic,
        "PAIRING": recipe.pairing,
        "MINIMAX": recipe.generator == "minimax",
        "D_WIDTH": d_width,
        "G_WIDTH": g_width,
        "UNITS": 16 if max(d_width, g_width) <= 16 else 32,
        "POINTS": max(16, triton.next_power_of_2(n)),
        "CHUNK": CHUNK,
        "LOW": (1 << (n - 1).bit_length()) - 1,
    }


LAUNCH = {"num_warps": 8, "num_stages": 1}


def population_train(
    players: Players, x: Tensor, z: Tensor, windows: Tensor, lr_d: Tensor, lr_g: Tensor, seeds: Tensor,
    recipe: Recipe, first: int, iterations: int,
) -> tuple[Players, Tensor, Tensor]:  # fmt: skip
    size, n = x.shape
    d_width, g_width = width_of(players.d), width_of(players.g)
    if n > MOST_POINTS or max(d_width, g_width) > MOST_UNITS:
        raise ValueError(
            f"{n} points and widths {d_width}, {g_width}: a program holds at most {MOST_POINTS} points and width "
            f"{MOST_UNITS}; KERNEL_BACKEND=reference has no limit"
        )
    if x.dtype is not torch.float32:
        raise ValueError(f"points in {x.dtype}: the kernel is float32; KERNEL_BACKEND=reference takes any")
    before = [p.contiguous() for p in players]
    after = [torch.empty_like(p) for p in before]
    losses = x.new_empty(size, iterations)
    counts = torch.empty(size, iterations, 2, dtype=torch.int32, device=x.device)
    first_step = (first * recipe.steps + 2**31) % 2**32 - 2**31
    with torch.cuda.device_of(x):
        population_kernel[(size,)](
            *before, x.contiguous(), z.contiguous(), windows.contiguous(), lr_d.contiguous(), lr_g.contiguous(),
            seeds.to(torch.int32).contiguous(), *after, losses, counts,
            n, first_step, iterations, recipe.d_steps, recipe.g_steps, recipe.momentum, recipe.factor,
            **options(recipe, n, d_width, g_width), **LAUNCH,
        )  # fmt: skip
    return Players(*after), losses, counts


def _build(recipe: Recipe) -> object:
    data = ("d_in", "g_in", "dv_in", "gv_in", "x", "z", "windows", "lr_d", "lr_g", "d_out", "g_out", "dv_out", "gv_out")
    pointers = dict.fromkeys((*data, "losses"), "data") | {"seeds": "*i32", "counts": "*i32"}
    name = f"{recipe.loss} {recipe.pairing}{' minimax' if recipe.generator == 'minimax' else ''}"
    return variant(
        population_kernel,
        name,
        dtype="fp32",
        pointers=pointers,
        numbers=("n", "first_step", "iterations", "d_steps", "g_steps"),
        scalars={"momentum": "fp32", "factor": "fp32"},
        constants=options(recipe, 100, 10, 5),
        launch=LAUNCH,
        aligned=False,
    )


AOT = [
    _build(recipe)
    for recipe in (
        Recipe("js"), Recipe("ls"), Recipe("hinge"), Recipe("rs"), Recipe("rs", "shuffled"), Recipe("rs", "all_pairs"),
        Recipe("rp_ls"), Recipe("rp_hinge"), Recipe("js", generator="minimax"), Recipe("rs", generator="minimax"),
    )
]  # fmt: skip
