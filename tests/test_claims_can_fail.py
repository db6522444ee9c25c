"""Every claim of the book has teeth: turn a number, swap two, take an effect away, and it says otherwise.

``python tools/build_book.py`` makes the numbers that are bent here; ``make test`` does so before.
"""

import ast
import json
from itertools import product
from pathlib import Path

import pytest

from lvlmva_lite.experiments.claims import load_claims

RUNS = Path(__file__).parent.parent / "_build" / "work" / "runs" / "quick"
CLAIMS = [claim for claim in load_claims() if claim.status != "not testable here"]


def numbers_of(claim):
    file = RUNS / claim.chapter / f"{claim.chapter}.json"
    if not file.exists():
        pytest.skip("the book is not built: python tools/build_book.py")
    values = json.loads(file.read_text("utf-8"))
    return {name: values[name] for name in claim.names}


def clauses(check):
    """The names of each part that "and" joins, at the top of an expression."""
    tree = ast.parse(check.strip(), mode="eval").body
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    for part in parts:
        yield ast.unparse(part), {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}


def bent(values, name):
    """What a number might have been: no effect, the other sign, the rest of a share, too much, another's."""
    value = values[name]
    if isinstance(value, bool):
        return [not value]
    others = [other for key, other in values.items() if key != name and not isinstance(other, bool)]
    return [0, -value, 1 - value, value - 1, value + 1, *others]


def holds(claim, values):
    try:
        return claim.holds(values)
    except ValueError:  # nothing can be said of such numbers
        return claim.status != "reproduced"


@pytest.mark.parametrize(
    "claim", [one for one in CLAIMS if one.status == "reproduced"], ids=lambda one: one.id
)
def test_each_part_of_what_was_reproduced_could_have_failed(claim):
    values = numbers_of(claim)
    assert claim.holds(values)
    for part, names in clauses(claim.check):
        worlds = ({**values, name: other} for name in names & {*values} for other in bent(values, name))
        assert any(not holds(claim, world) for world in worlds), f"nothing breaks {part!r}"


@pytest.mark.parametrize(
    "claim", [one for one in CLAIMS if one.status != "reproduced"], ids=lambda one: one.id
)
def test_what_was_not_reproduced_could_have_been(claim):
    values = numbers_of(claim)
    assert not claim.holds(values)
    tried = [[values[name], *bent(values, name), abs(values[name]), 0.01] for name in values]
    worlds = (dict(zip(values, world, strict=True)) for world in product(*tried))
    assert any(holds(claim, world) for world in worlds), f"nothing satisfies {claim.check!r}"
