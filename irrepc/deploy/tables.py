"""Tables: functions of the distance as B-splines with equal intervals, fitted by least squares, with their errors.

A table of degree d on n intervals has n + d rows; on interval i it is Σ_k b_k(t) row[i + k], k = 0 ... d.  It has d - 1
continuous derivatives, and its derivative is that of the splines, so that forces are the gradient of the energy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.program import Segment
from irrepc.errors import InputError
from irrepc.frontend.weights import spline_pieces

Float = NDArray[np.float64]
Radial = Callable[[Float], Float]
"""Distances (points,) Å -> values (points, functions), float64."""


class Fit(NamedTuple):
    """rows (Σ intervals + degree, functions); the largest errors of values and of derivatives (1/Å), and the largest
    value and derivative themselves, each over all functions and the points between the knots."""

    rows: Float
    error: float
    slope_error: float
    largest: float
    steepest: float


def basis(t: Float, degree: int) -> tuple[Float, Float]:
    """The splines on an interval and their derivatives by t, each (points, degree + 1), for t (points,) in 0 ... 1."""
    pieces = np.array([[float(c) for c in piece] for piece in spline_pieces(degree)])
    powers = t[:, None] ** np.arange(degree + 1)
    slopes = np.arange(1, degree + 1) * powers[:, :-1]
    return powers @ pieces.T, slopes @ pieces[:, 1:].T


def refine(functions: Sequence[Radial], breaks: Sequence[float], degree: int, tolerance: float) -> tuple[Segment, ...]:
    """Segments between the breaks (Å) with so many intervals that the derivatives of all splines are right.

    tolerance  the largest error of a derivative, relative to the largest derivative of the same functions anywhere in
               the outer half of their range
    Raises InputError where 1024 intervals per Å are too few.
    """
    scales = [_steepest(function, breaks) for function in functions]
    found: list[Segment] = []
    for begin, end in pairwise(breaks):
        for density in DENSITIES:
            segment = Segment(begin, end, max(degree + 1, round(density * (end - begin))))
            fits = (fit(function, (segment,), degree, vanishing=end == breaks[-1]) for function in functions)
            if all(f.slope_error <= tolerance * scale for f, scale in zip(fits, scales, strict=True)):
                found.append(segment)
                break
        else:
            raise InputError(
                f"tables: got no accuracy of {tolerance:g} between {begin} and {end} Å; expected it with "
                f"{DENSITIES[-1]} intervals per Å; ask for less, or let tables begin farther out"
            )
    return tuple(found)


DENSITIES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
"""Intervals per Å that are tried."""


def _steepest(function: Radial, breaks: Sequence[float]) -> float:
    x = np.linspace((breaks[0] + breaks[-1]) / 2, breaks[-1], 256)
    return float(np.abs(np.diff(function(x), axis=0)).max() / (x[1] - x[0]))


def fit(function: Radial, segments: tuple[Segment, ...], degree: int, *, vanishing: bool = True) -> Fit:
    """Splines for functions that vanish with their first derivatives at the end of the last segment.

    So do the tables, exactly; where two segments meet, value and first derivative are the same on both sides.
    Not vanishing: the end is what the function says.
    """
    rows, worst = [], np.zeros(4)
    end = None if vanishing else _end(function, segments[-1].end)
    for segment in reversed(segments):
        found, errors, end = _fit_segment(function, segment, degree, end)
        rows.append(found)
        worst = np.maximum(worst, errors)
    return Fit(np.concatenate(rows[::-1]), *worst.tolist())


def _end(function: Radial, x: float) -> Float:
    """Value and derivative from the left."""
    h = 1e-5
    values = function(np.asarray(x - h * np.arange(4), dtype=np.float64))
    return np.stack([values[0], np.array([11, -18, 9, -2]) / 6 @ values / h])


def _fit_segment(function: Radial, segment: Segment, degree: int, end: Float | None) -> tuple[Float, Float, Float]:
    """Rows, errors, and value and derivative (1/Å) at the beginning; end: the same where the segment ends."""
    n, width = segment.intervals, (segment.end - segment.begin) / segment.intervals

    def values(t: Float) -> Float:
        x = (segment.begin + (np.arange(n)[:, None] + t) * width).ravel()
        return function(x).reshape(n, len(t), -1)

    # Gauss points in each interval, one more than the splines that live there
    points, weights = np.polynomial.legendre.leggauss(degree + 2)
    t, weights = np.asarray((points + 1) / 2, dtype=np.float64), weights / 2
    b, _ = basis(t, degree)
    sampled = values(t)
    gram, right = np.zeros((n + degree, n + degree)), np.zeros((n + degree, sampled.shape[2]))
    local, projected = b.T @ (weights[:, None] * b), np.einsum("pk,p,npf->nkf", b, weights, sampled)
    for i in range(n):
        gram[i : i + degree + 1, i : i + degree + 1] += local
        right[i : i + degree + 1] += projected[i]

    # the last `degree` rows: what gives the end its value and derivative, and what changes neither
    value, slope = basis(np.ones(1), degree)
    fixed = np.concatenate([value, slope / width])[:, 1:]
    target = np.zeros((2, sampled.shape[2])) if end is None else end
    null = np.linalg.svd(fixed)[2][2:].T
    spread = np.zeros((n + degree, n + degree - 2))
    spread[:n, :n] = np.eye(n)
    spread[n:, n:] = null
    given = np.zeros_like(right)
    given[n:] = np.linalg.pinv(fixed) @ target
    free = np.linalg.solve(spread.T @ gram @ spread, spread.T @ (right - gram @ given))
    rows = given + spread @ free

    value, slope = basis(np.zeros(1), degree)
    begin = np.concatenate([value, slope / width]) @ rows[: degree + 1]
    return rows, _errors(rows, values, degree, width), begin


def _errors(rows: Float, values: Radial, degree: int, width: float) -> Float:
    """The largest errors of value and derivative, and the largest value and derivative, between the knots."""
    n = len(rows) - degree
    fine = (np.arange(8) + 0.5) / 8
    b, slopes = basis(fine, degree)
    windows = np.stack([rows[k : k + n] for k in range(degree + 1)], 1)
    step = 1e-4
    expected = values(fine)
    derivative = (values(fine + step) - values(fine - step)) / (2 * step * width)
    found = np.einsum("pk,nkf->npf", b, windows)
    slope = np.einsum("pk,nkf->npf", slopes, windows) / width
    return np.array([np.abs(e).max(initial=0.0) for e in (found - expected, slope - derivative, expected, derivative)])
