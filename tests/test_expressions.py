import ast
import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvlmva_lite.experiments.claims import Claim, load_claims
from lvlmva_lite.experiments.expressions import FUNCTIONS, evaluate, names, parse

NAMES = ("a", "b", "gain_2")


def joined(children):
    both = st.tuples(children, children)
    return st.one_of(
        both.flatmap(
            lambda pair: st.sampled_from(
                ["+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "and", "or"]
            ).map(lambda sign: f"({pair[0]} {sign} {pair[1]})")
        ),
        st.tuples(children, children, children).map("({0[0]} < {0[1]} <= {0[2]})".format),
        children.map("(not {})".format),
        children.map("(-{})".format),
        children.map("abs({})".format),
        both.map("min({0[0]}, {0[1]})".format),
        both.map("max({0[0]}, {0[1]})".format),
    )


numbers = st.one_of(
    st.integers(0, 20).map(str), st.floats(0, 10).map(repr), st.sampled_from(["True", "False"])
)
texts = st.recursive(st.one_of(st.sampled_from(NAMES), numbers), joined, max_leaves=12)
recorded = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(-5, 5))


@given(texts, st.fixed_dictionaries(dict.fromkeys(NAMES, recorded)))
@settings(max_examples=500, deadline=None)
def test_an_expression_means_what_it_means_in_python(text, values):
    expression = parse(text)
    assert set(names(expression)) == {name for name in NAMES if name in compile(text, "", "eval").co_names}
    try:
        expected = eval(text, {"__builtins__": {}, **FUNCTIONS}, values)
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate(expression, values)
        return
    found = evaluate(expression, values)
    assert type(found) is type(expected)
    assert found == expected or (found != found and expected != expected)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a.real", "Attribute 'a.real'"),
        ("().__class__.__base__.__subclasses__()", "is not allowed"),
        ("a.__class__ == 1", "Attribute"),
        ("(lambda: 1)()", "is not allowed"),
        ("[x for x in a]", "ListComp"),
        ("{1: a}", "Dict"),
        ("[a]", "List"),
        ("(a, 1)", "Tuple"),
        ("a[0]", "Subscript"),
        ("f'{a}'", "JoinedStr"),
        ("a if a else 1", "IfExp"),
        ("(b := a)", "NamedExpr"),
        ("9 ** 9 ** 9", "Pow"),
        ("a << 9", "LShift"),
        ("a // 2", "FloorDiv"),
        ("a % 2", "Mod"),
        ("a in b", "In is not"),
        ("a is b", "Is is not"),
        ("~a", "Invert"),
        ("open('x')", r"Call \"open\('x'\)\""),
        ("abs(a)(b)", "Call"),
        ("abs(*a)", "Starred"),
        ("max(a, key=b)", "is not allowed"),
        ("abs", "'abs' is a function"),
        ("abs(abs)", "'abs' is a function"),
        ("b'x'", "Constant"),
        ("1j", "Constant"),
        ("...", "Constant"),
        ("None", "Constant"),
        ("a >", "no expression"),
        ("", "no expression"),
        ("import os", "no expression"),
        ("a\0", "no expression"),
    ],
)
def test_anything_else_is_refused_by_name(text, node):
    with pytest.raises(ValueError, match=node):
        parse(text)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_refused(text):
    try:
        expression = parse(text)
    except ValueError:
        return
    assert isinstance(expression, ast.expr)


@pytest.mark.parametrize(
    "text",
    ["-" * 100_000 + "1", "(" * 5_000 + "1" + ")" * 5_000, "not " * 400 + "a", "-" * 900 + "a", "1+" * 480 + "a",
     "(" * 490 + "1" + ")" * 490, "9" * 10_000, "9" * 990],
)  # fmt: skip
def test_no_expression_takes_long(text):
    start = time.perf_counter()
    with contextlib.suppress(ValueError):
        evaluate(parse(text), {"a": 1})
    assert time.perf_counter() - start < 1


def test_products_grow_no_further_than_their_digits():
    text = " * ".join(["9" * 50] * 18)
    assert evaluate(parse(text), {}) == int("9" * 50) ** 18
    with pytest.raises(TypeError, match="no number"):
        evaluate(parse("'x' * 1000000000"), {})
    with pytest.raises(TypeError, match="no number"):
        evaluate(parse("a * 1000000000"), {"a": [0]})


def test_a_claim_cannot_leave_its_expression():
    """What the interpreter would hand out by way of a recorded number's class."""
    row = '- {id: a, statement: s, source: ours, chapter: c, status: reproduced, check: "%s"}'
    for check in (
        "a.__class__.__base__.__subclasses__() != 0",
        "a.__init__.__globals__ == 0",
        "a ** 9 > 0",
    ):
        with pytest.raises(ValueError, match=r"claim a: its check .* cannot be used"):
            load_claims(row % check)
        with pytest.raises(ValueError):
            Claim("a", "s", "ours", "c", check, "reproduced").holds({"a": 1})
