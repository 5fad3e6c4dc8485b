"""SymmetricContraction: all equivariant polynomials of a node's features up to a correlation, weighted by its species.

Batatia et al., MACE, NeurIPS 2022, eq. 10 and 11.  Weights and couplings are those of the authors' package; the
couplings are kept collapsed to monomials, in which form a kernel evaluates them.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ContractionRecipe
from irrepc.errors import InputError, IrrepsError
from irrepc.frontend.contraction import Slot, slots, trees
from irrepc.nn.graph import Index
from irrepc.nn.kept import Kept
from irrepc.nn.linear import check_width
from irrepc.runtime.load import check_choice, load


class SymmetricContraction(nn.Module):
    """B[L, m] = Σ_ν Σ_k W[z, k] Σ_α U_ν[m, α, k] A^α for each channel, A^α the monomials of ν components of A.

    irreps_in    C x 0e+1o+...+lmax, natural parity, the same number of channels C in each block
    irreps_out   natural-parity irreps of C channels, rising, without repetition
    species      how many
    counts       the number of couplings k of each output and each ν = 1 ... correlation, flat; by default all coupling
                 trees; any other number leaves the couplings to be filled in

    weights      one parameter for each output and each ν, (species, k, C), ν rising
    couplings    one buffer for each output and each ν, (coefficients, k): U summed over the permutations of its factors

    Raises IrrepsError for other irreps.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_out: Irreps | str,
        species: int,
        correlation: int,
        *,
        counts: tuple[int, ...] = (),
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps.of(irreps_in), Irreps.of(irreps_out)
        self.species, self.correlation, self.backend = species, correlation, backend
        self.lmax, self.channels = _natural(self.irreps_in, self.irreps_out)
        self.degrees = tuple(b.irrep.l for b in self.irreps_out)
        self.recipe = ContractionRecipe(self.lmax, self.degrees, correlation)
        self.weights = nn.ParameterList()
        self.keys = tuple((degree, nu) for degree in self.degrees for nu in range(1, correlation + 1))
        if counts and len(counts) != len(self.keys):
            raise InputError(f"SymmetricContraction: got counts {counts}; expected {len(self.keys)} numbers, or none")
        for n, (degree, nu) in enumerate(self.keys):
            matrix = coupling_matrix(self.lmax, degree, nu, dtype)
            if counts and counts[n] != matrix.shape[1]:
                matrix = matrix.new_zeros(matrix.shape[0], counts[n])
            self.register_buffer(_coupling(degree, nu), matrix)
            k = matrix.shape[1]
            self.weights.append(nn.Parameter(torch.randn(species, k, self.channels, dtype=dtype) / max(k, 1)))
        self._kernel = load(self.recipe, check_choice(backend))
        self._coefficients: Kept[Tensor] = Kept()

    def forward(self, x: Tensor, species: Index) -> Tensor:
        """x (rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul; species: Index of the rows."""
        check_width("SymmetricContraction", x, self.irreps_in)
        if species.values.shape[0] != x.shape[0] or species.start.shape[0] != self.species + 1:
            raise InputError(
                f"SymmetricContraction: got an index of {species.values.shape[0]} rows and "
                f"{species.start.shape[0] - 1} species; expected {x.shape[0]} rows and {self.species} species"
            )
        coefficients = self._coefficients((*self.weights, *self.buffers(recurse=False)), self.coefficients)
        out: Tensor = self._kernel(x.contiguous(), coefficients, species, self.channels)
        return out

    def coefficients(self) -> Tensor:
        """What multiplies each monomial, (species, coefficients · C): weights and couplings folded."""
        pieces = [self.coupling(*key) @ weight for key, weight in zip(self.keys, self.weights, strict=True)]
        return torch.cat(pieces, 1).flatten(1)

    def coupling(self, degree: int, nu: int) -> Tensor:
        """U of the output of that degree and ν factors, (coefficients, k)."""
        return self.get_buffer(_coupling(degree, nu))

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps_in} -> {self.irreps_out}, correlation={self.correlation}, backend={self.backend}"


def species_index(species: Tensor, count: int) -> Index:
    """Index of the rows' species (rows,) int64, each in 0 ... count - 1, which is not checked: it can be compiled."""
    order = torch.argsort(species, stable=True)
    start = torch.searchsorted(species.index_select(0, order), torch.arange(count + 1, device=species.device))
    return Index(species, order, start)


def coupling_matrix(lmax: int, degree: int, nu: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """All coupling trees of ν factors: (coefficients, trees), rounded once from exact numbers."""
    rows = slots(lmax, degree, nu)
    places = {(slot.component, slot.monomial): row for row, slot in enumerate(rows)}
    found = trees(lmax, degree, nu)
    matrix = torch.zeros(len(rows), len(found), dtype=torch.float64)
    for k, forms in enumerate(found):
        for component, form in enumerate(forms):
            for monomial, value in form.items():
                matrix[places[component, monomial], k] = float(value)
    return matrix.to(dtype)


def collapsed(u: Tensor, lmax: int, degree: int) -> Tensor:
    """A dense U of MACE, ([2L+1,] n, ..., n, k) with n = (lmax+1)², summed over permutations: (coefficients, k).

    The 2L+1 components are left out for L = 0. Raises InputError for another shape, or where U holds more than
    equivariant polynomials of natural parity.
    """
    n, components = (lmax + 1) ** 2, 2 * degree + 1
    dense = u.unsqueeze(0) if degree == 0 else u
    nu = dense.dim() - 2
    if nu < 1 or dense.shape[:-1] != (components, *(n,) * nu):
        raise InputError(f"U: got shape {tuple(u.shape)} for degree {degree}; expected {n} for each factor, then k")
    rows = slots(lmax, degree, nu)
    order = torch.cartesian_prod(*[torch.arange(n)] * nu).view(-1, nu).sort(1).values
    place = n ** torch.arange(nu - 1, -1, -1)
    sums = dense.new_zeros(components, n**nu, dense.shape[-1])
    sums = sums.index_add(1, (order * place).sum(1), dense.reshape(components, n**nu, -1))
    wanted = torch.tensor([_number(slot, n, nu) for slot in rows])
    flat = sums.flatten(0, 1)
    kept = flat.index_select(0, wanted)
    rest = flat.index_fill(0, wanted, 0.0)
    if bool((rest.abs() > 1e-6 * dense.abs().max()).any()):
        raise InputError(f"U: got monomials that no equivariant polynomial of degree {degree} has; expected none")
    return kept


def spread(coupling: Tensor, lmax: int, degree: int, nu: int) -> Tensor:
    """The dense U, symmetric in its factors, whose `collapsed` is `coupling` (coefficients, k)."""
    n, components = (lmax + 1) ** 2, 2 * degree + 1
    dense = coupling.new_zeros((components, *(n,) * nu, coupling.shape[1]))
    for slot, row in zip(slots(lmax, degree, nu), coupling, strict=True):
        places = sorted(set(permutations(slot.monomial)))
        for place in places:
            dense[(slot.component, *place)] = row / len(places)
    return dense[0] if degree == 0 else dense


def _number(slot: Slot, n: int, nu: int) -> int:
    """Where (component, monomial) stands in the dense array."""
    number = slot.component
    for i in slot.monomial:
        number = number * n + i
    return number


def _coupling(degree: int, nu: int) -> str:
    return f"coupling_{degree}_{nu}"


def _natural(irreps_in: Irreps, irreps_out: Irreps) -> tuple[int, int]:
    """lmax and the number of channels."""
    muls = {b.mul for b in (*irreps_in, *irreps_out)}
    natural = all(b.irrep.p == (-1) ** b.irrep.l for b in (*irreps_in, *irreps_out))
    degrees = [b.irrep.l for b in irreps_in]
    rising = [b.irrep.l for b in irreps_out]
    if len(muls) != 1 or not natural or degrees != list(range(len(degrees))) or rising != sorted(set(rising)):
        raise IrrepsError(
            f"SymmetricContraction: got {irreps_in} -> {irreps_out}; expected C x 0e + C x 1o + ... without gaps in, "
            "rising irreps of natural parity out, and C channels everywhere"
        )
    return len(degrees) - 1, muls.pop()
