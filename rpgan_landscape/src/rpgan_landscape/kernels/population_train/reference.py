"""K1 in plain PyTorch: S GANs on a line trained as one tensor program, with the gradients written out.

A layer of all S networks is one batched product. Each network has one unit more per hidden layer, with input 100, whose
activation is exactly 1 and whose derivative is therefore exactly 0 (sigmoid(100) and tanh(100) round to 1): the biases
are that unit's outgoing weights, so a layer is a product and an activation, its gradient another product, and all of
it stays contiguous. The product of a gradient adds to the velocity directly: `v = momentum v + gradient` costs nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .recipe import Players, Recipe, width_of

ON = 100.0
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input
PAIR_BLOCK = 2**17  # entries of the matrices of differences that all_pairs holds at a time: they stay in the L2 cache
MAX_SHUFFLED = 4096  # 19 random bits of a key are left for the order of so many points


class Layers:
    """Weights and velocities of S networks 1 - w - w - 1 with the always-on unit, in one buffer each."""

    def __init__(self, parameters: Tensor, velocity: Tensor, lr: Tensor) -> None:
        self.width = width_of(parameters)
        w, size = self.width, parameters.shape[0]
        self.shapes = [(size, w + 1, 2), (size, w + 1, w + 1), (size, 1, w + 1)]
        sizes = [a * b * c for a, b, c in self.shapes]
        self.flat, self.flat_velocity = parameters.new_zeros(sum(sizes)), parameters.new_zeros(sum(sizes))
        self.weights = [x.view(s) for x, s in zip(self.flat.split(sizes), self.shapes)]
        self.velocities = [x.view(s) for x, s in zip(self.flat_velocity.split(sizes), self.shapes)]
        self.transposed = [x.transpose(1, 2) for x in self.weights]
        self.input_weights = self.transposed[0][:, :1]
        self.negative_lr = torch.cat([(-lr[:, None]).expand(size, k // size).flatten() for k in sizes])
        for packed, layers in ((parameters, self.weights), (velocity, self.velocities)):
            for view, x in zip(self.parts(layers), self.pieces(packed)):
                view.copy_(x)
        for layer in self.weights[:2]:
            layer[:, w, -1] = ON if layer is self.weights[0] else 0.0
        self.weights[1][:, w, w] = ON

    def parts(self, layers: list[Tensor]) -> list[Tensor]:
        """Views of W1, b1, W2, b2, W3, b3 within the layers."""
        w = self.width
        first, second, last = layers
        return [
            first[:, :w, :1],
            first[:, :w, 1:],
            second[:, :w, :w],
            second[:, :w, w:],
            last[:, :, :w],
            last[:, :, w:],
        ]

    def pieces(self, packed: Tensor) -> list[Tensor]:
        """W1, b1, W2, b2, W3, b3 of packed rows."""
        shapes = [part.shape for part in self.parts(self.weights)]
        return [x.reshape(s) for x, s in zip(packed.split([s[1] * s[2] for s in shapes], 1), shapes)]

    def pack(self, layers: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in self.parts(layers)], 1)

    def descend(self) -> None:
        """`w = w - lr v` with the learning rate of each GAN."""
        self.flat.addcmul_(self.flat_velocity, self.negative_lr)


def mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words that scatters them (C. Wellons' lowbias32), on int32."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x.mul_(0x7FEB352D)
    x ^= (x >> 15) & 0x1FFFF
    x.mul_(0x846CA68B - 2**32)
    x ^= (x >> 16) & 0xFFFF
    return x


def word(x: int) -> int:
    """The int32 with the bits of `x mod 2^32`."""
    x &= 0xFFFFFFFF
    return x - 2**32 if x >= 2**31 else x


def shuffles(seeds: Tensor, first: int, steps: int, n: int) -> Tensor:
    """Pairings of the steps `first`, `first + 1`, ...: [S, steps, n], real i with fake `shuffles[s, t, i]`.

    The order of n random words, which are functions of the GAN's seed, the step's number and the point's: a run goes on
    after an interruption without a generator's state, and a kernel draws the same pairings where it runs.
    """
    low = (1 << (n - 1).bit_length()) - 1
    step = torch.tensor([word(t) for t in range(first, first + steps)], dtype=torch.int32, device=seeds.device)
    point = torch.arange(n, dtype=torch.int32, device=seeds.device)
    keys = mix(mix(mix(seeds.to(torch.int32))[:, None] ^ step)[:, :, None] ^ point)
    keys = (keys & (0x7FFFFFFF & ~low)) | point
    # numpy sorts short rows 15 times as fast as torch
    keys = torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values
    return (keys & low).long()


def pull(cost: str, t: Tensor) -> Tensor:
    """Derivative of the cost u(t), in place."""
    if cost == "logistic":
        return t.sigmoid_()
    if cost == "ls":
        return t.add_(1).mul_(2)
    return t.gt_(-1)


def cost_value(cost: str, t: Tensor) -> Tensor:
    """The cost u(t) itself; softplus exact for every t."""
    if cost == "logistic":
        return -logsigmoid(-t)
    return (1 + t).square() if cost == "ls" else (1 + t).relu()


class Program:
    """The S GANs in training: every buffer of a step is allocated here, once."""

    def __init__(
        self, players: Players, x: Tensor, z: Tensor, windows: Tensor, lr_d: Tensor, lr_g: Tensor, recipe: Recipe
    ) -> None:
        size, n = x.shape
        self.recipe, self.n, self.z = recipe, n, z[:, None]
        self.d = Layers(players.d, players.d_velocity, lr_d)
        self.g = Layers(players.g, players.g_velocity, lr_g)
        wide, narrow = self.d.width + 1, self.g.width + 1
        self.low, self.high = windows[..., :1].contiguous(), windows[..., 1:].contiguous()
        self.real = torch.stack([x, torch.ones_like(x)], 1)
        self.both = torch.cat([self.real, self.real], 2)  # reals, then fakes
        self.fake, self.latent = torch.ones_like(self.real), torch.ones_like(self.real)
        self.latent[:, :1] = self.z
        self.y = x.new_empty(size, 1, n)
        self.sign = torch.ones(2 * n, dtype=x.dtype, device=x.device)
        self.sign[:n] = -1
        self.target = (self.sign < 0).to(x.dtype)  # of LS
        # D on reals and fakes; D on fakes; G
        self.d_both = [x.new_empty(size, k, 2 * n) for k in (wide, wide, 1, wide, wide, 1)]
        self.d_fake = [x.new_empty(size, k, n) for k in (wide, wide, 1, wide, wide, 1)]
        self.hidden = [x.new_empty(size, narrow, n) for _ in range(4)]
        self.input_gradient, self.f_real = x.new_empty(size, 1, n), x.new_empty(size, 1, n)
        block = min(size, max(1, PAIR_BLOCK // (n * n))) if recipe.pairing == "all_pairs" else 0
        self.pairs = x.new_empty(block, n, n)

    def discriminate(self, points: Tensor, a1: Tensor, a2: Tensor, f: Tensor) -> None:
        w1, w2, w3 = self.d.weights
        torch.bmm(w1, points, out=a1).sigmoid_()
        torch.bmm(w2, a1, out=a2).sigmoid_()
        torch.bmm(w3, a2, out=f)

    def generate(self) -> None:
        """Fakes of `latent` into `y`."""
        u1, u2, u3 = self.g.weights
        h1, h2 = self.hidden[:2]
        torch.bmm(u1, self.latent, out=h1).tanh_()
        torch.bmm(u2, h1, out=h2).tanh_()
        torch.bmm(u3, h2, out=self.y)

    def backward(self, a1: Tensor, a2: Tensor, delta: Tensor, d1: Tensor, d2: Tensor) -> None:
        """From the gradient `delta` of D's output to those of its pre-activations `d2` and `d1`."""
        torch.mul(self.d.transposed[2], delta, out=d2)
        sigmoid_backward(d2, a2, grad_input=d2)
        torch.bmm(self.d.transposed[1], d2, out=d1)
        sigmoid_backward(d1, a1, grad_input=d1)

    def d_step(self, recorded: Tensor | None = None) -> None:
        """One step of D on the fakes in `both`; its loss before the update goes into `recorded`."""
        a1, a2, f, d1, d2, delta = self.d_both
        self.discriminate(self.both, a1, a2, f)
        if recorded is not None:
            recorded.copy_(self.d_loss(f))
        self.d_gradient(f, delta)
        self.backward(a1, a2, delta, d1, d2)
        scale, momentum = self.recipe.factor / self.n, self.recipe.momentum
        for velocity, gradient, below in zip(self.d.velocities, (d1, d2, delta), (self.both, a1, a2)):
            velocity.baddbmm_(gradient, below.transpose(1, 2), beta=momentum, alpha=scale)
        self.d.descend()

    def g_step(self) -> None:
        """One step of G, through D as it is."""
        h1, h2, e1, e2 = self.hidden
        a1, a2, f, d1, d2, delta = self.d_fake
        self.generate()
        self.fake[:, :1] = self.y
        self.discriminate(self.fake, a1, a2, f)
        self.g_gradient(f, delta)
        self.backward(a1, a2, delta, d1, d2)
        torch.bmm(self.d.input_weights, d1, out=self.input_gradient)
        torch.mul(self.g.transposed[2], self.input_gradient, out=e2)
        tanh_backward(e2, h2, grad_input=e2)
        torch.bmm(self.g.transposed[1], e2, out=e1)
        tanh_backward(e1, h1, grad_input=e1)
        gradients, below = (e1, e2, self.input_gradient), (self.latent, h1, h2)
        for velocity, gradient, b in zip(self.g.velocities, gradients, below):
            velocity.baddbmm_(gradient, b.transpose(1, 2), beta=self.recipe.momentum, alpha=1 / self.n)
        self.g.descend()

    def d_loss(self, f: Tensor) -> Tensor:
        """D's loss of each GAN (section 7), from its outputs on reals and fakes."""
        recipe, n = self.recipe, self.n
        real, fake = f[:, 0, :n], f[:, 0, n:]
        if recipe.pairing == "all_pairs":
            values = [cost_value(recipe.cost, b[:, None] - a[:, :, None]).mean((1, 2)) for a, b in zip(
                real.split(len(self.pairs)), fake.split(len(self.pairs)))]  # fmt: skip
            return torch.cat(values)
        if recipe.relativistic:
            return cost_value(recipe.cost, fake - real).mean(1)
        shift = 1 if recipe.loss == "ls" else 0
        return recipe.factor * (cost_value(recipe.cost, -real).mean(1) + cost_value(recipe.cost, fake - shift).mean(1))

    def d_gradient(self, f: Tensor, delta: Tensor) -> None:
        """n times the derivative of D's loss (not halved) by its outputs."""
        recipe, n = self.recipe, self.n
        if recipe.loss == "ls":
            torch.sub(f, self.target, out=delta).mul_(2)
        elif not recipe.relativistic:
            pull(recipe.cost, torch.mul(f, self.sign, out=delta)).mul_(self.sign)
        else:
            real, fake = delta[:, :, :n], delta[:, :, n:]
            if recipe.pairing == "all_pairs":
                self.all_pairs(f[:, :, :n], f[:, :, n:], real, fake)
                real.neg_()
            else:
                pull(recipe.cost, torch.sub(f[:, :, n:], f[:, :, :n], out=fake))
                torch.neg(fake, out=real)

    def g_gradient(self, f: Tensor, delta: Tensor) -> None:
        """n times the derivative of G's loss by D's outputs on the fakes."""
        recipe, minimax = self.recipe, self.recipe.generator == "minimax"
        if recipe.pairing == "all_pairs" and minimax:
            self.all_pairs(self.f_real, f, None, delta)
        elif recipe.pairing == "all_pairs":
            self.all_pairs(f, self.f_real, delta, None)
        elif recipe.relativistic:
            pull(recipe.cost, torch.sub(f, self.f_real, out=delta) if minimax else torch.sub(self.f_real, f, out=delta))
        elif minimax:
            pull(recipe.cost, torch.sub(f, 1 if recipe.loss == "ls" else 0, out=delta))
        elif recipe.loss == "hinge":
            delta.fill_(1)
        else:
            pull(recipe.cost, torch.neg(f, out=delta))
        delta.neg_()

    def all_pairs(self, low: Tensor, high: Tensor, by_low: Tensor | None, by_high: Tensor | None) -> None:
        """Means of `u'(high_j - low_i)` over j for every i, over i for every j, where they are asked for.

        LS from the means of either side, hinge by sorting and counting, logistic from the matrix of all differences.
        """
        cost, n = self.recipe.cost, self.n
        if cost == "ls":
            if by_low is not None:
                by_low.copy_(high.mean(2, keepdim=True) - low).add_(1).mul_(2)
            if by_high is not None:
                by_high.copy_(high - low.mean(2, keepdim=True)).add_(1).mul_(2)
        elif cost == "hinge":  # u'(high_j - low_i) = 1 where high_j > low_i - 1
            if by_low is not None:
                below = torch.searchsorted(high.sort().values, low - 1, right=True)
                by_low.copy_(n - below).div_(n)
            if by_high is not None:
                by_high.copy_(torch.searchsorted(low.sort().values, high + 1)).div_(n)
        else:
            for start in range(0, low.shape[0], len(self.pairs)):
                block = slice(start, start + len(self.pairs))
                a, b = low[block].transpose(1, 2), high[block]
                matrix = torch.sub(b, a, out=self.pairs[: len(b)]).sigmoid_()
                if by_low is not None:
                    torch.mean(matrix, 2, out=by_low[block, 0])
                if by_high is not None:
                    torch.mean(matrix, 1, out=by_high[block, 0])

    def iterate(self, orders: Tensor | None, recorded: Tensor) -> None:
        """One iteration: the steps of D on fakes held fixed, then the steps of G.

        `orders` [S, 1, n, steps]: the fakes in the order of the reals that they are paired with, at every step.
        """
        n, recipe = self.n, self.recipe
        self.both[:, :1, n:] = self.y
        for k in range(recipe.d_steps):
            if orders is not None:
                torch.gather(self.y, 2, orders[:, k, None], out=self.both[:, :1, n:])
            self.d_step(recorded if k == recipe.d_steps - 1 else None)
        if recipe.relativistic:  # D does not change any more: f(x) of all steps of G
            a1, a2 = self.d_fake[:2]
            self.discriminate(self.real, a1, a2, self.f_real)
        for k in range(recipe.d_steps, recipe.steps):
            if orders is not None:
                torch.gather(self.z, 2, orders[:, k, None], out=self.latent[:, :1])
            self.g_step()
        if orders is not None:
            self.latent[:, :1] = self.z
        self.generate()

    def count(self) -> Tensor:
        """How many fakes lie in each cluster's window."""
        return ((self.y >= self.low) & (self.y <= self.high)).sum(2)


@torch.no_grad()
def population_train(
    players: Players, x: Tensor, z: Tensor, windows: Tensor, lr_d: Tensor, lr_g: Tensor, seeds: Tensor,
    recipe: Recipe, first: int, iterations: int,
) -> tuple[Players, Tensor, Tensor]:  # fmt: skip
    size, n = x.shape
    if recipe.pairing == "shuffled" and n > MAX_SHUFFLED:
        raise ValueError(f"shuffled pairing of {n} points: at most {MAX_SHUFFLED}")
    d_loss = x.new_empty(size, iterations)
    counts = torch.empty(size, iterations, windows.shape[1], dtype=torch.int32, device=x.device)
    program = Program(players, x, z, windows, lr_d, lr_g, recipe)
    program.generate()
    for i in range(iterations):
        orders = None
        if recipe.pairing == "shuffled":
            orders = shuffles(seeds, (first + i) * recipe.steps, recipe.steps, n)
        program.iterate(orders, d_loss[:, i])
        counts[:, i] = program.count()
    d, g = program.d, program.g
    after = Players(d.pack(d.weights), g.pack(g.weights), d.pack(d.velocities), g.pack(g.velocities))
    return after, d_loss, counts
