"""Surd: an exact number Σ q·√n, the coefficient ring of every kernel.

The square roots of distinct square-free integers are linearly independent over the rationals, so the
sorted tuple ((n, q), ...) is a normal form: two surds are equal exactly when their parts are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, isqrt

Rational = int | Fraction


@lru_cache(maxsize=65536)
def square_free(n: int) -> tuple[int, int]:
    """Write a positive integer as s²·r with r square-free; return (s, r)."""
    if n < 1:
        raise ValueError(f"square_free: got {n}; expected a positive integer")
    square, rest, prime = 1, 1, 2
    while prime * prime * prime <= n:
        count = 0
        while n % prime == 0:
            n //= prime
            count += 1
        square *= prime ** (count // 2)
        rest *= prime ** (count % 2)
        prime += 1 if prime == 2 else 2
    # What is left has at most two prime factors: it is a square or it is square-free.
    root = isqrt(n)
    return (square * root, rest) if root * root == n else (square, rest * n)


@dataclass(frozen=True, slots=True)
class Surd:
    """Σ q·√n as sorted parts ((n, q), ...), n square-free, q a non-zero rational."""

    parts: tuple[tuple[int, Fraction], ...] = ()

    @staticmethod
    def of(q: Rational, n: int = 1) -> Surd:
        """The number q·√n for a rational q and a positive integer n."""
        if not q:
            return ZERO
        square, rest = square_free(n)
        return Surd(((rest, Fraction(q) * square),))

    @staticmethod
    def root(x: Rational) -> Surd:
        """The square root of a non-negative rational: √(p/q) = √(p·q)/q."""
        x = Fraction(x)
        if x < 0:
            raise ValueError(f"Surd.root: got {x}; expected a non-negative rational")
        return Surd.of(Fraction(1, x.denominator), x.numerator * x.denominator) if x else ZERO

    @staticmethod
    def lift(x: Surd | Rational) -> Surd:
        """An integer or fraction as a Surd; a Surd as itself."""
        return x if isinstance(x, Surd) else Surd.of(x)

    def __add__(self, other: Surd | Rational) -> Surd:
        right = Surd.lift(other)
        if not right.parts or not self.parts:
            return right if not self.parts else self
        if len(self.parts) == len(right.parts) == 1 and self.parts[0][0] == right.parts[0][0]:
            q = self.parts[0][1] + right.parts[0][1]
            return Surd(((self.parts[0][0], q),)) if q else ZERO
        return _collect((*self.parts, *right.parts))

    __radd__ = __add__

    def __neg__(self) -> Surd:
        return Surd(tuple((n, -q) for n, q in self.parts))

    def __sub__(self, other: Surd | Rational) -> Surd:
        return self + -Surd.lift(other)

    def __rsub__(self, other: Rational) -> Surd:
        return Surd.lift(other) - self

    def __mul__(self, other: Surd | Rational) -> Surd:
        right = Surd.lift(other)
        if not self.parts or not right.parts:
            return ZERO
        if len(self.parts) == len(right.parts) == 1:
            ((m, p),), ((n, q),) = self.parts, right.parts
            g = gcd(m, n)
            return Surd(((m * n // (g * g), p * q * g),))
        pairs = []
        for m, p in self.parts:
            for n, q in right.parts:
                # For square-free m, n: √m·√n = g·√(m·n/g²) with g = gcd(m, n).
                g = gcd(m, n)
                pairs.append((m * n // (g * g), p * q * g))
        return _collect(pairs)

    __rmul__ = __mul__

    def __truediv__(self, other: Surd | Rational) -> Surd:
        right = Surd.lift(other)
        if len(right.parts) != 1:
            what = "zero" if not right.parts else f"the sum {right}"
            raise ZeroDivisionError(f"Surd division: got {what}; expected a single non-zero term q·√n")
        ((n, q),) = right.parts
        return self * Surd(((n, 1 / (q * n)),))

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __hash__(self) -> int:
        # Surds are the keys of every pass; the hash of a Fraction is a modular inverse.
        return hash(tuple([(n, q.numerator, q.denominator) for n, q in self.parts]))

    def __float__(self) -> float:
        """The nearest double: each part is rounded from an integer square root with 80 guard bits."""
        if not self.parts:
            return 0.0
        bits = 160
        scale = max(0, max(q.denominator.bit_length() - q.numerator.bit_length() for _, q in self.parts)) + bits
        total = 0
        for n, q in self.parts:
            size = isqrt((q.numerator**2 * n << 2 * scale) // q.denominator**2)
            total += size if q > 0 else -size
        return float(Fraction(total, 1 << scale))

    @property
    def sign(self) -> int:
        """-1, 0 or +1, decided exactly for one part and by 160 guard bits otherwise."""
        if not self.parts:
            return 0
        leading = self.parts[0][1].numerator if len(self.parts) == 1 else float(self)
        return 1 if leading > 0 else -1

    @property
    def is_rational(self) -> bool:
        """True for a rational number, zero included."""
        return all(n == 1 for n, _ in self.parts)

    @property
    def is_unit(self) -> bool:
        """True for 1 and -1."""
        if len(self.parts) != 1:
            return False
        ((n, q),) = self.parts
        return n == 1 and q.denominator == 1 and abs(q.numerator) == 1

    def squared(self) -> Surd:
        """The exact square."""
        return self * self

    def __str__(self) -> str:
        if not self.parts:
            return "0"
        text = ""
        for n, q in self.parts:
            size = _part(n, abs(q))
            text += (" + " if q > 0 else " - ") + size if text else ("" if q > 0 else "-") + size
        return text

    def __repr__(self) -> str:
        return f"Surd({self})"


def _part(n: int, q: Fraction) -> str:
    root = f"√{n}" if n > 1 else ""
    top = str(q.numerator) if q.numerator != 1 or not root else ""
    return top + root + (f"/{q.denominator}" if q.denominator != 1 else "")


def _collect(parts: Iterable[tuple[int, Fraction]]) -> Surd:
    total: dict[int, Fraction] = {}
    for n, q in parts:
        total[n] = total[n] + q if n in total else q
    return Surd(tuple((n, q) for n, q in sorted(total.items()) if q))


ZERO = Surd()
ONE = Surd(((1, Fraction(1)),))
