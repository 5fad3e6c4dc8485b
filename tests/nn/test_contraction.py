"""SymmetricContraction against MACE's dense einsum, and what it refuses."""

from itertools import product

import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError, IrrepsError
from irrepc.frontend.contraction import slots
from irrepc.nn.contraction import SymmetricContraction, collapsed, coupling_matrix, species_index

SPECIES = 3


def dense(lmax: int, degree: int, nu: int) -> Tensor:
    """A U that is no symmetric tensor: each monomial stands at one arbitrary order of its factors only."""
    n, matrix = (lmax + 1) ** 2, coupling_matrix(lmax, degree, nu)
    u = torch.zeros(2 * degree + 1, *(n,) * nu, matrix.shape[1], dtype=torch.float64)
    for row, slot in enumerate(slots(lmax, degree, nu)):
        u[(slot.component, *reversed(slot.monomial))] = matrix[row]
    return u


def reference(layer: SymmetricContraction, x: Tensor, species: Tensor) -> Tensor:
    """Σ_ν Σ_k W[z, k, C] U_ν A ⊗ ... ⊗ A, factor by factor, as MACE writes it; x (rows, ir_mul)."""
    a = x.view(x.shape[0], -1, layer.channels)
    out = {degree: torch.zeros(()).to(x) for degree in layer.degrees}
    for (degree, nu), weight in zip(layer.keys, layer.weights, strict=True):
        u = dense(layer.lmax, degree, nu)
        partial = torch.einsum("...k,bkc->bc...", u, weight[species])
        for _ in range(nu):
            partial = torch.einsum("bc...i,bic->bc...", partial, a)
        out[degree] = out[degree] + partial
    return torch.cat([part.mT.flatten(1) for part in out.values()], 1)


def layer_of(irreps_in: str, irreps_out: str, correlation: int, backend: str) -> SymmetricContraction:
    torch.manual_seed(0)
    return SymmetricContraction(irreps_in, irreps_out, SPECIES, correlation, backend=backend, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "correlation"),
    [("4x0e+4x1o+4x2e", "4x0e+4x1o", 3), ("2x0e+2x1o", "2x1o", 4), ("3x0e+3x1o+3x2e+3x3o", "3x0e+3x2e", 2)],
)
def test_it_is_the_dense_einsum(irreps_in: str, irreps_out: str, correlation: int, backend: str) -> None:
    layer = layer_of(irreps_in, irreps_out, correlation, backend)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, layer.irreps_in.dim, generator=generator, dtype=torch.float64).requires_grad_()
    species = torch.tensor([2, 0, 2, 2, 0, 0, 2])  # the second occurs nowhere
    found, expected = layer(x, species_index(species, SPECIES)), reference(layer, x, species)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    g = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    wanted = [x, *layer.weights]
    for a, b in zip(torch.autograd.grad(found, wanted, g), torch.autograd.grad(expected, wanted, g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_no_rows() -> None:
    layer = layer_of("2x0e+2x1o", "2x0e", 2, "llvm")
    x = torch.zeros(0, 8, dtype=torch.float64)
    assert layer(x, species_index(torch.zeros(0, dtype=torch.int64), SPECIES)).shape == (0, 2)


def test_collapsing_sums_over_permutations() -> None:
    for degree, nu in product((0, 1), (1, 2, 3)):
        u = dense(2, degree, nu)
        given = u[0] if degree == 0 else u
        assert torch.equal(collapsed(given, 2, degree), coupling_matrix(2, degree, nu))
        if nu > 1:
            symmetric = (u + u.transpose(1, nu)) / 2
            given = symmetric[0] if degree == 0 else symmetric
            torch.testing.assert_close(collapsed(given, 2, degree), coupling_matrix(2, degree, nu))


def test_a_false_u_is_refused() -> None:
    u = dense(1, 0, 2)[0]
    with pytest.raises(InputError, match="expected 9 for each factor"):
        collapsed(u, 2, 0)
    u[0, 1] = 1.0  # a scalar times a vector is no scalar
    with pytest.raises(InputError, match="that no equivariant polynomial of degree 0 has"):
        collapsed(u, 1, 0)


def test_couplings_of_another_number_wait_to_be_filled() -> None:
    layer = SymmetricContraction("2x0e+2x1o", "2x0e", SPECIES, 2, counts=(1, 1))
    assert [tuple(w.shape) for w in layer.weights] == [(3, 1, 2), (3, 1, 2)]
    assert layer.coupling(0, 1).any()
    assert not layer.coupling(0, 2).any()
    with pytest.raises(InputError, match="expected 2 numbers"):
        SymmetricContraction("2x0e+2x1o", "2x0e", SPECIES, 2, counts=(1,))


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out"),
    [("2x0e+3x1o", "2x0e"), ("2x0e+2x2e", "2x0e"), ("2x0e+2x1e", "2x0e"), ("2x0e+2x1o", "3x0e"), ("2x0e", "2x0e+2x0e")],
)
def test_irreps_that_do_not_fit_are_refused(irreps_in: str, irreps_out: str) -> None:
    with pytest.raises(IrrepsError, match="expected C x 0e"):
        SymmetricContraction(irreps_in, irreps_out, SPECIES, 2)


def test_rows_and_species_must_fit() -> None:
    layer = layer_of("2x0e+2x1o", "2x0e", 2, "torch")
    x = torch.zeros(2, 8, dtype=torch.float64)
    with pytest.raises(InputError, match="got an index of 3 rows and 3 species; expected 2 rows"):
        layer(x, species_index(torch.tensor([0, 0, 1]), SPECIES))
    with pytest.raises(InputError, match="got an index of 2 rows and 2 species"):
        layer(x, species_index(torch.tensor([0, 0]), 2))
    with pytest.raises(InputError, match="got shape"):
        layer(x[:, 1:], species_index(torch.tensor([0, 0]), SPECIES))
