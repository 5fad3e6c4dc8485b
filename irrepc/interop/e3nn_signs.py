"""The two sign conventions of e3nn's couplings, folded into the weights of the paths that use them."""

from __future__ import annotations

from collections.abc import Iterable

from irrepc.frontend.clebsch_gordan import w3j


def path_sign(degrees: tuple[int, int, int], signs: str) -> float:
    """-1 where the coupling of these degrees has the opposite sign of ours under `signs`, otherwise 1.

    signs  "e3nn-0.5" (ours, e3nn from 0.5 on) or "e3nn-0.4" (e3nn up to 0.4)
    Raises ConventionError for another name, and for degrees above 8 under "e3nn-0.4".
    """
    return 1.0 if w3j(*degrees, signs) == w3j(*degrees) else -1.0


def path_signs(degrees: Iterable[tuple[int, int, int]], signs: str) -> tuple[float, ...]:
    """The sign of each path, as `path_sign`."""
    return tuple(path_sign(path, signs) for path in degrees)
