"""prove: every proof of the frontend, run before anything is emitted."""

from __future__ import annotations

from collections.abc import Callable

from irrepc.algebra.irreps import check_degree
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.frontend.harmonics import harmonics, spherical_harmonics
from irrepc.frontend.proof import Proof
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
from irrepc.frontend.rotations import generators
from irrepc.frontend.wigner import wigner_d


def prove(lmax: int, seed: int = 0) -> tuple[Proof, ...]:
    """Prove harmonics, couplings and rotations up to lmax, and the two kernels that compute them.

    seed: of the random integer points and quaternions.  Raises ProofError naming the first false identity.
    """
    return tuple(run() for run in proofs(lmax, seed))


def proofs(lmax: int, seed: int = 0) -> tuple[Callable[[], Proof], ...]:
    """The proofs one by one, for callers that show progress."""
    check_degree(lmax)
    table = harmonics(lmax)
    kernel = spherical_harmonics(lmax)
    rotations = draw_rotations(wigner_d(lmax), lmax, seed)
    return (
        lambda: prove_harmonicity(table),
        lambda: prove_orthonormality(table),
        lambda: prove_generators(table, generators),
        lambda: prove_harmonic_signs(table),
        lambda: prove_harmonics_kernel(kernel, table, seed=seed),
        lambda: prove_invariance(w3j, lmax),
        lambda: prove_unit_norm(w3j, lmax),
        lambda: prove_permutations(w3j, lmax),
        lambda: prove_coupling_signs(w3j, lmax),
        lambda: prove_homomorphism(rotations),
        lambda: prove_orthogonality(rotations),
        lambda: prove_vector_block(rotations),
        lambda: prove_equivariance(rotations, kernel, seed + 1),
    )
