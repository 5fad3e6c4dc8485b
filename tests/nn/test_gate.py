"""Gate against e3nn, its parities, and the activations it refuses."""

import pytest
import torch
from e3nn.math._normalize_activation import normalize2mom
from e3nn.nn import Gate as TheirGate

from irrepc.errors import InputError, IrrepsError
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn
from irrepc.nn.gate import ACTIVATIONS, Gate

CASES = [
    ("8x0e", ["silu"], "", [], ""),
    ("8x0e", ["silu"], "6x0e", ["silu"], "4x1o+2x2e"),
    ("8x0e+4x0o", ["silu", "tanh"], "3x0e+3x0e+2x0e", ["silu", "silu", "silu"], "3x1e+3x1o+2x2e"),
    ("5x0o", ["abs"], "7x0e", ["sigmoid"], "4x2o+3x1e"),
    ("16x0o", ["tanh"], "32x0o", ["tanh"], "16x1e+16x1o"),  # odd gates turn the parity
    ("2x0e", ["tanh"], "3x0o+4x0e", ["tanh", "silu"], "5x1o+2x2e"),  # a block cut where the gates change parity
    ("2x0e+3x0e", ["silu", "tanh"], "2x0e+1x0o", ["silu", "abs"], "3x1o"),
]


@pytest.mark.parametrize(("scalars", "on_scalars", "gates", "on_gates", "gated"), CASES)
def test_it_is_the_gate_of_e3nn(
    scalars: str, on_scalars: list[str], gates: str, on_gates: list[str], gated: str
) -> None:
    functions = {name: activation.function for name, activation in ACTIVATIONS.items()}
    theirs = TheirGate(
        scalars, [functions[n] for n in on_scalars], gates, [functions[n] for n in on_gates], gated
    ).double()
    ours = Gate(scalars, on_scalars, gates, on_gates, gated)
    assert str(ours.irreps_in) == str(theirs.irreps_in)
    assert str(ours.irreps_out.simplify()) == str(theirs.irreps_out.simplify())
    x = torch.randn(7, ours.irreps_in.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = from_e3nn(theirs(to_e3nn(x, ours.irreps_in)), ours.irreps_out)
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_are_e3nns_numbers_to_the_last_digit(name: str) -> None:
    assert normalize2mom(ACTIVATIONS[name].function).cst == ACTIVATIONS[name].gain


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parities_are_those_of_the_functions(name: str) -> None:
    x = torch.linspace(0.1, 3, 20, dtype=torch.float64)
    activation = ACTIVATIONS[name]
    even, odd = torch.allclose(activation(x), activation(-x)), torch.allclose(activation(x), -activation(-x))
    assert activation.parity == {(True, False): 1, (False, True): -1, (False, False): 0}[even, odd]


def test_gradients_of_two_orders() -> None:
    gate = Gate("2x0e+1x0o", ["silu", "tanh"], "3x0e", ["silu"], "1x1o+2x1e")
    x = torch.randn(2, gate.irreps_in.dim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, (x,))
    assert torch.autograd.gradgradcheck(gate, (x,))


def test_no_rows_other_strides_a_wrong_width_and_compiling() -> None:
    gate = Gate("2x0e", ["silu"], "3x0e", ["silu"], "3x1o")
    assert gate(torch.zeros(0, 14)).shape == (0, 11)
    x = torch.randn(14, 5).T
    torch.testing.assert_close(gate(x), gate(x.contiguous()))
    torch.testing.assert_close(torch.compile(gate, fullgraph=True, backend="aot_eager")(x), gate(x))
    with pytest.raises(InputError, match=r"expected \(rows, 14\) of 5x0e\+3x1o"):
        gate(torch.zeros(5, 10))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (("2x0e", ["silu"], "2x0e", ["silu"], "3x1o"), "got 2 gates"),
        (("2x0o", ["silu"], "", [], ""), "silu on odd scalars 2x0o; expected an odd function"),
        (("2x0e", ["silu"], "2x0o", ["sigmoid"], "2x1o"), "sigmoid on odd gates"),
        (("2x1o", ["tanh"], "", [], ""), "2x1o among the scalars; expected degree 0"),
        (("2x0e", ["relu6"], "", [], ""), "activation 'relu6'; expected one of abs, sigmoid, silu, tanh"),
        (("2x0e", [], "", [], ""), "got 0 activations"),
    ],
)
def test_impossible_gates_are_refused(case: tuple[str, list[str], str, list[str], str], says: str) -> None:
    with pytest.raises(IrrepsError, match=says):
        Gate(*case)
