"""Irrep and Irreps: labels of the irreducible representations of O(3) and their direct sums.

The text form is the field's own: "16x0e + 8x1o" is sixteen even scalars and eight odd vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from irrepc.errors import IrrepsError

_BLOCK = re.compile(r"\s*(?:(\d+)\s*x\s*)?(\d+)\s*([eo])\s*")


@dataclass(frozen=True, slots=True, order=True)
class Irrep:
    """An irrep of O(3): degree l >= 0 and parity p (+1 even, -1 odd); ordered by (l, p) as e3nn sorts."""

    l: int
    p: int

    @staticmethod
    def of(text: Irrep | str) -> Irrep:
        """Read "1o"; an Irrep is returned as it is."""
        if isinstance(text, Irrep):
            return text
        match = re.fullmatch(r"\s*(\d+)\s*([eo])\s*", text)
        if match is None:
            raise IrrepsError(f"irrep: got {text!r}; expected a degree and a parity, for instance 0e, 1o or 2e")
        return Irrep(int(match[1]), 1 if match[2] == "e" else -1)

    @property
    def dim(self) -> int:
        """2l + 1 components, m = -l ... l."""
        return 2 * self.l + 1

    @property
    def is_scalar(self) -> bool:
        """True for 0e, the invariant."""
        return self.l == 0 and self.p == 1

    def __mul__(self, other: Irrep) -> tuple[Irrep, ...]:
        """The irreps of the product, |l1 - l2| ... l1 + l2, each once."""
        return tuple(Irrep(l, self.p * other.p) for l in range(abs(self.l - other.l), self.l + other.l + 1))

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """mul copies of one irrep, stored as (component, channel)."""

    mul: int
    irrep: Irrep

    @property
    def dim(self) -> int:
        """mul · (2l + 1)."""
        return self.mul * self.irrep.dim

    def __str__(self) -> str:
        return f"{self.mul}x{self.irrep}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Irreps:
    """A direct sum of blocks, in order; the width of a feature row is `dim`.

    Memory layout of a row ("ir_mul"): the blocks one after the other, in a block component m slow, channel u
    fast, so that the number (m, u) of a block that begins at `offset` is at offset + m·mul + u.
    """

    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, tuple) or not all(isinstance(b, Block) for b in self.blocks):
            got = repr(self.blocks)
            raise IrrepsError(f"Irreps: got {got}; expected a tuple of blocks; do: Irreps.of({got})")

    @staticmethod
    def of(value: Irreps | Irrep | str | Iterable[Block | tuple[int, Irrep | str]]) -> Irreps:
        """Read "16x0e + 8x1o", an Irrep, or pairs (mul, irrep).

        Raises IrrepsError naming the part that cannot be read.
        """
        if isinstance(value, Irreps):
            return value
        if isinstance(value, Irrep):
            return Irreps((Block(1, value),))
        if isinstance(value, str):
            return Irreps(tuple(_read_block(part, value) for part in value.split("+")) if value.strip() else ())
        blocks = []
        for item in value:
            mul, irrep = (item.mul, item.irrep) if isinstance(item, Block) else item
            if isinstance(mul, bool) or not isinstance(mul, int) or mul < 0:
                raise IrrepsError(f"irreps: got multiplicity {mul!r}; expected an integer >= 0")
            blocks.append(Block(mul, Irrep.of(irrep)))
        return Irreps(tuple(blocks))

    @staticmethod
    def spherical_harmonics(lmax: int, parity: int = -1) -> Irreps:
        """1x0e + 1x1o + 1x2e + ... to lmax: the irreps of Y(r) for an odd vector (parity -1), or all even (+1)."""
        check_degree(lmax)
        if parity not in (-1, 1):
            raise IrrepsError(f"spherical_harmonics: got parity {parity!r}; expected -1 (odd vector) or +1")
        return Irreps(tuple(Block(1, Irrep(l, parity**l)) for l in range(lmax + 1)))

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, i: int) -> Block:
        return self.blocks[i]

    def __add__(self, other: Irreps) -> Irreps:
        return Irreps(self.blocks + other.blocks)

    def __mul__(self, times: int) -> Irreps:
        """Every multiplicity times an integer."""
        return Irreps(tuple(Block(b.mul * times, b.irrep) for b in self.blocks))

    def __contains__(self, irrep: Irrep | str) -> bool:
        wanted = Irrep.of(irrep)
        return any(b.irrep == wanted and b.mul for b in self.blocks)

    @property
    def dim(self) -> int:
        """The width of a row: Σ mul · (2l + 1)."""
        return sum(b.dim for b in self.blocks)

    @property
    def num_irreps(self) -> int:
        """Σ mul."""
        return sum(b.mul for b in self.blocks)

    @property
    def lmax(self) -> int:
        """The largest degree.  Raises IrrepsError for an empty sum."""
        if not self.blocks:
            raise IrrepsError("irreps: got an empty sum; expected at least one block to have an lmax")
        return max(b.irrep.l for b in self.blocks)

    def slices(self) -> tuple[slice, ...]:
        """Where each block lies in a row."""
        out, start = [], 0
        for block in self.blocks:
            out.append(slice(start, start + block.dim))
            start += block.dim
        return tuple(out)

    def count(self, irrep: Irrep | str) -> int:
        """How many copies of an irrep there are, over all blocks."""
        wanted = Irrep.of(irrep)
        return sum(b.mul for b in self.blocks if b.irrep == wanted)

    def sort(self) -> tuple[Irreps, tuple[int, ...]]:
        """Blocks in (l, p) order, stable, with `order`: new block k is old block order[k]."""
        order = tuple(sorted(range(len(self.blocks)), key=lambda i: (self.blocks[i].irrep, i)))
        return Irreps(tuple(self.blocks[i] for i in order)), order

    def simplify(self) -> Irreps:
        """Neighbouring blocks of the same irrep joined and empty blocks dropped."""
        out: list[Block] = []
        for block in self.blocks:
            if out and out[-1].irrep == block.irrep:
                out[-1] = Block(out[-1].mul + block.mul, block.irrep)
            elif block.mul:
                out.append(block)
        return Irreps(tuple(out))

    def __str__(self) -> str:
        return "+".join(str(b) for b in self.blocks)

    __repr__ = __str__


def check_degree(lmax: object) -> int:
    """Return lmax if it is an integer >= 0; raise IrrepsError otherwise."""
    if isinstance(lmax, bool) or not isinstance(lmax, int) or lmax < 0:
        raise IrrepsError(f"degree: got {lmax!r}; expected an integer >= 0")
    return lmax


def _read_block(part: str, whole: str) -> Block:
    match = _BLOCK.fullmatch(part)
    if match is None:
        raise IrrepsError(
            f"irreps: got {part.strip()!r} in {whole!r}; expected blocks such as 16x0e or 1o joined by '+'"
        )
    return Block(int(match[1] or 1), Irrep(int(match[2]), 1 if match[3] == "e" else -1))
