"""Proofs about the Wigner-D kernel: it is a homomorphism, orthogonal, and rotates the harmonics of the other kernel.

The kernels' own equations are run over the exact ring at integer quaternions, where D is homogeneous of degree 2l:
no division and no rounding occurs.  A false identity of degree d survives a draw from 2^16 values per component
with probability at most d/2^16 (Schwartz-Zippel); every D entry takes part in several identities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from random import Random

from irrepc.algebra.surd import Surd
from irrepc.frontend.harmonics import harmonic
from irrepc.frontend.proof import Proof, fail
from irrepc.frontend.rotations import Quaternion, rotation_matrix
from irrepc.frontend.wigner import block_start
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel

Block = tuple[tuple[Surd, ...], ...]


@dataclass(frozen=True, slots=True)
class Rotations:
    """The D kernel's values for two random integer quaternions and their product.

    quaternions  q1, q2, q1·q2, each (w, x, y, z) of integers, not of length 1
    blocks       for each of them the matrices |q|^2l·D^l, l = 0 ... lmax
    """

    lmax: int
    quaternions: tuple[Quaternion, Quaternion, Quaternion]
    blocks: tuple[tuple[Block, ...], tuple[Block, ...], tuple[Block, ...]]


def draw_rotations(kernel: Kernel, lmax: int, seed: int = 0) -> Rotations:
    """Run the kernel exactly at two random integer quaternions and at their product."""
    draw = Random(seed)
    first, second = _quaternion(draw), _quaternion(draw)
    quaternions = (first, second, quaternion_product(first, second))
    rows = interpret(kernel, {"q": [list(q) for q in quaternions]})["D"]
    one, two, both = (_blocks(row, lmax) for row in rows)
    return Rotations(lmax, quaternions, (one, two, both))


def prove_homomorphism(rotations: Rotations) -> Proof:
    """D(q1)·D(q2) = D(q1·q2)."""
    name = "D homomorphism"
    count = 0
    for l in range(rotations.lmax + 1):
        (n1, d1), (n2, d2), (n3, d3) = (_integers(name, l, blocks[l]) for blocks in rotations.blocks)
        columns = list(zip(*n2, strict=True))
        for i, row in enumerate(n1):
            for j, column in enumerate(columns):
                if d3 * sum(a * b for a, b in zip(row, column, strict=True)) != n3[i][j] * d1 * d2:
                    fail(name, f"(D(q1)·D(q2) - D(q1·q2)) of degree {l} at ({i - l},{j - l}) ≠ 0", "0")
                count += 1
    return Proof(name, "D(q1)·D(q2) = D(q1·q2) at random integer quaternions", rotations.lmax, count)


def prove_orthogonality(rotations: Rotations) -> Proof:
    """D(q)·D(q)ᵀ = |q|^4l, the identity for a unit quaternion."""
    name = "D orthogonality"
    count = 0
    size = sum(v * v for v in rotations.quaternions[0])
    for l, block in enumerate(rotations.blocks[0]):
        numbers, scale = _integers(name, l, block)
        # D = √(q_m'/q_m)·N/scale turns D·Dᵀ into N·diag(1/q)·Nᵀ, equal to scale²·|q|^4l·diag(1/q).
        inverse = [1 / harmonic(l, m).q for m in range(-l, l + 1)]
        common = lcm(*(v.denominator for v in inverse))
        weights = [int(v * common) for v in inverse]
        weighted = [[n * w for n, w in zip(row, weights, strict=True)] for row in numbers]
        for i, row in enumerate(numbers):
            for j in range(i + 1):
                wanted = scale**2 * size ** (2 * l) * weights[i] if i == j else 0
                if sum(a * b for a, b in zip(row, weighted[j], strict=True)) != wanted:
                    what = f"D·Dᵀ/|q|^{4 * l} of degree {l} at ({i - l},{j - l})"
                    fail(name, f"{what} ≠ {int(i == j)}", str(int(i == j)))
                count += 1
    return Proof(name, "D·Dᵀ = 1 at a random integer quaternion", rotations.lmax, count)


def prove_vector_block(rotations: Rotations) -> Proof:
    """D^1(q) is the rotation matrix of q: fixes the axes, and D against its inverse."""
    name = "D of vectors"
    if rotations.lmax == 0:
        return Proof(name, "D^1 = R, nothing to check at lmax 0", 0, 0)
    for q, blocks in zip(rotations.quaternions, rotations.blocks, strict=True):
        size = sum(v * v for v in q)
        for i, row in enumerate(rotation_matrix(q)):
            for j, entry in enumerate(row):
                if blocks[1][i][j] != Surd.of(entry * size):
                    fail(name, f"D^1 at ({i - 1},{j - 1}) = {blocks[1][i][j]}/|q|²", f"R[{i},{j}] = {entry}")
    return Proof(name, "D^1 = R at random integer quaternions", rotations.lmax, 27)


def prove_equivariance(rotations: Rotations, harmonics_kernel: Kernel, seed: int = 1) -> Proof:
    """Y(R r) = D(R)·Y(r), from the equations of both kernels, at random integer points."""
    name = "equivariance"
    draw = Random(seed)
    points, turned = [], []
    for q in rotations.quaternions[:2]:
        size = sum(v * v for v in q)
        point = [_number(draw) for _ in range(3)]
        # Y(|q|²·R·r) = |q|^2l·Y(R·r), the factor that the homogeneous D carries too.
        turned.append([int(size * sum(a * b for a, b in zip(row, point, strict=True))) for row in rotation_matrix(q)])
        points.append(point)
    values = interpret(harmonics_kernel, {"r": points + turned})["Y"]
    count = 0
    for before, after, blocks in zip(values, values[len(points) :], rotations.blocks, strict=False):
        for l, block in enumerate(blocks):
            start = l * l
            for i, row in enumerate(block):
                total = Surd()
                for d, y in zip(row, before[start : start + 2 * l + 1], strict=True):
                    total += d * y
                if total != Surd.lift(after[start + i]):
                    fail(name, f"Y({l},{i - l})(R r) - Σ D·Y(r) = {total - after[start + i]}", "0")
                count += 1
    return Proof(name, "Y(R r) = D(R)·Y(r) for the two kernels at random integer points", rotations.lmax, count)


def quaternion_product(p: Quaternion, q: Quaternion) -> Quaternion:
    """p·q: the rotation by q, then by p."""
    a, b, c, d = p
    w, x, y, z = q
    return (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )


def _quaternion(draw: Random) -> Quaternion:
    w, x, y, z = (_number(draw) for _ in range(4))
    return w, x, y, z


def _number(draw: Random) -> int:
    """One of 2^16 non-zero integers, so that no drawn quaternion or point is special."""
    return draw.randrange(1, 1 + (1 << 15)) * draw.choice((-1, 1))


def _blocks(row: Sequence[Surd | int], lmax: int) -> tuple[Block, ...]:
    out = []
    for l in range(lmax + 1):
        start, width = block_start(l), 2 * l + 1
        out.append(tuple(tuple(map(Surd.lift, row[start + i * width : start + (i + 1) * width])) for i in range(width)))
    return tuple(out)


def _integers(name: str, l: int, block: Block) -> tuple[list[list[int]], int]:
    """D in the basis P = Y/√q, where it is rational, as integers over one denominator."""
    roots = [Surd.root(harmonic(l, m).q) for m in range(-l, l + 1)]
    rows: list[list[Fraction]] = []
    for i, row in enumerate(block):
        rows.append([])
        for j, value in enumerate(row):
            ratio = value * roots[j] / roots[i]
            if not ratio.is_rational:
                fail(name, f"D of degree {l} at ({i - l},{j - l}) = {value}", "a rational multiple of √(q_m'/q_m)")
            rows[-1].append(ratio.parts[0][1] if ratio else Fraction(0))
    scale = lcm(*(v.denominator for row in rows for v in row))
    return [[int(v * scale) for v in row] for row in rows], scale
