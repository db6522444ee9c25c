"""Checks of claims: small expressions over recorded values, and nothing else that Python can do."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max}
"""All that an expression may call."""

MOST_CHARACTERS = 1000
MOST_PARTS = 300
"""Longer expressions are refused, so that none takes long: numbers cannot grow
by more than the digits that are written, for there is no power."""

_ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip
_COMPARISONS = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_ALLOWED = (
    ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Not, ast.BoolOp, ast.And, ast.Or,
    ast.Compare, ast.Call, *_ARITHMETIC, *_COMPARISONS,
)  # fmt: skip


def parse(text: str) -> ast.expr:
    """An expression of names, numbers, texts, True and False.

    They may be joined by ``+ - * /``, comparisons (also in chains), ``and``,
    ``or``, ``not``, brackets and calls of ``FUNCTIONS``.

    Raises
    ------
    ValueError : no expression, something else in it (the message names it), or too long
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; give {MOST_CHARACTERS} at most")
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"it is no expression: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"it is no expression: {error or 'nested too deeply'}") from error
    parts = list(ast.walk(expression))
    if len(parts) > MOST_PARTS:
        raise ValueError(f"it has {len(parts)} parts; give {MOST_PARTS} at most")
    called = [part.func for part in parts if isinstance(part, ast.Call)]
    for part in parts:
        if not isinstance(part, _ALLOWED):
            raise ValueError(
                f"{type(part).__name__}{_written(part)} is not allowed; there are names, numbers, + - * /, "
                f"comparisons, and, or, not, and calls of {', '.join(FUNCTIONS)}"
            )
        if isinstance(part, ast.Constant) and not isinstance(part.value, (bool, int, float, str)):
            raise ValueError(f"Constant{_written(part)} is not allowed; give a number or a text")
        if isinstance(part, ast.Call) and (
            not isinstance(part.func, ast.Name) or part.func.id not in FUNCTIONS or part.keywords
        ):
            raise ValueError(
                f"Call{_written(part)} is not allowed; only {', '.join(FUNCTIONS)} can be called, without keywords"
            )
        if isinstance(part, ast.Name) and part.id in FUNCTIONS and part not in called:
            raise ValueError(f"{part.id!r} is a function and no recorded name; call it")
    return expression


def _written(part: ast.AST) -> str:
    text = ast.unparse(part) if isinstance(part, (ast.expr, ast.keyword)) else ""
    return f" {text!r}" if text else ""


def names(expression: ast.expr) -> list[str]:
    """The recorded names in an expression, in order of appearance."""
    found = [
        (node.lineno, node.col_offset, node.id)
        for node in ast.walk(expression)
        if isinstance(node, ast.Name) and node.id not in FUNCTIONS
    ]
    return list(dict.fromkeys(name for *_, name in sorted(found)))


def evaluate(expression: ast.expr, values: Mapping[str, Any]) -> Any:
    """What Python makes of an expression of :func:`parse`.

    Raises
    ------
    KeyError : a name without a value
    TypeError : arithmetic or a function on anything but numbers, or a comparison that has no answer
    ZeroDivisionError, OverflowError : as in Python
    """

    def number(node: ast.expr) -> float:
        value = of(node)
        if not isinstance(value, (bool, int, float)):
            raise TypeError(f"{ast.unparse(node)!r} is {value!r}, no number")
        return value

    def of(node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return values[node.id]
            case ast.UnaryOp(op=ast.Not()):
                return not of(node.operand)
            case ast.UnaryOp():
                return _ARITHMETIC[type(node.op)](number(node.operand))
            case ast.BinOp():
                return _ARITHMETIC[type(node.op)](number(node.left), number(node.right))
            case ast.BoolOp():
                stops = isinstance(node.op, ast.Or)
                for part in node.values:
                    value = of(part)
                    if bool(value) == stops:
                        break
                return value
            case ast.Compare():
                left = of(node.left)
                for compare, part in zip(node.ops, node.comparators, strict=True):
                    right = of(part)
                    if not (answer := _COMPARISONS[type(compare)](left, right)):
                        break
                    left = right
                return answer
            case ast.Call():
                return FUNCTIONS[node.func.id](*map(number, node.args))
        raise TypeError(f"{type(node).__name__} is not allowed")

    return of(expression)
