"""Small GANs that train side by side as one tensor program: the fast way to many seeds (section 10).

Every network has the weights, the images and the draws of the run that `module.DigGAN` makes of the same seed, so it
is that run, up to the rounding of sums in another order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from shared.errors import UserError
from shared.resume import load_state, save_state
from torch import Tensor, nn

from diggan.data import LimitedImages
from diggan.data.draws import CHUNK, Stream, stream
from diggan.data.images import spread
from diggan.evaluation import Judge, d_statistics, rounded, summary, thumbnails
from diggan.features import local_features, quantised
from diggan.kernels.fused_diffaugment import Draws
from diggan.module import LOOKED_AT, DigGAN
from diggan.nets.small import MLPDiscriminator, MLPGenerator
from diggan.regulariser import Random
from diggan.training import Batch, Game, Terms, adam

CHECKPOINT = "population.pt"


class SideBySide(nn.Module):
    """Perceptrons of one shape with stacked weights: inputs [R, B, *], outputs [R, B, *]."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        first = networks[0]
        if not isinstance(first, MLPGenerator | MLPDiscriminator):
            raise UserError("only mlp64 and mlp784 train side by side: leave out `together` for other networks")
        self.generates, self.classes, self.image = isinstance(first, MLPGenerator), 0, first.image
        self.latent = first.latent if isinstance(first, MLPGenerator) else 0
        self.hidden, self.output = first.hidden, first.output
        rows = [list(net.layers) for net in networks]  # type: ignore[arg-type]
        self.weights = nn.ParameterList(torch.stack([m.weight.T for m in layer]).detach() for layer in zip(*rows))
        self.biases = nn.ParameterList(torch.stack([m.bias[None] for m in layer]).detach() for layer in zip(*rows))

    def forward(self, x: Float[Tensor, "R B ..."]) -> Float[Tensor, "R B ..."]:
        x = x.flatten(2)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            x = self.hidden(x) if i < len(self.weights) - 1 else self.output(x)
        return x.unflatten(2, self.image) if self.generates else x[..., 0]


class Draw:
    """The batches of all networks, iteration by iteration."""

    def __init__(self, images: Float[Tensor, "R n c h w"], streams: Sequence[Stream]) -> None:
        self.images, self.streams, self.number = images, streams, -1

    def at(self, k: int) -> Batch:
        number, i = divmod(k, CHUNK)
        if number != self.number:
            self.number = number
            chunks = [s.at(k)[0] for s in self.streams]
            networks = torch.arange(len(chunks))[:, None]
            self.rows = torch.stack([c.rows for c in chunks], 2)  # [chunk, d_steps, R, B]
            self.networks = networks
            self.z = torch.stack([c.z for c in chunks], 2)
            self.augment = [
                Draws(*(None if column[0] is None else torch.cat(column) for column in zip(*parts)))
                for parts in zip(*(c.augment for c in chunks))
            ]
        batches = self.z.shape[1]
        x = self.images[self.networks, self.rows[i]]
        augment = self.augment[i * batches : (i + 1) * batches]
        return Batch(x, None, self.z[i], None, augment, Random([s.random(k) for s in self.streams]))


def run_population(
    model: dict[str, Any], data: dict[str, Any], epochs: int, seeds: Sequence[int], directory: Path, dry: bool = False
) -> dict[int, dict[str, Any]]:
    """Train a GAN for each seed; results by seed, as `DigGAN.results`. Goes on from `directory`.

    Args:
        model, data: settings of `DigGAN` and `LimitedImages`.
        epochs: of `data.iterations` G iterations each, with a look after each and one before the first.
        dry: two iterations, small looks, nothing saved.

    Raises:
        UserError: as these two; a network that is no perceptron; a damaged checkpoint, a full disk.
    """
    modules, sets = [], []
    for seed in seeds:
        torch.manual_seed(seed)
        modules.append(DigGAN(**model))
        sets.append(LimitedImages(**data))
        sets[-1].setup()
    settings, first = modules[0], sets[0]
    settings.check(first.source)
    if settings.game.auto is not None:
        raise UserError("weight: auto sets one weight for all networks: leave out `together`, or give a number")
    game = Game(
        SideBySide([m.game.g for m in modules]), SideBySide([m.game.d for m in modules]),
        [settings.regulariser] if settings.regulariser else [], settings.game.loss, settings.game.policy,
        settings.game.grad_wrt, settings.game.ema, settings.game.ema_start, axis=1, auto=settings.game.auto,
        accumulate=settings.game.accumulate,
    )  # fmt: skip
    opt_g, opt_d = (adam(net, lr, settings.betas) for net, lr in ((game.g, settings.lr_g), (game.d, settings.lr_d)))
    for each in sets:
        each.plan_options = settings.plan_options()
    draw = Draw(torch.stack([s.images for s in sets]), [Stream(s.plan, s.seed) for s in sets])
    looks = Looks(settings, sets, directory.parent / "features", 64 if dry else settings.samples)
    path = directory / CHECKPOINT
    made_with = {"seeds": list(seeds), "subsets": [s.subset_crc for s in sets]}
    start = 0
    if not dry and path.is_file():
        state = load_state(path, made_with)
        game.load_state_dict(state["game"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        looks.curves, game.iteration, start = state["curves"], state["iteration"], state["epoch"]
        game.penalty = state["penalty"]
    if not dry:
        for each, seed in zip(sets, seeds):
            each.save_subset(directory / f"seed-{seed}" if len(seeds) > 1 else directory)
    if not looks.curves[0]:
        looks.look(game)
    seconds = 0.0
    terms: Terms | None = None
    for epoch in range(start, 1 if dry else epochs):
        for k in range(epoch * first.iterations, epoch * first.iterations + (2 if dry else first.iterations)):
            started = time.perf_counter()
            terms = game.iterate(draw.at(k), opt_g, opt_d)
            seconds = time.perf_counter() - started  # of the last
        looks.look(game, terms)
        if not dry:
            state = {"game": game.state_dict(), "opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
            more = {"curves": looks.curves, "iteration": game.iteration, "epoch": epoch + 1, "penalty": game.penalty}
            save_state(path, made_with, {**state, **more})
    results = looks.results(game, 64 if dry else settings.final_samples)
    if dry:  # of all networks together
        hours = seconds * epochs * first.iterations / 3600
        results = [{**result, **settings.sizes(), "plan/hours here": hours} for result in results]
    path.unlink(missing_ok=True)
    return dict(zip(seeds, results))


class Looks:
    """What `DigGAN.look` sees, of every network."""

    def __init__(self, settings: DigGAN, sets: Sequence[LimitedImages], features: Path, samples: int) -> None:
        source = sets[0].source
        self.judge = Judge(local_features(source, features), sets[0].reference())
        rest = [s.validation() for s in sets]
        self.validation = [self.judge.extractor.extract(r)[0] if len(r) > 1 else None for r in rest]
        self.sets, self.samples, self.pictures = sets, samples, settings.pictures
        rows = spread(len(sets[0].images), min(LOOKED_AT, samples))
        self.train = torch.stack([s.images[rows] for s in sets])
        held_out = sets[0].held_out(LOOKED_AT)[0]
        self.held_out = held_out.expand(len(sets), *held_out.shape)
        self.curves: list[dict[str, list[float]]] = [{} for _ in sets]

    @torch.no_grad()
    def sampled(self, game: Game, count: int) -> Float[Tensor, "R count c h w"]:
        latent = int(game.g.latent)  # type: ignore[arg-type]
        z = torch.stack([torch.randn(count, latent, generator=stream(s.seed, "samples")) for s in self.sets])
        return quantised(game.sampler(z))

    def look(self, game: Game, terms: Terms | None = None) -> None:
        """Before training there are no `terms`."""
        fakes = self.sampled(game, self.samples)
        statistics = d_statistics(game.d, self.train, self.held_out, fakes[:, : self.train.shape[1]], axis=1)
        for place, (curves, fake) in enumerate(zip(self.curves, fakes)):
            features = self.judge.extractor.extract(fake)[0]
            values = {
                "fid": self.judge.frechet(features),
                **{name: value[place].item() for name, value in statistics.items()},
            }
            if (others := self.validation[place]) is not None:
                values["val_fid"] = self.judge.frechet(features, others)
            if terms is not None:
                values |= {"d_loss": float((terms.d_real + terms.d_fake)[place]), "g_loss": float(terms.g[place])}
                if terms.penalty is not None:
                    values["penalty"] = float(terms.penalty[place])
            for name, value in values.items():
                curves.setdefault(name, []).append(value)

    def results(self, game: Game, count: int) -> list[dict[str, Any]]:
        out = []
        for curves, own, fake in zip(self.curves, self.sets, self.sampled(game, count)):
            final = self.judge.scores(fake, own.images)
            followed = {f"curve/{name}": rounded(values) for name, values in curves.items()}
            out.append({**final, **summary(curves), **followed, "subset": float(own.subset_crc)})
            if len(out) == 1:  # one network's for the picture
                out[0] |= thumbnails(fake, own.images, self.pictures)
        return out
