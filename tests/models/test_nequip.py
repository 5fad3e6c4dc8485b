"""NequIP: the checks of every model, its shapes, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.nn.neighbours import graph_of
from tests.model_checks import ModelChecks, structures

SMALL = NequIPConfig(
    species=(1, 6, 8),
    cutoff=3.0,
    layers=2,
    lmax=2,
    parity=False,
    features=(4, 3, 2),
    embedding=4,
    bessels=4,
    radial_depth=1,
    radial_width=6,
    avg_num_neighbors=6.0,
    scales=(0.7, 1.3, 1.1),
    shifts=(-1.5, 2.5, 0.5),
)
PARITY = replace(
    SMALL, lmax=1, parity=True, features=(3, 3), layers=3, readout_depth=1, readout_width=5, radial_depth=0
)


OPTIONS = replace(
    SMALL,
    lmax=1,
    features=(3, 2),
    layers=2,
    cutoffs=tuple(SMALL.cutoff * share for share in (1.0, 0.9, 0.8, 0.9, 1.0, 0.95, 0.8, 0.95, 0.9)),
    neighbors=(2.0, 4.0, 3.0),
    repulsion=True,
    trainable_bessels=True,
    trainable_scales=True,
    trainable_shifts=True,
)


class TestNequIP(ModelChecks):
    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return NequIP(SMALL, backend, dtype=dtype, seed=3)


class TestNequIPWithOptions(ModelChecks):
    traced = ("torch",)
    compared = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return NequIP(OPTIONS, backend, dtype=dtype, seed=5)


class TestNequIPWithBothParities(ModelChecks):
    compared = ("llvm",)
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return NequIP(PARITY, backend, dtype=dtype, seed=4)


def test_layers_hold_the_irreps_that_can_be_reached() -> None:
    without = NequIP(SMALL, "torch")
    assert [str(layer.irreps_out) for layer in without.layers] == ["4x0e+3x1o+2x2e", "4x0e"]
    both = NequIP(PARITY, "torch")
    assert [str(layer.irreps_out) for layer in both.layers] == ["3x0e+3x1o", "3x0e+3x1e+3x1o", "3x0e"]
    deep = NequIP(replace(PARITY, layers=4), "torch")
    assert str(deep.layers[2].irreps_out) == "3x0e+3x0o+3x1e+3x1o"  # 0o comes last: 1e ⊗ 1o


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = NequIP(SMALL, "torch", seed=1)
    torch.manual_seed(1)
    b, c = NequIP(SMALL, "torch", seed=1), NequIP(SMALL, "torch", seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


def test_scale_and_shift_stay_in_float64() -> None:
    model = NequIP(replace(SMALL, shifts=(-13.123456789, -1026.85391234567, 0.0)), "torch", dtype=torch.float64)
    model = model.to(torch.float32).to(torch.float64).to(torch.float32)
    assert model.scale_shift.shifts.tolist() == [-13.123456789, -1026.85391234567, 0.0]
    assert model.scale_shift.shifts.dtype == torch.float64
    assert model.readout.weights[0].dtype == torch.float32
    atoms = structures()["ethanol"]
    graph = graph_of([0] * len(atoms), atoms.positions, cutoff=3.0, dtype=torch.float32)
    assert model(graph).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cutoffs": (1.0,)}, "cutoffs"),
        ({"cutoffs": (9.0,) * 9}, "cutoffs"),
        ({"neighbors": (1.0, 0.0, 1.0)}, "neighbors"),
        ({"repulsion_power": 1}, "repulsion_power = 1"),
        ({"species": ()}, "species"),
        ({"species": (1, 1)}, "distinct"),
        ({"cutoff": 0.0}, "cutoff = 0.0"),
        ({"cutoff": float("nan")}, "cutoff = nan"),
        ({"lmax": -1, "features": ()}, "lmax = -1"),
        ({"layers": 0}, "layers = 0"),
        ({"features": (4, 4)}, r"features = \(4, 4\); expected lmax \+ 1"),
        ({"features": (4, 0, 4)}, "features"),
        ({"cutoff_power": 1}, "cutoff_power"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors"),
        ({"shifts": (1.0,)}, "shifts"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)


def test_graphs_that_do_not_fit_the_weights_are_refused() -> None:
    model = NequIP(SMALL, "torch")
    single = graph_of([0, 1], [[0.0, 0, 0], [1.0, 0, 0]], cutoff=3.0, dtype=torch.float32)
    with pytest.raises(InputError, match=r"got a graph of torch.float32 on cpu; expected torch.float64"):
        NequIP(SMALL, "torch", dtype=torch.float64)(single)
    graph = graph_of([1, 8], [[0.0, 0, 0], [1.0, 0, 0]], cutoff=3.0, dtype=torch.float32)
    with pytest.raises(InputError, match=r"species up to 8; expected 0 ... 2; .* species_of"):
        model(graph)


def test_cutoffs_that_depend_on_the_direction_are_no_pairs() -> None:
    cutoffs = [SMALL.cutoff] * 9
    cutoffs[1] *= 0.7  # of species 0 at the centre, of species 1 there: not the other way round
    config = replace(SMALL, cutoffs=tuple(cutoffs))
    model = NequIP(config, "torch", dtype=torch.float64)
    assert model.directed
    assert not NequIP(SMALL, "torch").directed
    assert not NequIP(OPTIONS, "torch").directed
    graph = graph_of([0, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.72 * SMALL.cutoff]], cutoff=SMALL.cutoff)
    apart = graph_of([0, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 50.0]], cutoff=SMALL.cutoff)
    plain = NequIP(SMALL, "torch", dtype=torch.float64)
    energies, full, alone = model(graph).detach(), plain(graph).detach(), plain(apart).detach()
    torch.testing.assert_close(energies[0], alone[0])  # it sees nobody
    assert abs(float(energies[1] - alone[1])) > 1e-9  # it sees the other
    assert abs(float(full[0] - alone[0])) > 1e-9
