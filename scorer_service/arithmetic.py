"""The sums that a text writes out, such as `3 * 4 = 12`, and whether they come out.

Part of preprocess version 3, see `marks`. Everything is linear in the text's length, whatever the text is; no sum is
evaluated by Python.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_LONGEST_SUM: Final = 48
"""Tokens of one side of an equation: more is a table, no sum."""

_LARGEST: Final = 1e15
"""Beyond, a float holds no units; such a number counts as this one."""

_TOKEN: Final = re.compile(
    r"(?P<number>(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)%?)|(?P<sign>[-+*/×÷−()=]|\\times|\\cdot|\\div)|(?P<word>[^\W\d_]+)|"
    r"(?P<mark>[^\s\w$])"
)
_OPERATORS: Final = {
    "×": "*", "÷": "/", "−": "-", "x": "*", "X": "*", "\\times": "*", "\\cdot": "*", "\\div": "/",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides with = between them. `holds` is exact, `rounded` to the digits that the result shows."""

    result: float
    holds: bool
    rounded: bool


@dataclass(frozen=True, slots=True)
class _Operand:
    """A number as written: its value, what it is worth in a sum (a hundredth with %), and its decimal places."""

    value: float
    worth: float
    places: int


_Sum = list["_Operand | str"]
"""Numbers, operators and brackets in the order of the text."""


class Numbers:
    """The numbers of a text as they are written, without signs; the last one with its sign; and the equations."""

    def __init__(self, text: str) -> None:
        self.numbers: list[float] = []
        self.final = 0.0
        self.equations: list[Equation] = []
        left: _Sum | None = None
        for side, closed_by_equals in _sides(text, self):
            if left is not None and (equation := _equation(left, side)) is not None:
                self.equations.append(equation)
            left = side if closed_by_equals else None


def _sides(text: str, found: Numbers) -> Iterator[tuple[_Sum, bool]]:
    """Every stretch of arithmetic, and whether = follows it. Units between number and operator are passed over."""
    run: _Sum = []
    for match in _TOKEN.finditer(text):
        kind, part = match.lastgroup, match.group()
        if kind == "number":
            if len(run) >= _LONGEST_SUM or _ends_in_operand(run):  # "3 boxes, 4 bags": the 4 begins something new
                yield run, False
                run = []
            operand = _operand(part)
            negative = bool(run) and run[-1] == "-" and not _ends_in_operand(run[:-1])
            found.numbers.append(operand.value)
            found.final = -operand.value if negative else operand.value
            run.append(operand)
        elif part == "=":
            yield run, True
            run = []
        elif kind == "sign" or (part in ("x", "X") and _ends_in_operand(run)):
            if len(run) >= _LONGEST_SUM:
                yield run, False
                run = []
            run.append(_OPERATORS.get(part, part))
        elif kind == "mark" and run:  # a full stop, a comma, >> and the like
            yield run, False
            run = []
    yield run, False


def _operand(token: str) -> _Operand:
    digits = token.rstrip("%").replace(",", "")
    value = min(float(digits), _LARGEST)
    places = len(digits.partition(".")[2])
    return _Operand(value, value / 100.0 if token.endswith("%") else value, places)


def _ends_in_operand(run: Sequence["_Operand | str"]) -> bool:
    return bool(run) and (isinstance(run[-1], _Operand) or run[-1] == ")")


def _equation(left: _Sum, right: _Sum) -> Equation | None:
    """Compare two sides; nothing if one is no sum, or neither does anything."""
    left, right = _trimmed(left), _trimmed(right, begins=("-",))
    if sum(isinstance(part, _Operand) for part in (*left, *right)) <= 2:  # "x = 3" compares nothing
        return None
    one, other = _value(left), _value(right)
    if one is None or other is None:
        return None
    last = next(part for part in reversed(right) if isinstance(part, _Operand))
    # 3 / 5 = 60 % and 3 / 5 * 100 = 60 % are both written.
    alone = sum(isinstance(part, _Operand) for part in right) == 1
    written = math.copysign(last.value, other) if alone else other
    shown = (other, written)
    off = min(abs(one - result) for result in shown)
    holds = off <= 1e-9 * max(1.0, abs(one))
    rounded = not holds and off <= 0.5000001 * 10.0**-last.places
    return Equation(written, holds, rounded)


def _trimmed(run: _Sum, begins: Sequence[str] = ()) -> _Sum:
    """Without what cannot begin or end a sum, other than `begins`: "hours - 3 * 4 /hour" leaves 3 * 4."""
    start, end = 0, len(run)
    while start < end and run[start] in ("+", "-", "*", "/", ")") and run[start] not in begins:
        start += 1
    while end > start and run[end - 1] in ("+", "-", "*", "/", "("):
        end -= 1
    return run[start:end]


def _value(run: Sequence["_Operand | str"]) -> float | None:
    """What a sum comes to; nothing if it is none, or divides by 0."""
    reader = _Reader(run)
    try:
        value = reader.sum()
    except (ValueError, ArithmeticError):
        return None
    return value if reader.at_end and math.isfinite(value) else None


class _Reader:
    """Reads a sum by recursive descent, no deeper than `_LONGEST_SUM`."""

    def __init__(self, parts: Sequence["_Operand | str"]) -> None:
        self._parts = parts
        self._place = 0

    @property
    def at_end(self) -> bool:
        """True if nothing is left."""
        return self._place == len(self._parts)

    def sum(self) -> float:
        """Products with + and - between them.

        Raises:
            ValueError: something else stands there.
            ZeroDivisionError: it divides by 0.
        """
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> float:
        value = self._operand()
        while sign := self._take("*", "/"):
            other = self._operand()
            value = value * other if sign == "*" else value / other
        return value

    def _operand(self) -> float:
        if self._take("-"):
            return -self._operand()
        if self._take("("):
            value = self.sum()
            if not self._take(")"):
                raise ValueError("a bracket stays open")
            return value
        if self.at_end or not isinstance(part := self._parts[self._place], _Operand):
            raise ValueError("no number where one should be")
        self._place += 1
        return part.worth

    def _take(self, *wanted: str) -> str:
        """Pass the next part if it is one of these; empty if it is not."""
        part = "" if self.at_end else self._parts[self._place]
        if isinstance(part, _Operand) or part not in wanted:
            return ""
        self._place += 1
        return part
