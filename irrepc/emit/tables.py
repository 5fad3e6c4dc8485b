"""Tables: the couplings themselves as a module that needs NumPy only, exact numbers with their decimals."""

from __future__ import annotations

from irrepc.algebra.surd import Surd
from irrepc.emit.module import as_comment, head
from irrepc.emit.templates import render, template_hash
from irrepc.frontend.clebsch_gordan import triangles, w3j

Triple = tuple[int, int, int]
TEMPLATE = "package/clebsch_gordan.py.jinja"


def rising(lmax: int) -> tuple[Triple, ...]:
    """The triples l1 <= l2 <= l3 up to lmax that couple; all others are permutations of these."""
    return tuple(t for t in triangles(lmax) if t[0] <= t[1] <= t[2])


def sparsity(lmax: int) -> tuple[tuple[Triple, int, int], ...]:
    """For each rising triple, how many couplings are not zero and how many there are."""
    return tuple((t, len(w3j(*t)), (2 * t[0] + 1) * (2 * t[1] + 1) * (2 * t[2] + 1)) for t in rising(lmax))


def coupling_module(lmax: int, command: str) -> str:
    """The text of clebsch_gordan.py."""
    blocks = [(str(t), [_entry(t, place, value) for place, value in w3j(*t).items()]) for t in rising(lmax)]
    banner = (
        *head(command),
        "",
        "conventions  real basis, m = -l ... l, polar axis y (e3nn >= 0.5); w3j of unit norm",
        f"source       irrepc/frontend/clebsch_gordan.py, templates/{TEMPLATE} {template_hash(TEMPLATE)}",
        head(command)[0],
    )
    return render(TEMPLATE, banner=as_comment(banner), lmax=lmax, blocks=blocks)


def _entry(degrees: Triple, place: Triple, value: Surd) -> str:
    """(i, j, k, sign, numerator, denominator, decimal) and for the reader m1, m2, m3 and the surd."""
    i, j, k = place
    ((n, q),) = value.parts
    square = q * q * n
    ms = ", ".join(f"{index - l:+d}" if index != l else "0" for index, l in zip(place, degrees, strict=True))
    sign = "+1" if q > 0 else "-1"
    return f"({i}, {j}, {k}, {sign}, {square.numerator}, {square.denominator}, {float(value)!r}),  # m = {ms}: {value}"
