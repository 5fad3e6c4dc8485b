"""Activations in LLVM text against arithmetic of 60 digits: a few units of the last place, infinities, NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

from irrepc.emit.llvm_activation import (
    FUNCTIONS,
    Activation,
    activation_head,
    exponential_coefficients,
    interpolate,
    llvm_activation,
    logarithm_coefficients,
)
from irrepc.emit.llvm_matrix import matrix_head
from irrepc.errors import KernelError
from irrepc.runtime.object_code import Processor, function, object_code

DTYPES = ("float32", "float64")
ONE = Decimal(1)


def sigmoid(x: Decimal) -> Decimal:
    return ONE / (ONE + (-x).exp())


def tanh(x: Decimal) -> Decimal:
    return ONE - 2 / ((2 * x).exp() + 1)


def sign(x: Decimal) -> Decimal:
    return Decimal((x > 0) - (x < 0))


EXACT: dict[str, tuple[Callable[[Decimal], Decimal], Callable[[Decimal], Decimal]]] = {
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": (tanh, lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x)),
    "softplus": (lambda x: (ONE + x.exp()).ln(), sigmoid),
    "ssp": (lambda x: (ONE + x.exp()).ln() - Decimal(2).ln(), sigmoid),
    "abs": (abs, sign),
}


@lru_cache(maxsize=64)
def compiled(activation: Activation, dtype: str) -> Callable[..., None]:
    text = matrix_head(dtype) + activation_head(dtype) + llvm_activation("activate", activation, dtype)
    return function(object_code(text, Processor.native()), "activate", 3)


def activate(activation: Activation, x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> None:
    run = compiled(activation, x.dtype.name)
    run(0, len(x), x.ctypes.data, y.ctypes.data, slope.ctypes.data)


def flat(name: str, x: np.ndarray, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope of numbers (n,)."""
    y, slope = np.empty_like(x), np.empty_like(x)
    activate(Activation(name, gain, 1, 1, 0, 1, 0, 1, 0), x, y, slope)
    return y, slope


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_few_units_of_the_last_place(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    parts = rng.uniform(-40, 40, 150), rng.standard_normal(300), 1e-4 * rng.standard_normal(80), [0.0, 80.0, -80.0, 1.0]
    x = np.concatenate(parts).astype(dtype)
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    with localcontext(prec=120):
        for got, exact in zip(flat(name, x), EXACT[name], strict=True):
            meant = [exact(Decimal(float(v))) for v in x]
            # a slope that crosses zero has no relative accuracy there
            floor = 0.1 if name == "silu" and got[0] != x[0] and exact is EXACT[name][1] else 0.0
            errors = [
                abs(float(Decimal(float(g)) - m)) / max(abs(float(m)), floor, tiny / eps)
                for g, m in zip(got, meant, strict=True)
            ]
            assert max(errors) < 4 * eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("silu", (math.inf, 0.0), (1.0, 0.0)),
        ("sigmoid", (1.0, 0.0), (0.0, 0.0)),
        ("tanh", (1.0, -1.0), (0.0, 0.0)),
        ("softplus", (math.inf, 0.0), (1.0, 0.0)),
        ("ssp", (math.inf, -math.log(2)), (1.0, 0.0)),
        ("abs", (math.inf, math.inf), (1.0, -1.0)),
    ],
)
def test_infinities_and_nan(name: str, values: tuple[float, ...], slopes: tuple[float, ...], dtype: str) -> None:
    y, slope = flat(name, np.array([math.inf, -math.inf, math.nan], dtype))
    assert np.allclose(y[:2], values, rtol=1e-7) and np.allclose(slope[:2], slopes, rtol=0, atol=0)
    assert math.isnan(y[2]) and math.isnan(slope[2])
    large = flat(name, np.array([1e30, -1e30, 1e3, -1e3], dtype))
    assert np.isfinite(large[0]).all() and np.allclose(large[1], [*slopes, *slopes], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_of_columns(dtype: str) -> None:
    """Runs of 19 columns inside wider rows, with a gain; what lies beside them is kept."""
    x = np.random.default_rng(1).standard_normal((7, 23)).astype(dtype)
    y, slope = np.full((7, 20), 5, dtype), np.full((7, 25), 6, dtype)
    activate(Activation("tanh", 1.5, 19, 23, 2, 20, 1, 25, 4), x, y, slope)
    t = np.tanh(x[:, 2:21].astype(np.float64))
    assert np.allclose(y[:, 1:], 1.5 * t, rtol=0, atol=4 * np.finfo(dtype).eps)
    assert np.allclose(slope[:, 4:23], 1.5 * (1 - t * t), rtol=0, atol=4 * np.finfo(dtype).eps)
    assert (y[:, 0] == 5).all() and (slope[:, :4] == 6).all() and (slope[:, 23:] == 6).all()


def test_in_place() -> None:
    x = np.random.default_rng(2).standard_normal(100)
    kept, slope = x.copy(), np.empty_like(x)
    activate(Activation("silu", 1.0, 1, 1, 0, 1, 0, 1, 0), x, x, slope)
    assert np.allclose(x, kept / (1 + np.exp(-kept)), rtol=0, atol=1e-15)


def test_coefficients_interpolate() -> None:
    """x³ from four points is x³; the series behind the functions begin as they must."""
    assert interpolate(lambda v: v**3, Fraction(-1), Fraction(2), 3) == (0, 0, 0, 1)
    assert np.allclose([float(c) for c in exponential_coefficients(10)[:4]], [1, 1 / 2, 1 / 6, 1 / 24], rtol=1e-9)
    assert np.allclose([float(c) for c in logarithm_coefficients(11)[:3]], [2, 2 / 3, 2 / 5], rtol=1e-9)


def test_unknown_functions_are_named() -> None:
    with pytest.raises(KernelError, match="'sine'; expected one of silu, sigmoid"):
        llvm_activation("f", Activation("sine", 1.0, 1, 1, 0, 1, 0, 1, 0), "float32")
