"""Tables: functions of the distance as B-splines with equal intervals, fitted by least squares, with their errors.

A table of degree d on n intervals has n + d rows; on interval i it is Σ_k b_k(t) row[i + k], k = 0 ... d.  It has d - 1
continuous derivatives, and its derivative is that of the splines, so that forces are the gradient of the energy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.program import Segment
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


def fit(function: Radial, segments: tuple[Segment, ...], degree: int) -> Fit:
    """Splines for functions that vanish with their first derivatives at the end of the last segment.

    So do the tables, exactly; where two segments meet, value and first derivative are the same on both sides.
    """
    rows, worst, end = [], np.zeros(4), None
    for segment in reversed(segments):
        found, errors, end = _fit_segment(function, segment, degree, end)
        rows.append(found)
        worst = np.maximum(worst, errors)
    return Fit(np.concatenate(rows[::-1]), *worst.tolist())


def _fit_segment(function: Radial, segment: Segment, degree: int, end: Float | None) -> tuple[Float, Float, Float]:
    """Rows, errors, and value and derivative (1/Å) at the beginning; end: the same where the segment ends."""
    n, width = segment.intervals, (segment.end - segment.begin) / segment.intervals

    def values(t: Float) -> Float:
        x = (segment.begin + (np.arange(n)[:, None] + t) * width).ravel()
        return function(x).reshape(n, len(t), -1)

    # Gauss points in each interval, one more than the splines that live there
    points, weights = np.polynomial.legendre.leggauss(degree + 2)
    t, weights = (points + 1) / 2, weights / 2
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
