"""LLVM text of activations: y = gain · f(x) and slope = gain · f'(x) for runs of columns, whole vectors at a time.

Everything is made of z = exp(-|x|), which lies in [0, 1], so nothing overflows, and of q = z - 1, which keeps the
digits that z loses near x = 0:

    sigmoid   1/(1+z) for x >= 0, z/(1+z) below;   slope z/(1+z)²
    silu      x · sigmoid;                         slope sigmoid + x z/(1+z)²
    tanh      ± q/(2+q), z and q of 2x;            slope 4z/(1+z)²
    softplus  max(x, 0) + log(1+z);                slope sigmoid
    ssp       max(x, 0) + log(1+q/2), softplus less log 2 (SchNet's activation);  slope sigmoid
    abs       |x|;                                 slope the sign of x, 0 at 0

exp(t) = 2ⁿ eʳ with n = round(t/log 2) and |r| <= log(2)/2, eʳ - 1 = r P(r); log(1+v) = s L(s²) with s = v/(2+v).  P and
L interpolate at Chebyshev points, in rational arithmetic, when the text is made.  NaN passes through; where z would be
less than the smallest normal number it is zero.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

from irrepc.emit.llvm_writer import LANES, REALS, Writer
from irrepc.errors import KernelError
from irrepc.ir.kernel import Kernel

DIGITS = 60
"""Decimal digits of what is interpolated."""
# Degrees of P and L: the error of interpolation is less than a tenth of what rounding leaves.  By Chebyshev's bound it
# is about 2 (h/2)^(d+1)/(d+2)! for P on |r| <= h = log(2)/2, and 34^-(d+1) for L on 0 <= s² <= 1/9.
DEGREES = {"float32": (5, 5), "float64": (10, 11)}
MANTISSA = {"float32": 23, "float64": 52}
EXPONENTS = {"float32": 8, "float64": 11}
LOWEST = {"float32": -87, "float64": -708}
"""exp of this is a normal number."""


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation of a run of `columns` columns of x, into runs of y and of slope.

    function  one of FUNCTIONS
    *_width   columns of a row
    *_start   where the run begins
    """

    function: str
    gain: float
    columns: int
    x_width: int
    x_start: int
    y_width: int
    y_start: int
    slope_width: int
    slope_start: int


def llvm_activation(name: str, activation: Activation, dtype: str) -> str:
    """The text of `void name(n0, n1, x, y, slope)` for rows n0 ... n1 - 1; arrays may be the same at the same places.

    dtype  "float32" or "float64"
    Raises KernelError for an unknown function.
    """
    a = activation
    if a.function not in FUNCTIONS:
        raise KernelError(f"activation: got {a.function!r}; expected one of {', '.join(FUNCTIONS)}")
    w = Writer(Kernel(name, (), (), ()), REALS[dtype], LANES[dtype])
    runs = (("%x", a.x_width, a.x_start), ("%y", a.y_width, a.y_start), ("%slope", a.slope_width, a.slope_start))
    if a.columns == a.x_width == a.y_width == a.slope_width:
        _run(w, a, dtype, w.times("%n0", str(a.columns)), w.times("%n1", str(a.columns)), ["%x", "%y", "%slope"])
    else:
        with w.loop("%n0", "%n1", 1, "n") as n:
            places = [
                w.op(f"getelementptr inbounds {w.real}, ptr {array}, i64 {w.plus(w.times(n, str(width)), str(start))}")
                for array, width, start in runs
            ]
            _run(w, a, dtype, "0", str(a.columns), places)
    head = f"define void @{name}(i64 %n0, i64 %n1, ptr %x, ptr %y, ptr %slope) #2 {{"
    return "\n".join([head, "entry:", *w.slots, *w.lines, "  ret void", "}", ""])


def activation_head(dtype: str) -> str:
    """What a module with activations begins with, beyond `matrix_head`."""
    lanes, kind, short = LANES[dtype][0], f"<{LANES[dtype][0]} x {REALS[dtype]}>", f"v{LANES[dtype][0]}f{_bits(dtype)}"
    return "\n".join(
        [
            f"declare {kind} @llvm.fmuladd.{short}({kind}, {kind}, {kind})",
            f"declare {kind} @llvm.fabs.{short}({kind})",
            f"declare {kind} @llvm.copysign.{short}({kind}, {kind})",
            f"; lanes {lanes}",
            "",
        ]
    )


def _bits(dtype: str) -> int:
    return int(dtype.removeprefix("float"))


def _run(w: Writer, a: Activation, dtype: str, start: str, stop: str, places: list[str]) -> None:
    """Numbers start ... stop - 1 from the three places, a vector at a time; a mask covers the rest."""
    lanes = w.lanes[0]
    kind, short = w.kind(lanes), f"v{lanes}f{_bits(dtype)}"
    order = ", ".join(f"i64 {i}" for i in range(lanes))
    with w.loop(start, stop, lanes, "i") as i:
        left = w.op(f"sub nsw i64 {stop}, {i}", "left")
        one = w.op(f"insertelement <{lanes} x i64> poison, i64 {left}, i64 0")
        all_ = w.op(f"shufflevector <{lanes} x i64> {one}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer")
        mask = w.op(f"icmp slt <{lanes} x i64> <{order}>, {all_}", "mask")
        x, y, slope = (w.op(f"getelementptr inbounds {w.real}, ptr {p}, i64 {i}", "p") for p in places)
        masked = f"i32 {w.bytes}, <{lanes} x i1> {mask}"
        value = w.op(f"call {kind} @llvm.masked.load.{short}.p0(ptr {x}, {masked}, {kind} zeroinitializer)", "x")
        for result, place in zip(FUNCTIONS[a.function](_Vector(w, dtype), value), (y, slope), strict=True):
            m = _Vector(w, dtype)
            scaled = result if a.gain == 1.0 else m.times(m.number(Fraction(a.gain)), result)
            w.do(f"call void @llvm.masked.store.{short}.p0({kind} {scaled}, ptr {place}, {masked})")


@dataclass(frozen=True, slots=True)
class _Vector:
    """Arithmetic on vectors of one width."""

    w: Writer
    dtype: str

    @property
    def lanes(self) -> int:
        return self.w.lanes[0]

    @property
    def kind(self) -> str:
        return self.w.kind(self.lanes)

    @property
    def integers(self) -> str:
        return f"<{self.lanes} x i{_bits(self.dtype)}>"

    def number(self, value: Fraction | int) -> str:
        """A constant in every lane, rounded once."""
        number = float(value)
        if self.dtype == "float32":
            number = struct.unpack("f", struct.pack("f", number))[0]
        literal = f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
        return f"<{', '.join([f'{self.w.real} {literal}'] * self.lanes)}>"

    def integer(self, value: int) -> str:
        return f"<{', '.join([f'i{_bits(self.dtype)} {value}'] * self.lanes)}>"

    def do(self, verb: str, a: str, b: str) -> str:
        return self.w.op(f"{verb} {self.kind} {a}, {b}")

    def plus(self, a: str, b: str) -> str:
        return self.do("fadd", a, b)

    def minus(self, a: str, b: str) -> str:
        return self.do("fsub", a, b)

    def times(self, a: str, b: str) -> str:
        return self.do("fmul", a, b)

    def over(self, a: str, b: str) -> str:
        return self.do("fdiv", a, b)

    def intrinsic(self, name: str, *values: str) -> str:
        given = ", ".join(f"{self.kind} {v}" for v in values)
        return self.w.op(f"call {self.kind} @llvm.{name}.v{self.lanes}f{_bits(self.dtype)}({given})")

    def fused(self, a: str, b: str, c: str) -> str:
        """a · b + c, rounded once where the processor can."""
        return self.intrinsic("fmuladd", a, b, c)

    def choose(self, test: str, a: str, b: str, yes: str, no: str) -> str:
        """`yes` in lanes where `a test b`, which is false for NaN."""
        where = self.w.op(f"fcmp {test} {self.kind} {a}, {b}")
        return self.w.op(f"select <{self.lanes} x i1> {where}, {self.kind} {yes}, {self.kind} {no}")

    def polynomial(self, coefficients: Sequence[Fraction], x: str) -> str:
        *rest, result = (self.number(c) for c in coefficients)
        for c in reversed(rest):
            result = self.fused(result, x, c)
        return result

    def exponential(self, t: str) -> tuple[str, str]:
        """exp(t) and exp(t) - 1 for t <= 0."""
        mantissa, bias = MANTISSA[self.dtype], 2 ** (EXPONENTS[self.dtype] - 1) - 1
        high, low = _split_log_two(mantissa + 1 - EXPONENTS[self.dtype])
        # Added to 1.5 · 2^mantissa a number is rounded to an integer, which then stands in the lowest bits.
        anchor = self.number(3 * 2 ** (mantissa - 1))
        shifted = self.fused(t, self.number(1 / (high + low)), anchor)
        n = self.minus(shifted, anchor)
        r = self.fused(n, self.number(-low), self.fused(n, self.number(-high), t))
        p = self.times(r, self.polynomial(exponential_coefficients(DEGREES[self.dtype][0]), r))
        bits = self.w.op(f"bitcast {self.kind} {shifted} to {self.integers}")
        biased = self.w.op(f"add {self.integers} {bits}, {self.integer(bias)}")
        power = self.w.op(f"shl {self.integers} {biased}, {self.integer(mantissa)}")
        scale = self.w.op(f"bitcast {self.integers} {power} to {self.kind}")
        z = self.fused(scale, p, scale)
        q = self.fused(scale, p, self.minus(scale, self.number(1)))
        lowest = self.number(LOWEST[self.dtype])
        return (
            self.choose("olt", t, lowest, self.number(0), z),
            self.choose("olt", t, lowest, self.number(-1), q),
        )

    def decay(self, x: str) -> tuple[str, str]:
        """exp(-|x|) and exp(-|x|) - 1."""
        return self.exponential(self.w.op(f"fneg {self.kind} {self.intrinsic('fabs', x)}"))

    def logarithm(self, v: str) -> str:
        """log(1 + v) for -1/2 <= v <= 1."""
        s = self.over(v, self.plus(v, self.number(2)))
        return self.times(s, self.polynomial(logarithm_coefficients(DEGREES[self.dtype][1]), self.times(s, s)))

    def step(self, x: str, z: str) -> tuple[str, str]:
        """The sigmoid and its slope."""
        below = self.plus(z, self.number(1))
        part = self.over(z, below)
        return self.over(self.choose("olt", x, self.number(0), z, self.number(1)), below), self.over(part, below)


def _sigmoid(m: _Vector, x: str) -> tuple[str, str]:
    return m.step(x, m.decay(x)[0])


def _silu(m: _Vector, x: str) -> tuple[str, str]:
    value, slope = m.step(x, m.decay(x)[0])
    # Far out the other factor is zero, and zero times infinity would be NaN.
    far = m.number(2 * LOWEST[m.dtype])
    low = m.choose("olt", x, far, far, x)
    top = m.number(-2 * LOWEST[m.dtype])
    near = m.choose("ogt", low, top, top, low)
    return m.times(low, value), m.fused(near, slope, value)


def _tanh(m: _Vector, x: str) -> tuple[str, str]:
    z, q = m.decay(m.plus(x, x))
    below = m.plus(z, m.number(1))
    slope = m.times(m.over(m.times(z, m.number(4)), below), m.over(m.number(1), below))
    return m.intrinsic("copysign", m.over(q, m.plus(q, m.number(2))), x), slope


def _softplus(m: _Vector, x: str) -> tuple[str, str]:
    z, _ = m.decay(x)
    above = m.choose("olt", x, m.number(0), m.number(0), x)
    return m.plus(above, m.logarithm(z)), m.step(x, z)[0]


def _shifted_softplus(m: _Vector, x: str) -> tuple[str, str]:
    z, q = m.decay(x)
    above = m.choose("olt", x, m.number(0), m.number(0), x)
    return m.plus(above, m.logarithm(m.times(q, m.number(Fraction(1, 2))))), m.step(x, z)[0]


def _absolute(m: _Vector, x: str) -> tuple[str, str]:
    unit = m.intrinsic("copysign", m.number(1), x)
    zero_or_nan = m.times(x, m.number(0))
    return m.intrinsic("fabs", x), m.choose("one", x, m.number(0), unit, zero_or_nan)


FUNCTIONS: dict[str, Callable[[_Vector, str], tuple[str, str]]] = {
    "silu": _silu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
    "ssp": _shifted_softplus,
    "abs": _absolute,
}
"""By name: from a vector x the vectors f(x) and f'(x)."""


@lru_cache(maxsize=8)
def exponential_coefficients(degree: int) -> tuple[Fraction, ...]:
    """P of (eʳ - 1)/r on |r| <= log(2)/2, lowest power first."""

    def value(r: Fraction) -> Fraction:
        with localcontext(prec=DIGITS):
            return (Fraction((Decimal(r.numerator) / Decimal(r.denominator)).exp()) - 1) / r if r else Fraction(1)

    half = Fraction(math.log(2) / 2)
    return interpolate(value, -half, half, degree)


@lru_cache(maxsize=8)
def logarithm_coefficients(degree: int) -> tuple[Fraction, ...]:
    """L of log((1+s)/(1-s))/s in s² on 0 <= s² <= 1/9, lowest power first."""

    def value(square: Fraction) -> Fraction:
        with localcontext(prec=DIGITS):
            s = (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()
            return Fraction(((1 + s) / (1 - s)).ln() / s)

    return interpolate(value, Fraction(0), Fraction(1, 9), degree)


def interpolate(
    value: Callable[[Fraction], Fraction], begin: Fraction, end: Fraction, degree: int
) -> tuple[Fraction, ...]:
    """Coefficients, lowest power first, of the polynomial that meets `value` at the Chebyshev points of an interval."""
    middle, half = (begin + end) / 2, (end - begin) / 2
    points = [middle + half * Fraction(math.cos(math.pi * (k + 0.5) / (degree + 1))) for k in range(degree + 1)]
    differences = [value(p) for p in points]
    for level in range(1, degree + 1):  # Newton's divided differences, in place
        for k in range(degree, level - 1, -1):
            differences[k] = (differences[k] - differences[k - 1]) / (points[k] - points[k - level])
    result = [Fraction(0)] * (degree + 1)
    for point, difference in zip(reversed(points), reversed(differences), strict=True):
        for i in range(degree, 0, -1):  # times (x - point)
            result[i] = result[i - 1] - point * result[i]
        result[0] = difference - point * result[0]
    return tuple(result)


def _split_log_two(bits: int) -> tuple[Fraction, Fraction]:
    """log 2 as a number of so many bits, by which integers are multiplied exactly, and the rest."""
    with localcontext(prec=DIGITS):
        whole = Fraction(Decimal(2).ln())
    high = Fraction(math.floor(whole * 2**bits), 2**bits)
    return high, whole - high
