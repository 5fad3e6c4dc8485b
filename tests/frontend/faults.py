"""Ways for harmonics, couplings, rotations and their kernels to be wrong, for the tests of the proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from irrepc.algebra.surd import Surd
from irrepc.errors import ProofError
from irrepc.frontend.clebsch_gordan import Coupling, w3j
from irrepc.frontend.harmonics import Harmonic, harmonics, spherical_harmonics
from irrepc.frontend.polynomial import Polynomial
from irrepc.frontend.prove_couplings import (
    prove_coupling_signs,
    prove_invariance,
    prove_permutations,
    prove_unit_norm,
)
from irrepc.frontend.prove_harmonics import (
    prove_generators,
    prove_harmonic_signs,
    prove_harmonicity,
    prove_harmonics_kernel,
    prove_orthonormality,
)
from irrepc.frontend.prove_rotations import (
    draw_rotations,
    prove_equivariance,
    prove_homomorphism,
    prove_orthogonality,
    prove_vector_block,
)
from irrepc.frontend.rotations import Sparse, generators
from irrepc.frontend.wigner import block_start, wigner_d
from irrepc.ir.kernel import Equation, Kernel, Ref, Term

LMAX = 4
NAMES = (
    "harmonicity",
    "orthonormality",
    "generators",
    "harmonic signs",
    "harmonics kernel",
    "coupling invariance",
    "coupling norm",
    "coupling permutations",
    "coupling signs",
    "D homomorphism",
    "D orthogonality",
    "D of vectors",
    "equivariance",
)


@dataclass(frozen=True)
class Subject:
    """Everything that is proved, each part replaceable by a false one."""

    table: dict[tuple[int, int], Harmonic]
    generators: Callable[[int], tuple[Sparse, Sparse, Sparse]]
    couplings: Callable[[int, int, int], Coupling]
    harmonics_kernel: Kernel
    wigner_kernel: Kernel

    def refuted(self) -> set[str]:
        """The names of the proofs that fail."""
        rotations = draw_rotations(self.wigner_kernel, LMAX)
        runs = (
            lambda: prove_harmonicity(self.table),
            lambda: prove_orthonormality(self.table),
            lambda: prove_generators(self.table, self.generators),
            lambda: prove_harmonic_signs(self.table),
            lambda: prove_harmonics_kernel(self.harmonics_kernel, self.table),
            lambda: prove_invariance(self.couplings, LMAX),
            lambda: prove_unit_norm(self.couplings, LMAX),
            lambda: prove_permutations(self.couplings, LMAX),
            lambda: prove_coupling_signs(self.couplings, LMAX),
            lambda: prove_homomorphism(rotations),
            lambda: prove_orthogonality(rotations),
            lambda: prove_vector_block(rotations),
            lambda: prove_equivariance(rotations, self.harmonics_kernel),
        )
        failed = set()
        for name, run in zip(NAMES, runs, strict=True):
            try:
                assert run().name == name
            except ProofError as error:
                assert str(error).startswith(f"proof {name}: got ")
                assert "; expected " in str(error)
                failed.add(name)
        return failed


TRUTH = Subject(dict(harmonics(LMAX)), generators, w3j, spherical_harmonics(LMAX), wigner_d(LMAX))
Fault = Callable[[], Subject]


# ── ways to be wrong ─────────────────────────────────────────────────────────────────────────────


def table(change: Callable[[int, int, Harmonic], Harmonic]) -> Fault:
    """Harmonics changed one by one."""
    return lambda: replace(TRUTH, table={(l, m): change(l, m, h) for (l, m), h in TRUTH.table.items()})


def scaled(h: Harmonic, q: Fraction | int = 1, sign: int = 1) -> Harmonic:
    return Harmonic(h.q * q, Polynomial.combine([(sign, h.P)]))


def first_coefficient(h: Harmonic) -> Harmonic:
    (exponents, c), *rest = h.P.terms
    return Harmonic(h.q, Polynomial(((exponents, c + 1), *rest)))


def first_exponent(h: Harmonic) -> Harmonic:
    """One monomial of degree l + 1; still harmonic when x is not in it."""
    return Harmonic(h.q, Polynomial.combine([(1, h.P), (1, Polynomial.of({(1, 1, 1): 1}))]))


def turned_axes(h: Harmonic) -> Harmonic:
    return Harmonic(h.q, Polynomial.of({(k, i, j): c for (i, j, k), c in h.P.terms}))


def swapped(l: int) -> Callable[[int, int, Harmonic], Harmonic]:
    return lambda k, m, h: TRUTH.table[k, -m] if k == l else h


def only(l: int, m: int | None, change: Callable[[Harmonic], Harmonic]) -> Callable[[int, int, Harmonic], Harmonic]:
    return lambda k, n, h: change(h) if k == l and m in (None, n) else h


def generator(l: int, axis: int, change: Callable[[Sparse], dict[tuple[int, int], Surd]]) -> Fault:
    def false(k: int) -> tuple[Sparse, Sparse, Sparse]:
        x, y, z = (change(g) if (k, i) == (l, axis) else g for i, g in enumerate(generators(k)))
        return x, y, z

    return lambda: replace(TRUTH, generators=false)


Entries = dict[tuple[int, int, int], Surd]


def coupling(change: Callable[[Entries], Entries], *degrees: tuple[int, int, int]) -> Fault:
    """The couplings of these degrees, in this order of legs, changed."""

    def false(l1: int, l2: int, l3: int) -> Coupling:
        value = w3j(l1, l2, l3)
        return change(dict(value)) if (l1, l2, l3) in degrees else value

    return lambda: replace(TRUTH, couplings=false)


def entry(change: Callable[[Surd], Surd], number: int = 3) -> Callable[[Entries], Entries]:
    def changed(entries: Entries) -> Entries:
        key = list(entries)[number]
        return {**entries, key: change(entries[key])}

    return changed


def every(change: Callable[[Surd], Surd]) -> Callable[[Entries], Entries]:
    return lambda entries: {key: change(value) for key, value in entries.items()}


def without(entries: Entries) -> Entries:
    return dict(list(entries.items())[1:])


def with_one_more(entries: Entries) -> Entries:
    return {**entries, (0, 0, 0): Surd.of(Fraction(1, 7))}


def unsigned(l1: int, l2: int, l3: int) -> Coupling:
    """The classical mistake: permuted legs without (-1)^(l1+l2+l3)."""
    degrees = (l1, l2, l3)
    order = sorted(range(3), key=lambda leg: degrees[leg])
    inverse = [order.index(leg) for leg in range(3)]
    source = w3j(*(degrees[leg] for leg in order))
    return {(key[inverse[0]], key[inverse[1]], key[inverse[2]]): value for key, value in source.items()}


def terms(kernel: Kernel, target: Ref, change: Callable[[tuple[Term, ...]], tuple[Term, ...]]) -> Kernel:
    """One equation changed."""
    assert any(e.target == target for e in kernel.equations)
    changed = (Equation(e.target, change(e.terms)) if e.target == target else e for e in kernel.equations)
    return replace(kernel, equations=tuple(changed))


def outputs(kernel: Kernel, change: Callable[[int], tuple[int, int]]) -> Kernel:
    """Outputs moved to other components and multiplied by a sign."""
    name = kernel.outputs[0].name
    done = []
    for e in kernel.equations:
        if e.target.operand == name:
            component, sign = change(e.target.component)
            e = Equation(Ref(name, component), tuple(Term(t.coeff * sign, t.factors) for t in e.terms))
        done.append(e)
    return replace(kernel, equations=tuple(done))


def first_term(change: Callable[[Surd], Surd]) -> Callable[[tuple[Term, ...]], tuple[Term, ...]]:
    return lambda ts: (Term(change(ts[0].coeff), ts[0].factors), *ts[1:])


def block(l: int, change: Callable[[int, int], tuple[int, int, int]]) -> Callable[[int], tuple[int, int]]:
    """A change (i, j) -> (row, column, sign) of the entries of D^l."""

    def moved(component: int) -> tuple[int, int]:
        start, width = block_start(l), 2 * l + 1
        if not start <= component < block_start(l + 1):
            return component, 1
        row, column, sign = change(*divmod(component - start, width))
        return start + row * width + column, sign

    return moved


def false_harmonics(change: Callable[[Kernel], Kernel]) -> Fault:
    return lambda: replace(TRUTH, harmonics_kernel=change(TRUTH.harmonics_kernel))


def false_d(change: Callable[[Kernel], Kernel]) -> Fault:
    return lambda: replace(TRUTH, wigner_kernel=change(TRUTH.wigner_kernel))


def trivial_block(kernel: Kernel) -> Kernel:
    """D^2 replaced by |q|^4 times the identity: a homomorphism, orthogonal, and no rotation of harmonics."""
    start = block_start(2)
    size = tuple(
        Term(Surd.of(1 if i == j else 2), (Ref("q", i), Ref("q", i), Ref("q", j), Ref("q", j)))
        for i in range(4)
        for j in range(i, 4)
    )
    done = []
    for e in kernel.equations:
        if e.target.operand == "D" and start <= e.target.component < block_start(3):
            row, column = divmod(e.target.component - start, 5)
            e = Equation(e.target, size if row == column else ())
        done.append(e)
    return replace(kernel, equations=tuple(done))


def inverse(kernel: Kernel) -> Kernel:
    """D of the conjugate quaternion: every block transposed."""
    for l in range(LMAX + 1):
        kernel = outputs(kernel, block(l, lambda i, j: (j, i, 1)))
    return kernel


def flip(value: Surd) -> Surd:
    return -value


def grown(value: Surd) -> Surd:
    return value * Fraction(8, 7)


def rerooted(value: Surd) -> Surd:
    return value * Surd.root(2)
