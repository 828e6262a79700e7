"""Does the penalty help out of a bad attractor? Two games on points, ours (section 10, B1): no outcome is promised.

two_clusters   100 points at 0 and 4 in one batch; 10 steps of D and 10 of G an epoch, gradient descent with momentum
ring           100 points of five Gaussians on a circle; trained as the digits are (hinge, Adam, 2 steps of D)

All seeds train as one tensor program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from shared.errors import UserError
from shared.resume import load_state, save_state
from torch import Tensor, nn

from diggan.data.draws import image_rows, stream
from diggan.evaluation import TAIL, d_statistics
from diggan.nets.toy import ClusterDiscriminator, ClusterGenerator, RingDiscriminator, RingGenerator
from diggan.population import SideBySide
from diggan.rivals import build
from diggan.training import Batch, Game, adam

CHECKPOINT = "toy.pt"
KEYS = {"game", "epochs", "regulariser", "weight", "variant"}
GAMES = ("two_clusters", "ring")
CLUSTERS, WIDTH = (0.0, 4.0), 0.3
MODES, RADIUS, SPREAD = 5, 2.0, 0.05
POINTS, LATENTS = 100, 100  # on the ring, 1000 fakes are looked at
REACH = {"two_clusters": 0.5, "ring": 4 * SPREAD}  # a fake belongs to a mode within this distance of it
LEAST = {"two_clusters": 0.1, "ring": 0.02}  # share of the fakes that covers a mode
SAVE_EVERY = 500  # epochs
LOOK_EVERY = {"two_clusters": 50, "ring": 250}  # epochs


def points(game: str, seed: int) -> Float[Tensor, "100 d"]:
    """Training points of a seed, equal numbers of every mode."""
    random = stream(seed, f"points of {game}")
    if game == "two_clusters":
        side = torch.tensor(CLUSTERS).repeat_interleave(POINTS // 2)
        return (side + WIDTH * torch.rand(POINTS, generator=random))[:, None]
    return centres(game).repeat(POINTS // MODES, 1) + SPREAD * torch.randn(POINTS, 2, generator=random)


def centres(game: str) -> Float[Tensor, "modes d"]:
    if game == "two_clusters":
        return torch.tensor(CLUSTERS)[:, None] + WIDTH / 2
    angle = 2 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], 1)


def shares(game: str, fakes: Float[Tensor, "R n d"]) -> Float[Tensor, "R modes"]:
    """Share of each network's fakes within the reach of each mode."""
    middle = centres(game).to(fakes)
    return (torch.cdist(fakes, middle.expand(len(fakes), *middle.shape)) <= REACH[game]).double().mean(1)


def run(section: dict[str, Any], seeds: Sequence[int], directory: Path, dry: bool = False) -> dict[int, dict[str, Any]]:
    """Play a game for each seed; results by seed. Goes on from `directory`.

    Args:
        section: `game`, `epochs`, `regulariser`, `weight` and `variant`.
        dry: two epochs, nothing saved.

    Raises:
        UserError: an unknown key or game (the known are listed); as `rivals.build`.
    """
    for key in section:
        if key not in KEYS:
            raise UserError(f"configuration: unknown key 'toy.{key}'; it has: {', '.join(sorted(KEYS))}")
    game = section.get("game", "two_clusters")
    if game not in GAMES:
        raise UserError(f"configuration: unknown game {game!r}: there are {', '.join(GAMES)}")
    play = Play(
        game, seeds, section.get("regulariser", "none"), section.get("weight"), section.get("variant", "official")
    )
    path, made_with = directory / CHECKPOINT, {"seeds": list(seeds), **section}
    if path.is_file() and not dry:
        play.load(load_state(path, made_with))
    epochs = 2 if dry else int(section.get("epochs", 5000))
    while play.epoch < epochs:
        play.one_epoch()
        if play.epoch % LOOK_EVERY[game] == 0 or play.epoch == epochs:
            play.look()
        if play.epoch % SAVE_EVERY == 0 and not dry:
            save_state(path, made_with, play.state())
    path.unlink(missing_ok=True)
    return dict(zip(seeds, play.results()))


class Play:
    """The networks of all seeds, and what was seen of them."""

    def __init__(self, game: str, seeds: Sequence[int], regulariser: Any, weight: float | None, variant: Any) -> None:
        pairs: list[tuple[nn.Module, nn.Module]] = []
        for seed in seeds:
            torch.manual_seed(seed)
            if game == "two_clusters":
                pairs.append((ClusterGenerator(), ClusterDiscriminator()))
            else:
                pairs.append((RingGenerator(), RingDiscriminator()))
        g, d = (SideBySide(list(side)) for side in zip(*pairs))
        own = build(regulariser, weight, variant)
        loss = "nonsaturating" if game == "two_clusters" else "hinge"
        self.game, self.seeds, self.epoch = game, list(seeds), 0
        self.pair = Game(g, d, [own] if own else [], loss, ema=0.0, axis=1)  # type: ignore[arg-type]
        self.x = torch.stack([points(game, seed) for seed in seeds])
        if game == "two_clusters":
            self.opts: Any = [torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9) for net in (g, d)]
            self.z = torch.stack([10 * torch.rand(LATENTS, 1, generator=stream(s, "latents")) - 5 for s in seeds])
        else:
            self.opts = [adam(net, 5e-4) for net in (g, d)]
            self.z = torch.stack([torch.randn(1000, g.latent, generator=stream(s, "fixed latents")) for s in seeds])
        self.curves: list[dict[str, list[float]]] = [{"covered": [], "gap": []} for _ in seeds]

    def one_epoch(self) -> None:
        opt_g, opt_d = self.opts
        if self.game == "ring":
            updates = 3
            rows = torch.stack([image_rows(POINTS, s, self.epoch * 64, 64).view(2, 32) for s in self.seeds], 1)
            x = self.x[torch.arange(len(self.seeds))[:, None], rows]
            z = torch.stack(
                [
                    torch.randn(updates, 32, self.z.shape[-1], generator=stream(s, "latents", self.epoch))
                    for s in self.seeds
                ],
                1,
            )
            self.pair.iterate(Batch(x, None, z, None), opt_g, opt_d)
        else:
            batch = Batch(self.x.expand(10, *self.x.shape), None, self.z.expand(11, *self.z.shape), None)
            self.pair.iteration += 1
            self.pair.g.requires_grad_(False)
            for step in range(10):
                self.pair.update_d(batch, step, opt_d, torch.Tensor.backward)
            self.pair.g.requires_grad_(True)
            self.pair.d.requires_grad_(False)
            for _ in range(10):
                self.pair.update_g(batch, opt_g, torch.Tensor.backward)
            self.pair.d.requires_grad_(True)
        self.epoch += 1

    def look(self) -> None:
        with torch.no_grad():
            fakes = self.pair.g(self.z)
        covered = (shares(self.game, fakes) >= LEAST[self.game]).sum(1).tolist()
        statistics = d_statistics(self.pair.d, self.x, self.x, fakes[:, :POINTS], axis=1)
        for curves, modes, gap in zip(self.curves, covered, statistics["gap"].tolist()):
            curves["covered"].append(float(modes))
            curves["gap"].append(gap)

    def results(self) -> list[dict[str, Any]]:
        """`first_covered` of a run that never covers all modes is its number of epochs."""
        out, every, modes = [], LOOK_EVERY[self.game], len(centres(self.game))
        for curves in self.curves:
            full = [i for i, v in enumerate(curves["covered"]) if v == modes]
            out.append(
                {
                    "modes": curves["covered"][-1],
                    "all_modes": float(curves["covered"][-1] == modes),
                    "ever_all_modes": float(bool(full)),
                    "first_covered": float((full[0] + 1) * every if full else self.epoch),
                    "tail/gap": sum(curves["gap"][-TAIL:]) / len(curves["gap"][-TAIL:]),
                    "epochs": float(self.epoch),
                    **{f"curve/{name}": values for name, values in curves.items()},
                }
            )
        return out

    def state(self) -> dict[str, Any]:
        opts = [opt.state_dict() for opt in self.opts]
        return {"pair": self.pair.state_dict(), "opts": opts, "curves": self.curves, "epoch": self.epoch}

    def load(self, state: dict[str, Any]) -> None:
        self.pair.load_state_dict(state["pair"])
        for opt, saved in zip(self.opts, state["opts"]):
            opt.load_state_dict(saved)
        self.curves, self.epoch = state["curves"], state["epoch"]
        self.pair.iteration = self.epoch
