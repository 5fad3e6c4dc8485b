"""Recipes of the SO(2) path: into the frame of an edge, through a gate, and back.

In the frame of an edge (polar axis along it) only the components of order |m| <= mmax are kept, sorted by order:
m = 0 with l = 0 ... lmax, then for each m > 0 all (+m, l), then all (-m, l), l = m ... lmax, one array for each m.
Passaro and Zitnick, ICML 2023; Liao et al., EquiformerV2, ICLR 2024; Fu et al., eSEN, ICML 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

from irrepc.algebra.irreps import check_degree
from irrepc.errors import RecipeError


@dataclass(frozen=True, slots=True)
class RotateRecipe:
    """Node features, gathered and turned into the frames of edges, times weights.

    sides    1: features of the sender; 2: of sender and receiver, side by side along the channels
    weights  "none", "degree" (one weight for each l) or "order" (one for each |m| and l), each for every channel
    """

    lmax: int
    mmax: int
    sides: int = 1
    weights: str = "none"

    def __post_init__(self) -> None:
        check_order("rotate", self.lmax, self.mmax)
        if self.sides not in (1, 2) or self.weights not in ("none", "degree", "order"):
            raise RecipeError(
                f"rotate: got sides {self.sides!r} and weights {self.weights!r}; "
                "expected 1 or 2 sides and none, degree or order"
            )

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "rotate"

    def __str__(self) -> str:
        return f"rotate(lmax={self.lmax}, mmax={self.mmax}, sides={self.sides}, weights={self.weights})"


@dataclass(frozen=True, slots=True)
class RotateBackRecipe:
    """Edge features, turned back out of the frames of their edges and added up at the receivers.

    heads  True: the channels come in heads, and each edge and head has a factor
    """

    lmax: int
    mmax: int
    heads: bool = False

    def __post_init__(self) -> None:
        check_order("rotate_back", self.lmax, self.mmax)

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "rotate_back"

    def __str__(self) -> str:
        return f"rotate_back(lmax={self.lmax}, mmax={self.mmax}{', heads' if self.heads else ''})"


@dataclass(frozen=True, slots=True)
class OrderGateRecipe:
    """Edge features sorted by order, times one scalar for each degree and channel, the same for every order."""

    lmax: int
    mmax: int

    def __post_init__(self) -> None:
        check_order("order_gate", self.lmax, self.mmax)

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "order_gate"

    def __str__(self) -> str:
        return f"order_gate(lmax={self.lmax}, mmax={self.mmax})"


def check_order(what: str, lmax: int, mmax: int) -> None:
    """Raise RecipeError unless 0 <= mmax <= lmax, IrrepsError unless lmax is a degree."""
    check_degree(lmax)
    if not isinstance(mmax, int) or isinstance(mmax, bool) or not 0 <= mmax <= lmax:
        raise RecipeError(f"{what}: got mmax {mmax!r}; expected an integer 0 <= mmax <= lmax = {lmax}")


def orders(lmax: int, mmax: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each m = 0 ... mmax the components (±m, l) of its array, in order."""
    rows = [tuple((0, l) for l in range(lmax + 1))]
    rows += [tuple((sign * m, l) for sign in (1, -1) for l in range(m, lmax + 1)) for m in range(1, mmax + 1)]
    return tuple(rows)


def kept_start(l: int, mmax: int) -> int:
    """Where the kept rows |m'| <= mmax of D^l begin among those of D^0 ... D^l, each row of 2l+1 numbers."""
    return sum((2 * min(k, mmax) + 1) * (2 * k + 1) for k in range(l))


def kept_entry(l: int, mmax: int, row: int, column: int) -> int:
    """The place of entry (m', m) of D^l, |m'| <= min(l, mmax), among the kept rows of all degrees."""
    return kept_start(l, mmax) + (min(l, mmax) + row) * (2 * l + 1) + l + column
