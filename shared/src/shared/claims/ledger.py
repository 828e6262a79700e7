"""`claims.yaml`: every number and statement of a paper, which of our experiments tests it, and by which rule.

    paper: {title: ..., venue: ..., arxiv: "2305.12393", code: none, source: secondary, differs: ["what, and why"]}
    claims:
      - id: table1.mnist.collab
        where: main table, MNIST column
        says: Collaborative FF has a lower test error than FF at equal cost.
        metric: {name: test_error, unit: "%", better: lower}
        secondary: true                                      # the paper's numbers came to us second-hand
        paper: {ff: 3.4, collaborative: {value: 2.1, spread: 0.1}, hinton: n/a}
        rule: {kind: order, smaller: collaborative, larger: ff, margin_se: 2, min_seeds: 3}
        tiers:
          cpu: {experiments: {ff: mnist_ff, collaborative: mnist_all}, metric: test/error, setting: "20k images"}

A role (`ff`, `collaborative`) is one number of the claim; a tier says which experiment or selection measures it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from shared.claims.schema import Name, Number, Strict, Text, Tier, one_line
from shared.errors import UserError
from shared.runs.plan import read_yaml


class Paper(Strict):
    """The paper, and what we do differently (`differs`: what, and why)."""

    title: Text
    venue: Text
    arxiv: str
    code: Text
    source: Literal["primary", "secondary"]
    differs: list[Text] = Field(default_factory=list)


class Metric(Strict):
    name: Text
    unit: str
    better: Literal["lower", "higher", "none"]


class PaperValue(Strict):
    """A number that the paper states, with its spread where it states one."""

    value: Number
    spread: Annotated[Number, Field(ge=0)] | None = None


def _paper_value(value: Any) -> Any:
    if value == "n/a" or isinstance(value, PaperValue):
        return None if value == "n/a" else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    if isinstance(value, dict):
        return value
    raise ValueError(f"expected a number, {{value: ..., spread: ...}} or n/a, found {value!r}")


class Within(Strict):
    """Our mean lies within `tolerance` of the paper's value, at the paper's setting."""

    kind: Literal["within"]
    role: Name
    tolerance: Annotated[Number, Field(gt=0)]
    min_seeds: int = Field(default=3, ge=1)

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.role,)


class Order(Strict):
    """The mean of `smaller` lies below that of `larger` by more than `margin_se` standard errors of the difference."""

    kind: Literal["order"]
    smaller: Name
    larger: Name
    margin_se: Annotated[Number, Field(ge=0)] = 2.0
    min_seeds: int = Field(default=3, ge=3)

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.smaller, self.larger)


class Shape(Strict):
    """A statistic of a curve lies above or below a bound by more than `margin_se` of its standard errors."""

    kind: Literal["shape"]
    role: Name
    statistic: Text
    at_least: Number | None = None
    at_most: Number | None = None
    margin_se: Annotated[Number, Field(ge=0)] = 2.0
    min_seeds: int = Field(default=3, ge=1)

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.role,)

    @model_validator(mode="after")
    def _bounded(self) -> Shape:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a shape needs a bound: at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least >= self.at_most:
            raise ValueError(
                f"at_least {self.at_least:g} is not below at_most {self.at_most:g}: nothing can satisfy it"
            )
        if self.min_seeds < 2 and self.margin_se > 0:
            raise ValueError("one seed has no standard error: set min_seeds to 2 or more, or margin_se to 0")
        return self


class Ratio(Strict):
    """`numerator` over `denominator` is at most `at_most`: every seed by itself, or the means by `margin_se` errors."""

    kind: Literal["ratio"]
    numerator: Name
    denominator: Name
    at_most: Annotated[Number, Field(gt=0)]
    every_seed: bool = False
    margin_se: Annotated[Number, Field(ge=0)] = 2.0
    min_seeds: int = Field(default=3, ge=3)

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.numerator, self.denominator)


Rule = Annotated[Within | Order | Shape | Ratio, Field(discriminator="kind")]


class TierTest(Strict):
    """How a tier tests a claim: the experiment of each role, and why it was not run there.

    `not_run` is the reason while a result is missing; once all that is named has been run, the rule decides.
    """

    experiments: dict[Name, Text] = Field(default_factory=dict)
    metric: Text | None = None
    setting: Text
    paper_setting: bool = False
    not_run: Text | None = None


class Claim(Strict):
    id: Name
    where: Text
    says: Text
    metric: Metric
    paper: dict[Name, Annotated[PaperValue | None, BeforeValidator(_paper_value)]] = Field(min_length=1)
    secondary: bool = False
    rule: Rule
    tiers: dict[Tier, TierTest] = Field(min_length=1)

    def measured_by(self, tier: Tier) -> str:
        """The key, in a run's metrics, of what the rule compares."""
        if isinstance(self.rule, Shape):
            return self.rule.statistic
        return self.tiers[tier].metric or self.metric.name

    @model_validator(mode="after")
    def _coherent(self) -> Claim:
        for role in self.rule.roles:
            if role not in self.paper:
                raise ValueError(f"rule: the role {role} has no value under `paper` (n/a where the paper gives none)")
        if isinstance(self.rule, Within) and self.paper[self.rule.role] is None:
            raise ValueError(f"rule: within needs the paper's number for {self.rule.role}, which is n/a")
        if isinstance(self.rule, Order):
            self._ordered(self.rule)
        if isinstance(self.rule, Ratio) and self.rule.numerator == self.rule.denominator:
            raise ValueError(f"rule: ratio compares {self.rule.numerator} with itself")
        for tier, test in self.tiers.items():
            self._tested(tier, test)
        return self

    def _ordered(self, rule: Order) -> None:
        if rule.smaller == rule.larger:
            raise ValueError(f"rule: order compares {rule.smaller} with itself")
        low, high = self.paper[rule.smaller], self.paper[rule.larger]
        if low is not None and high is not None and low.value > high.value:
            raise ValueError(
                f"rule: order says {rule.smaller} < {rule.larger}, but the paper has {low.value:g} and {high.value:g}"
            )

    def _tested(self, tier: str, test: TierTest) -> None:
        for role in test.experiments:
            if role not in self.paper:
                raise ValueError(f"tiers.{tier}: {role} is no role of this claim; it has: {', '.join(self.paper)}")
        if test.not_run is None:
            for role in self.rule.roles:
                if role not in test.experiments:
                    raise ValueError(f"tiers.{tier}: no experiment for {role}, which the rule compares")
        if isinstance(self.rule, Order | Ratio):
            low, high = (test.experiments.get(role) for role in self.rule.roles)
            if low is not None and low == high:
                raise ValueError(f"tiers.{tier}: {low} would be compared with itself")
        if isinstance(self.rule, Shape) and test.metric not in (None, self.rule.statistic):
            raise ValueError(f"tiers.{tier}: a shape is measured by its statistic; leave `metric` out")


class Ledger(Strict):
    paper: Paper
    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Ledger:
        for name, count in Counter(claim.id for claim in self.claims).items():
            if count > 1:
                raise ValueError(f"claims: the id {name} is given to {count} claims")
        return self


def load_ledger(path: Path | str) -> Ledger:
    """Read a claim file.

    Raises:
        UserError: anything that is wrong with it, on one line that names the file, the claim and the key.
    """
    path = Path(path)
    content = read_yaml(path)

    def place(parts: tuple[int | str, ...]) -> str:
        if len(parts) > 1 and parts[0] == "claims" and isinstance(parts[1], int):
            claim = content["claims"][parts[1]]
            name = claim.get("id") if isinstance(claim, dict) else None
            kind = [part for part in parts[2:] if part not in ("within", "order", "shape", "ratio")]
            return ".".join(str(part) for part in [f"claim {name or f'number {parts[1] + 1}'}", *kind])
        return ".".join(str(part) for part in parts)

    try:
        return Ledger.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error, place)}") from None
