"""Printers: sums of terms -> expressions of Python, with exact constants named once and rounded here.

A coefficient stays exact until `Constants` prints its nearest double beside the exact value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from irrepc.algebra.surd import ONE, Surd
from irrepc.ir.kernel import Kernel, Ref, Term

WIDTH = 116


@dataclass(slots=True)
class Constants:
    """The distinct absolute values of coefficients other than 1, named C0, C1, ... in rising order.

    signed  coefficient -> (the name of its absolute value, "" for 1; its sign)
    """

    values: tuple[Surd, ...]
    signed: dict[Surd, tuple[str, int]] = field(default_factory=dict)

    @staticmethod
    def of(kernels: Iterable[Kernel]) -> Constants:
        """Collect the constants of several kernels that share one file or function."""
        distinct = {t.coeff for k in kernels for e in k.equations for t in e.terms}
        found = {c: size(c) for c in distinct}
        values = tuple(sorted(set(found.values()) - {ONE}, key=lambda s: (float(s), str(s))))
        names = {v: f"C{i}" for i, v in enumerate(values)}
        return Constants(values, {c: (names.get(v, ""), c.sign) for c, v in found.items()})

    def lines(self, call: str = "") -> tuple[str, ...]:
        """The definitions, `C0 = call(0.5773502691896257)  # √3/3`."""
        left, right = (f"{call}(", ")") if call else ("", "")
        return tuple(f"C{i} = {left}{float(v)!r}{right}  # {v}" for i, v in enumerate(self.values))


def variable(ref: Ref) -> str:
    """The name of a component in emitted code: component 2 of x is x2, of q4 it is q4_2."""
    return f"{ref.operand}{'_' * ref.operand[-1].isdigit()}{ref.component}"


def size(coeff: Surd) -> Surd:
    """The absolute value."""
    return -coeff if coeff.sign < 0 else coeff


def expression(
    terms: Iterable[Term],
    constants: Constants,
    name: Callable[[Ref], str],
    weight: Callable[[Ref], int],
    *,
    unit: str = "1.0",
) -> str:
    """Σ terms as Python, terms with the same |coefficient| taken together: C0 * (x1 * y2 - x2 * y1).

    name     how a factor is called
    weight   orders the factors of a product: scalars (small) before channel vectors (large)
    unit     how the number one is written
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for t in terms:
        factors = sorted(t.factors, key=lambda f: (weight(f), f))
        product = " * ".join(name(f) for f in factors)
        constant, sign = constants.signed[t.coeff]
        groups.setdefault(constant, []).append((sign, product))
    text = ""
    for constant, products in groups.items():
        if not constant:
            for sign, product in products:
                text += _signed(text, sign, product or unit)
            continue
        lead = products[0][0]
        if len(products) == 1:
            body = f"{constant} * {products[0][1]}" if products[0][1] else constant
        else:
            inner = ""
            for sign, product in products:
                inner += _signed(inner, sign * lead, product or unit)
            body = f"{constant} * ({inner})"
        text += _signed(text, lead, body)
    return text or "0.0"


def assignment(left: str, operator: str, right: str, note: str = "") -> list[str]:
    """`left operator right  # note`, wrapped in parentheses over several lines where it is too long."""
    comment = f"  # {note}" if note else ""
    line = f"{left} {operator} {right}{comment}"
    if len(line) <= WIDTH:
        return [line]
    if len(line) - len(comment) <= WIDTH:
        return [f"# {note}", f"{left} {operator} {right}"]
    lines = [f"{left} {operator} ({comment}"]
    current = "   "
    for piece in _pieces(right):
        if len(current) + len(piece) + 1 > WIDTH - 4 and current.strip():
            lines.append(current)
            current = "   "
        current += " " + piece
    lines.extend((current, ")"))
    return lines


def _pieces(text: str) -> list[str]:
    """Cut an expression before each + or - that stands between spaces."""
    pieces: list[str] = []
    for word in text.split(" "):
        if word in ("+", "-") or not pieces:
            pieces.append(word)
        else:
            pieces[-1] += " " + word
    return pieces


def _signed(before: str, sign: int, body: str) -> str:
    if not before:
        return body if sign > 0 else f"-{body}"
    return f" + {body}" if sign > 0 else f" - {body}"
