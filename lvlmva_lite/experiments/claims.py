"""Claims and whether what ran bears them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

STATUSES = ("reproduced", "not reproduced", "not testable here")


@dataclass(frozen=True)
class Claim:
    """One row of ``claims.yml``.

    Attributes
    ----------
    id : short and stable
    statement : what is claimed, in a sentence
    source : where the claim stands (figure or section of the paper, or "ours")
    chapter : name of the notebook that records the numbers
    check : expression over recorded names, true where the claim holds
    status : one of ``STATUSES``, what we found
    note : what was seen, for claims that are not reproduced or not testable
    """

    id: str
    statement: str
    source: str
    chapter: str
    check: str
    status: str
    note: str = ""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether ``check`` is true of the recorded ``values``.

        Raises
        ------
        ValueError : the expression names something that was not recorded
        """
        try:
            return bool(eval(self.check, {"__builtins__": {}, "abs": abs}, dict(values)))
        except NameError as error:
            raise ValueError(f"claim {self.id}: {error} in the numbers of {self.chapter}") from error


def load_claims(text: str | None = None) -> list[Claim]:
    """The claims of ``claims.yml`` (or of ``text``, in the same form).

    Raises
    ------
    ValueError : an unknown status, an id given twice, or a claim that is not
        reproduced without a note that says what was seen
    """
    if text is None:
        text = resources.files("lvlmva_lite.experiments").joinpath("claims.yml").read_text("utf-8")
    claims = [Claim(**row) for row in yaml.safe_load(text)]
    if len({claim.id for claim in claims}) < len(claims):
        raise ValueError("two claims share an id")
    for claim in claims:
        if claim.status not in STATUSES:
            raise ValueError(f"claim {claim.id}: status must be one of {STATUSES}, got {claim.status!r}")
        if claim.status != "reproduced" and not claim.note:
            raise ValueError(f"claim {claim.id} is {claim.status}: its note must say what was seen, or why")
    return claims


def contradicted(claims: list[Claim], chapter: str, values: Mapping[str, Any]) -> list[str]:
    """One line for each claim on ``chapter`` whose stated status is not what ran."""
    lines = []
    for claim in claims:
        if claim.chapter != chapter or claim.status == "not testable here":
            continue
        if claim.holds(values) != (claim.status == "reproduced"):
            lines.append(f"{claim.id} is stated as {claim.status!r}, yet {claim.check!r} says otherwise")
    return lines
