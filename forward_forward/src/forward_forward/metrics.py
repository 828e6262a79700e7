"""What is measured on the goodness of all labels (sections 2.5 and 7)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from forward_forward.entropy import entropy_report


def rules(g: Float[Tensor, "n c k"]) -> dict[str, Float[Tensor, "n c"]]:
    """Scores by every decision rule: the sum, single layers, prefix sums, the sum without the first layer."""
    k = g.shape[2]
    scores = {"error": g.sum(2)}
    for i in range(k):
        scores[f"error_layer{i + 1}"] = g[:, :, i]
        scores[f"error_prefix{i + 1}"] = g[:, :, : i + 1].sum(2)
    if k > 1:
        scores["error_without_layer1"] = g[:, :, 1:].sum(2)
    return scores


def error_percent(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Tensor:
    """Error in percent. `argmax` returns the first maximum, so ties go to the smallest label."""
    return 100 * (scores.argmax(1) != labels).double().mean()


class GoodnessMetrics(Metric):
    """Collects the goodness of all labels over a data set; computes errors, pair statistics and entropies.

    Negatives are `(y + 1 + n mod (C-1)) mod C` with n the sample's place: every wrong label equally often, no draw.
    """

    full_state_update = False
    g: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("g", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, g: Float[Tensor, "n c k"], labels: Int[Tensor, " n"]) -> None:
        self.g.append(g)
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        g, labels = torch.cat(list(self.g)), torch.cat(list(self.labels))
        out = {name: error_percent(scores, labels) for name, scores in rules(g).items()}
        n = torch.arange(len(labels), device=labels.device)
        wrong = (labels + 1 + n % (g.shape[1] - 1)) % g.shape[1]
        positive, negative = g[n, labels], g[n, wrong]
        for i in range(g.shape[2]):
            out[f"goodness_positive_layer{i + 1}"] = positive[:, i].mean()
            out[f"goodness_negative_layer{i + 1}"] = negative[:, i].mean()
            out[f"pairwise_error_layer{i + 1}"] = 100 * (negative[:, i] >= positive[:, i]).double().mean()
        for sign, part in (("positive", positive), ("negative", negative)):
            report = entropy_report(part)
            out[f"entropy_{sign}"] = report["total"]
            out[f"entropy_{sign}_between_layers"] = report["between_layers"]
            out[f"entropy_{sign}_within_layers"] = report["within_per_layer"].mean()
            out[f"entropy_{sign}_scale_free"] = report["scale_free"]
        # What the later layers together, and the least helpful of them, take off the error.
        out["gain_of_later_layers"] = out["error_prefix1"] - out["error"]
        prefixes = torch.stack([out[f"error_prefix{i + 1}"] for i in range(g.shape[2])])
        if g.shape[2] > 1:
            out["smallest_gain_of_a_layer"] = -prefixes.diff().max()
        return out
