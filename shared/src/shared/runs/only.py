"""`--only T1,gain_*`: which experiments of a tier are meant by their names, a selection's, or a group of claims."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, cast

from shared.errors import UserError
from shared.runs.plan import Plan

if TYPE_CHECKING:
    from shared.claims.ledger import Ledger


def experiments_of(only: str | None, plan: Plan, ledger: Ledger | None) -> set[str]:
    """Names of the experiments that `only` asks for; all of the plan's for None.

    Args:
        only: parts between commas. A part is a name of experiments or selections, in which `*` stands for any text (a
            selection means the experiments it chooses from). One that is no such name is, in any case of its letters,
            the id of a claim of this tier or what stands before a dot of it (`T1` for `t1.fid.much`): the experiments
            that test these claims.

    Raises:
        UserError: a part is neither; the message lists what there is.
    """
    members = {experiment.name: {experiment.name} for experiment in plan.experiments}
    members |= {selection.name: set(selection.among) for selection in plan.selections}
    if only is None:
        return set().union(*members.values())
    tested: dict[str, set[str]] = {}
    for claim in ledger.claims if ledger else ():
        test = claim.tiers.get(cast(Any, plan.tier))  # a name of a tier, checked by the ledger
        if test is not None and test.experiments:
            tested[claim.id.lower()] = set().union(*(members[name] for name in test.experiments.values()))

    found: set[str] = set()
    for part in (text.strip() for text in only.split(",")):
        named = [members[name] for name in members if fnmatch.fnmatchcase(name, part)]
        group = part.lower()
        named = named or [tested[claim] for claim in tested if claim == group or claim.startswith(f"{group}.")]
        if not named:
            groups = dict.fromkeys(claim.partition(".")[0] for claim in tested)
            raise UserError(
                f"--only: `{part}` is no experiment of tier {plan.tier} and no group of its claims. "
                f"Groups: {', '.join(groups) or 'none'}. Experiments: {', '.join(members)}"
            )
        found.update(*named)
    return found
