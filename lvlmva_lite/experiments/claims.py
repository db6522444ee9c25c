"""Claims and whether what ran bears them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from typing import Any

import yaml

from lvlmva_lite.experiments import expressions

STATUSES = ("reproduced", "not reproduced", "not testable here")

EXPERIMENTS = {
    "E1": "DecoyMNIST",
    "E2": "Knee radiographs with markers",
    "E3": "Skin lesions with coloured patches",
    "E4": "Which critic and judge",
    "E5": "Which segmentation",
    "E6": "Which images are sampled",
    "E7": "Other ways to remove a shortcut",
    "E8": "User study",
    "ours": "This book's own claims, and others' results",
}
"""What a claim belongs to: an experiment of the paper, or "ours"."""

NOT_STATED = "not stated"
DATA = {
    "DecoyMNIST": "real digits with a grey square that we drew",
    "drawn numbers": "points or vectors drawn at random; no images",
    "toy image": "a picture of a few shapes, drawn to make one point",
    "knee phantom": "drawn knees with drawn letters; no person's radiograph",
    "skin phantom": "drawn lesions with drawn patches; no photograph",
    "conveyor belt": "drawn flanges with drawn stickers, written as files; no photograph",
    "real knees": "radiographs as they were taken",
    "real knees with pasted letters": "radiographs, with letters that we pasted",
    "real skin": "photographs with the patches that were on the skin",
    "real skin with pasted patches": "photographs, with patches that we pasted",
    NOT_STATED: "the claim does not say yet",
}
"""What a claim was checked on, or would have to be, and what that is.  No
claim stands for two kinds: a result on phantoms is none on real images."""


@dataclass(frozen=True)
class Claim:
    """One row of ``claims.yml``.

    Attributes
    ----------
    id : short and stable
    statement : what is claimed, in a sentence
    source : where the claim stands (figure or section of the paper, or "ours")
    chapter : name of the notebook that records the numbers
    check : expression over recorded names, true where the claim holds, see :func:`expressions.parse`
    status : one of ``STATUSES``, what we found
    note : what was seen, for claims that are not reproduced or not testable
    experiment : one of ``EXPERIMENTS``; where the file says nothing, what the
        id begins with ("E1-bound"), else "ours"
    data : one of ``DATA``; where the file says nothing, "DecoyMNIST", but
        "not stated" for E2, E3 and E8, which cannot be about digits
    """

    id: str
    statement: str
    source: str
    chapter: str
    check: str
    status: str
    note: str = ""
    experiment: str = "ours"
    data: str = "DecoyMNIST"

    @property
    def names(self) -> list[str]:
        """The recorded names that ``check`` uses, in order of appearance."""
        return expressions.names(expressions.parse(self.check))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether ``check`` is true of the recorded ``values``.

        Raises
        ------
        ValueError : the expression names something that was not recorded, or
            cannot be evaluated
        """
        if missing := [name for name in self.names if name not in values]:
            raise ValueError(
                f"claim {self.id} names {', '.join(map(repr, missing))}, which {self.chapter} did not"
                f" record; it recorded: {', '.join(values) or 'nothing'}"
            )
        try:
            return bool(expressions.evaluate(expressions.parse(self.check), values))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(
                f"claim {self.id}: {self.check!r} cannot be evaluated: {type(error).__name__}: {error}"
            ) from error


def load_claims(text: str | None = None) -> list[Claim]:
    """The claims of ``claims.yml`` (or of ``text``, in the same form).

    Raises
    ------
    ValueError : a field that is unknown, missing or no text; an unknown
        status, experiment or kind of data; an id given twice; a check that is
        no expression of its few kinds, or that cannot fail; or a claim that is not reproduced
        without a note that says what was seen
    """
    if text is None:
        text = resources.files("lvlmva_lite.experiments").joinpath("claims.yml").read_text("utf-8")
    claims: list[Claim] = []
    for number, row in enumerate(yaml.safe_load(text) or [], 1):
        if not isinstance(row, dict):
            raise ValueError(f"claim number {number} is {row!r}; it must be a list of fields")
        claim = _claim(row, f"claim {row.get('id', f'number {number}')}")
        if claim.id in {other.id for other in claims}:
            raise ValueError(f"two claims share an id: {claim.id}")
        claims.append(claim)
    return claims


def _claim(row: dict[str, Any], name: str) -> Claim:
    known = [field.name for field in fields(Claim)]
    if unknown := [str(key) for key in row if key not in known]:
        raise ValueError(f"{name} has an unknown field {', '.join(unknown)}; there are: {', '.join(known)}")
    needed = [field.name for field in fields(Claim) if field.default is MISSING]
    if missing := [key for key in needed if not row.get(key) and row.get(key) is not False]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    for key, value in row.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: {key} must be a text, got {value!r}; put it in quotation marks")
    beginning = row["id"].partition("-")[0]
    experiment = row.get("experiment", beginning if beginning in EXPERIMENTS else "ours")
    data = row.get("data", NOT_STATED if experiment in ("E2", "E3", "E8") else "DecoyMNIST")
    claim = Claim(**{**row, "experiment": experiment, "data": data})
    for key, allowed in (("status", STATUSES), ("experiment", EXPERIMENTS), ("data", DATA)):
        if getattr(claim, key) not in allowed:
            raise ValueError(
                f"{name}: {key} must be one of {', '.join(allowed)}, got {getattr(claim, key)!r}"
            )
    if claim.status != "reproduced" and not claim.note:
        raise ValueError(f"{name} is {claim.status}: its note must say what was seen, or why")
    try:
        names = claim.names
    except ValueError as error:
        raise ValueError(f"{name}: its check {claim.check!r} cannot be used: {error}") from error
    if not names and claim.status != "not testable here":
        raise ValueError(f"{name}: its check {claim.check!r} names no recorded number, so it cannot fail")
    return claim


def contradicted(claims: list[Claim], chapter: str, values: Mapping[str, Any]) -> list[str]:
    """One line for each claim on ``chapter`` whose stated status is not what ran.

    A check that cannot be evaluated, for want of a recorded number or
    otherwise, is such a claim too.
    """
    lines = []
    for claim in claims:
        if claim.chapter != chapter or claim.status == "not testable here":
            continue
        try:
            holds = claim.holds(values)
        except ValueError as error:
            lines.append(str(error))
            continue
        if holds != (claim.status == "reproduced"):
            lines.append(f"{claim.id} is stated as {claim.status!r}, yet {claim.check!r} says otherwise")
    return lines
