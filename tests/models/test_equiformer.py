"""Equiformer: the checks of every model, the published sizes, dropouts, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_config import MD17_L2, MD17_L3, QM9_L2, QM9_L2_E3, EquiformerConfig
from irrepc.models.potential import energy_and_forces
from irrepc.nn.neighbours import graph_of_atoms
from tests.model_checks import ModelChecks, structures

SMALL = EquiformerConfig(
    species=(1, 6, 8),
    cutoff=3.45,  # no pair of the structures is within 0.05 Å of it: energies jump there
    layers=2,
    features="6x0e+3x1e+2x2e",
    harmonics="1x0e+1x1e+1x2e",
    head="3x0e+2x1e+1x2e",
    heads=2,
    hidden="5x0e+3x1e+2x2e",
    outputs="7x0e",
    basis="exp",
    basis_size=5,
    radial_widths=(6, 4),
    avg_num_neighbors=6.0,
    avg_num_atoms=9.0,
    scales=(0.7, 1.3, 1.1),
    shifts=(-1.5, 2.5, 0.5),
)
PARITY = replace(
    SMALL,
    features="4x0e+2x0o+2x1e+3x1o",
    harmonics="1x0e+1x1o",
    head="2x0e+1x0o+1x1e+2x1o",
    hidden="4x0e+2x0o+2x1e+2x1o",
    outputs="3x0e+2x1o",
    basis="gaussian",
    attention_head=True,
)
LINEAR = replace(
    PARITY,
    features="4x0e+2x1e",
    harmonics="1x0e+1x1e",
    head="2x0e+1x1e",
    hidden="4x0e+2x1e",
    outputs="3x0e",
    basis="bessel",
    attention_head=False,
    nonlinear_messages=False,
    rescale_degree=True,
)


class TestEquiformer(ModelChecks):
    inverts = False
    """All irreps are even: SE(3)."""
    vanishes_at_cutoff = False
    """The softmax counts a neighbour at the cutoff like any other, and the radial profile has an offset."""
    compared = ("llvm",)
    traced = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return Equiformer(SMALL, backend, dtype=dtype, seed=3)

    def test_reflections_are_no_symmetry(self, model: Any) -> None:
        atoms = structures()["ethanol"]
        before = self.predict(model, atoms).energy
        atoms = atoms.copy()
        atoms.positions *= -1
        assert abs(float(self.predict(model, atoms).energy - before)) > 1e-6

    def test_the_energy_jumps_at_the_cutoff(self, model: Any) -> None:
        atoms = structures()["ethanol"].copy()[:2]
        energies = []
        for distance in (model.cutoff - 1e-6, model.cutoff + 1e-6):
            atoms.positions[1] = atoms.positions[0] + [0, distance, 0]
            energies.append(float(self.predict(model, atoms).energy))
        assert abs(energies[0] - energies[1]) > 1e-3


class TestEquiformerWithBothParities(ModelChecks):
    vanishes_at_cutoff = False
    compared = ("llvm",)
    traced = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return Equiformer(PARITY, backend, dtype=dtype, seed=7)


class TestEquiformerWithLinearMessages(ModelChecks):
    inverts = False
    vanishes_at_cutoff = False
    compared = ("llvm",)
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return Equiformer(LINEAR, backend, dtype=dtype, seed=5)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (MD17_L2, 3_496_001),
        pytest.param(MD17_L3, 5_500_865, marks=pytest.mark.slow),
        (QM9_L2, 3_531_715),
        pytest.param(QM9_L2_E3, 3_282_211, marks=pytest.mark.slow),
    ],
    ids=["MD17 L2", "MD17 L3", "QM9 L2", "QM9 L2 E(3)"],
)
def test_published_networks_have_the_published_sizes(config: EquiformerConfig, count: int) -> None:
    """MD17: as counted on the authors' classes (3.50 and 5.50 million); QM9: pinned from our own."""
    assert sum(p.numel() for p in Equiformer(config, "llvm").parameters()) == count


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = Equiformer(SMALL, "torch", seed=1)
    following = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), following), "building a network must not draw from the caller's generator"
    b, c = Equiformer(SMALL, "torch", seed=1, dtype=torch.float64), Equiformer(SMALL, "torch", seed=2)
    assert all(torch.equal(p, q.float()) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embedding, c.embedding)


@pytest.mark.parametrize("rate", ["alpha_drop", "proj_drop", "out_drop", "path_drop"])
def test_dropouts_act_in_training_and_keep_the_symmetry(rate: str) -> None:
    atoms = structures()["ethanol"]
    model = Equiformer(replace(SMALL, **{rate: 0.4}), "torch", dtype=torch.float64, seed=3)
    plain = Equiformer(SMALL, "torch", dtype=torch.float64, seed=3)

    def predict(network: Equiformer, matrix: torch.Tensor) -> torch.Tensor:
        turned = atoms.copy()
        turned.positions = atoms.positions @ matrix.numpy().T
        torch.manual_seed(7)
        graph = graph_of_atoms(turned, cutoff=model.cutoff, species=model.species, dtype=torch.float64)
        return energy_and_forces(network, graph).forces

    one, turn = torch.eye(3, dtype=torch.float64), torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]).double()
    assert torch.equal(predict(model, one), predict(plain, one)), "a new network is in evaluation mode"
    model.train()
    dropped = predict(model, one)
    assert not torch.allclose(dropped, predict(plain, one))
    torch.testing.assert_close(predict(model, turn), dropped @ turn.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": ()}, "species"),
        ({"cutoff": float("inf")}, "cutoff = inf"),
        ({"layers": 0}, "layers = 0"),
        ({"features": "3x1e+6x0e"}, "sorted by degree"),
        ({"features": "4x0e+2x0e"}, "each once"),
        ({"head": "2x1e"}, "with 0e"),
        ({"outputs": "4x0e+2x1e"}, "scalars only"),
        ({"harmonics": "1x0e+1x2e"}, "one copy of each degree"),
        ({"harmonics": "2x0e"}, "one copy of each degree"),
        ({"heads": 0}, "heads = 0"),
        ({"basis": "fourier"}, "gaussian, exp, bessel"),
        ({"radial_widths": ()}, "radial_widths"),
        ({"avg_num_atoms": 0.0}, "avg_num_atoms"),
        ({"shifts": (1.0,)}, "shifts"),
        ({"path_drop": 1.0}, "rates from 0 to 1"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)
