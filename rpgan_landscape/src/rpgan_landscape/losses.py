"""Losses of both players on logits, separable and relativistic (section 7 of the specification).

With real logits r, fake logits f, and a penalty h: softplus(-t) (logistic), max(0, 1 - t) (hinge), (1 - t)^2 (ls):

    separable           D  mean h(r) + mean h(-f)          G  mean h(f)       (ls: f^2 for h(-f); hinge, w: G -mean f)
    fixed, batch        D  mean_i h(r_i - f_i)             G  the same with r and f exchanged
    all_pairs           D  mean_ij h(r_i - f_j)            G  the same with r and f exchanged
    average             D  1/2 [mean h(r - mean f) + mean h(mean r - f)]      G  the same with r and f exchanged

`fixed` and `batch` differ in the data alone: which fake a real meets, once and for all or in every batch anew. All are
minimised. For anybody's training loop:

    loss = RelativisticLoss("logistic", pairing="batch")
    loss.d_loss(critic(real), critic(fake.detach())).backward()         # step of the critic
    loss.g_loss(critic(real), critic(fake)).backward()                  # step of the generator
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

from rpgan_landscape.kernels.allpairs_relativistic import allpairs_relativistic
from rpgan_landscape.kernels.allpairs_relativistic.reference import penalty

Kind = Literal["logistic", "hinge", "ls", "w"]
Pairing = Literal["separable", "fixed", "batch", "all_pairs", "average"]
Generator = Literal["nonsaturating", "minimax"]


class LossError(UserError, ValueError):
    """A loss that does not exist, or logits that it is not defined for."""


# The names of section 7.
LOSSES: dict[str, tuple[Kind, Pairing]] = {
    "rp_logistic": ("logistic", "batch"),
    "rp_hinge": ("hinge", "batch"),
    "rp_ls": ("ls", "batch"),
    "sep_logistic": ("logistic", "separable"),
    "sep_hinge": ("hinge", "separable"),
    "sep_ls": ("ls", "separable"),
    "sep_w": ("w", "separable"),
    "ra_logistic": ("logistic", "average"),
    "ra_hinge": ("hinge", "average"),
    "ra_ls": ("ls", "average"),
    "allpairs_logistic": ("logistic", "all_pairs"),
    "allpairs_hinge": ("hinge", "all_pairs"),
    "allpairs_ls": ("ls", "all_pairs"),
}
# The names of section 2; its separable objectives carry a factor 1/2.
PAPER_NAMES = {"js": "sep_logistic", "ls": "sep_ls", "hinge": "sep_hinge", "w": "sep_w", "rs": "rp_logistic"}


def _known(what: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise LossError(f"unknown {what} {given!r}: use one of {', '.join(known)}")


@dataclass(frozen=True)
class RelativisticLoss:
    """One loss, for both players.

    Logits are computed with in float32 (float64 in float64), whatever their dtype and under autocast: softplus of
    16-bit numbers overflows. Any shape is taken, one logit an entry.

    Args:
        kind: `logistic` (JS-GAN, RS-GAN), `hinge`, `ls` (targets 0 and 1) or `w` (Wasserstein; `separable` alone, as a
            paired one is the same).
        pairing: which reals a fake is compared with: none (`separable`), its own row (`fixed`, `batch`), every one
            (`all_pairs`), their mean (`average`).
        generator: what G minimises: with `nonsaturating` D's loss for exchanged labels, as the reference trains; with
            `minimax` the negative of D's loss, as in the theory.
        halve_separable: D's separable loss is halved, as in section 2 and in the reference's two-cluster experiment,
            and not in its others. G's non-saturating loss never is.

    Raises:
        LossError (a ValueError): an unknown name, or `w` with another pairing.
    """

    kind: Kind = "logistic"
    pairing: Pairing = "batch"
    generator: Generator = "nonsaturating"
    halve_separable: bool = False

    def __post_init__(self) -> None:
        _known("kind", self.kind, get_args(Kind))
        _known("pairing", self.pairing, get_args(Pairing))
        _known("generator", self.generator, get_args(Generator))
        if self.kind == "w" and self.pairing != "separable":
            raise LossError("kind 'w' compares means, whatever the pairs: use pairing='separable'")

    @property
    def g_needs_real(self) -> bool:
        """Whether G's loss depends on the real logits; otherwise `g_loss(None, fake)` will do."""
        return self.pairing != "separable" or self.generator == "minimax"

    def d_loss(self, real: Float[Tensor, "*n"], fake: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
        """What the critic minimises.

        Raises:
            LossError (a ValueError): no logits, or unequal numbers of them unless `all_pairs` or `average`.
        """
        r, f = self._vectors(real, fake)
        if self.pairing != "separable":
            return self._relative(r, f)
        return self._separable(r, f) / 2 if self.halve_separable else self._separable(r, f)

    def g_loss(self, real: Float[Tensor, "*n"] | None, fake: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
        """What the generator minimises; its gradient flows through `fake`.

        Raises:
            LossError (a ValueError): as `d_loss`; `real` is None and `g_needs_real`.
        """
        if not self.g_needs_real:
            f = _vector(fake, "fake")
            return -f.mean() if self.kind in ("hinge", "w") else penalty(f, self.kind).mean()  # type: ignore[arg-type]
        if real is None:
            raise LossError(f"G's {self.pairing} {self.generator} loss needs the real logits: pass them too")
        if self.generator == "minimax":
            return -self.d_loss(real, fake)
        r, f = self._vectors(real, fake)
        return self._relative(f, r)

    def _vectors(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        r, f = _vector(real, "real"), _vector(fake, "fake")
        if len(r) != len(f) and self.pairing not in ("all_pairs", "average"):
            raise LossError(
                f"{len(r)} real and {len(f)} fake logits, and pairing {self.pairing!r} needs as many of both: cut the "
                "longer batch, or use pairing all_pairs or average"
            )
        return r, f

    def _separable(self, r: Tensor, f: Tensor) -> Tensor:
        if self.kind == "w":
            return f.mean() - r.mean()
        fakes = f.square() if self.kind == "ls" else penalty(-f, self.kind)
        return penalty(r, self.kind).mean() + fakes.mean()

    def _relative(self, r: Tensor, f: Tensor) -> Tensor:
        assert self.kind != "w"
        if self.pairing == "all_pairs":
            return allpairs_relativistic(r, f, self.kind)
        if self.pairing == "average":
            return (penalty(r - f.mean(), self.kind).mean() + penalty(r.mean() - f, self.kind).mean()) / 2
        return penalty(r - f, self.kind).mean()


def _vector(logits: Tensor, which: str) -> Tensor:
    """One logit an entry, in float32 or float64."""
    if not logits.numel():
        raise LossError(f"no {which} logits: the batch is empty")
    return logits.flatten().to(torch.float64 if logits.dtype is torch.float64 else torch.float32)


def named_loss(
    name: str, generator: Generator = "nonsaturating", halve_separable: bool | None = None
) -> RelativisticLoss:
    """The loss of a name of section 7 (`rp_logistic`, ...) or section 2 (`js`, `ls`, `hinge`, `w`, `rs`).

    Args:
        halve_separable: None: as the name says, halved for `js`, `ls`, `hinge` and `w`, not halved for `sep_*`.

    Raises:
        LossError (a ValueError): an unknown name; the known ones are listed.
    """
    full = PAPER_NAMES.get(name, name)
    _known("loss", full, (*LOSSES, *PAPER_NAMES))
    kind, pairing = LOSSES[full]
    halve = name in PAPER_NAMES if halve_separable is None else halve_separable
    return RelativisticLoss(kind, pairing, generator, halve and pairing == "separable")
