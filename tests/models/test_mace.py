"""MACE: the checks of every model, its shapes, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.mace import MACE, MACEConfig, Readout
from irrepc.nn.neighbours import graph_of
from tests.model_checks import ModelChecks

SMALL = MACEConfig(
    species=(1, 6, 8),
    cutoff=3.0,
    layers=2,
    lmax=2,
    channels=3,
    degrees=(0, 1),
    correlation=3,
    bessels=4,
    radial_widths=(6,),
    readout_width=4,
    avg_num_neighbors=6.0,
    energies=(-1.5, 2.5, 0.5),
    scales=(0.8,),
    shifts=(0.1,),
)
DEEP = replace(SMALL, layers=3, lmax=1, channels=2, correlation=4, residual=False, radial_widths=(), scales=())
OPTIONS = replace(
    SMALL,
    lmax=1,
    correlation=2,
    density=True,
    transform="agnesi",
    repulsion=True,
    gate="tanh",
    heads=("low", "high"),
    energies=(-1.5, 2.5, 0.5, 0.0, 1.0, 2.0),
    scales=(0.8, 1.1),
    shifts=(),
)


class TestMACE(ModelChecks):
    compared = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return MACE(SMALL, backend, dtype=dtype, seed=3)


class TestMACEWithoutResidual(ModelChecks):
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return MACE(DEEP, backend, dtype=dtype, seed=4)


class TestMACEWithOptions(ModelChecks):
    traced = ("torch",)
    compared = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return MACE(OPTIONS, backend, dtype=dtype, seed=5)

    def gradients(self, model: Any) -> dict[str, torch.Tensor]:
        """Of both heads: either is silent while the other speaks."""
        found = []
        for model.head in (0, 1):
            found.append(super().gradients(model))
        model.head = 0
        return {name: gradient + found[1][name] for name, gradient in found[0].items()}


def test_layers_hold_the_irreps_of_the_paper() -> None:
    model = MACE(SMALL, "torch")
    assert [str(layer.irreps_out) for layer in model.layers] == ["3x0e+3x1o", "3x0e"]
    assert [str(layer.skip.irreps_in) for layer in model.layers] == ["3x0e", "3x0e+3x1o"]
    assert isinstance(model.readouts[1], Readout)
    deep = MACE(replace(DEEP, degrees=(0,)), "torch")
    assert str(deep.layers[0].skip.irreps_in) == "2x0e+2x1o"
    assert [layer.residual for layer in deep.layers] == [False, True, True]
    one = MACE(replace(SMALL, layers=1), "torch")
    assert str(one.layers[0].irreps_out) == "3x0e"


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = MACE(SMALL, "torch", seed=1)
    torch.manual_seed(1)
    b, c = MACE(SMALL, "torch", seed=1), MACE(SMALL, "torch", seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


def test_energies_of_isolated_atoms_stay_in_float64() -> None:
    model = MACE(replace(SMALL, energies=(-13.123456789, -1026.85391234567, 0.0), shifts=()), "torch")
    assert model.scale_shift.shifts.tolist() == [-13.123456789, -1026.85391234567, 0.0]
    graph = graph_of([0, 2], [[0.0, 0, 0], [1.0, 0, 0]], cutoff=3.0, dtype=torch.float32)
    assert model(graph).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": ()}, "species"),
        ({"cutoff": float("nan")}, "cutoff = nan"),
        ({"layers": 0}, "layers = 0"),
        ({"degrees": (1,)}, "rising degrees from 0 to lmax"),
        ({"degrees": (0, 3)}, "degrees"),
        ({"degrees": (0, 1, 1)}, "degrees"),
        ({"correlation": 5}, "correlation = 5"),
        ({"radial_widths": (8, 0)}, "radial_widths"),
        ({"cutoff_power": 1}, "cutoff_power"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors"),
        ({"energies": (1.0,)}, "energies"),
        ({"heads": ("a", "a")}, "heads"),
        ({"heads": ("a", "b")}, "energies"),
        ({"scales": (1.0, 2.0)}, "scales"),
        ({"shifts": (1.0, 2.0)}, "shifts"),
        ({"transform": "logarithm"}, "transform = 'logarithm'; expected none, agnesi or soft"),
        ({"gate": "relu"}, "gate = 'relu'"),
        ({"couplings": (1, 4)}, "couplings"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)
