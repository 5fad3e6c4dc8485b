"""Tensor field networks: the checks of every model, features of every degree under rotations, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.tfn import TFN, TFNConfig, complete_graph
from irrepc.models.tfn_tasks import TFNClassifier, TFNEnergy
from irrepc.nn.graph import batch
from irrepc.nn.harmonics import WignerD
from irrepc.nn.rotations import quaternion_to_matrix, random_quaternions
from tests.model_checks import ModelChecks

SMALL = TFNConfig(
    species=(1, 6, 8),
    features=("4x0e+3x1e+2x2e", "5x0e"),
    embedding=4,
    lmax=2,
    reach=3.0,
    cutoff=3.0,
    basis=5,
    hidden=6,
    avg_num_neighbors=6.0,
    readout=5,
    scales=(0.7, 1.3, 1.1),
    shifts=(-1.5, 2.5, 0.5),
)
# 1e counts by way of 2e: no filter is 1e
PARITY = replace(
    SMALL, parity=True, features=("3x0e+2x1o+2x2e", "2x0e+2x1o+2x1e", "2x0e+2x1o+2x2e", "4x0e"), activation="elu"
)
DEEP = replace(
    SMALL, features=("2x0e+2x1e+2x2e+2x3e", "3x0e+1x1e+2x2e+1x3e"), lmax=3, cutoff=float("inf"), avg_num_neighbors=1.0
)


class TestTFN(ModelChecks):
    inverts = False  # features of rotations alone: pseudo-scalars are scalars

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return TFNEnergy(SMALL, backend, dtype=dtype, seed=3)


class TestTFNWithParity(ModelChecks):
    compared = ("llvm",)
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return TFNEnergy(PARITY, backend, dtype=dtype, seed=4)


def cloud(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor]:
    """Positions (count, 3) Å and species."""
    generator = torch.Generator().manual_seed(seed)
    positions = 1.5 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return positions, torch.randint(3, (count,), generator=generator)


def turned(x: Tensor, irreps: Irreps, quaternion: Tensor) -> Tensor:
    """Features (N, irreps.dim) after a rotation."""
    matrices = WignerD(irreps.lmax, "torch").blocks(quaternion)
    parts = zip(irreps, x.split([b.dim for b in irreps], 1), strict=True)
    return torch.cat([(matrices[b.irrep.l][0] @ p.unflatten(1, (b.irrep.dim, b.mul))).flatten(1) for b, p in parts], 1)


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_features_of_every_degree_turn_along(backend: str) -> None:
    model = TFN(DEEP, backend, dtype=torch.float64, seed=1)
    positions, species = cloud()
    quaternion = random_quaternions(1, torch.Generator().manual_seed(5))
    before = complete_graph(positions, species)
    after = complete_graph(positions @ quaternion_to_matrix(quaternion)[0].T + 7.0, species)
    first = model.embedding(species)
    layers = zip(model.layerwise(after, first), model.layerwise(before, first), DEEP.features, strict=True)
    for found, expected, features in layers:
        irreps = Irreps.of(features)
        assert all(bool(part.abs().max() > 1e-2) for part in expected.split([b.dim for b in irreps], 1))
        expected = turned(expected, irreps, quaternion)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max()))


def test_with_parity_features_keep_reflections_and_without_they_do_not() -> None:
    positions, species = cloud()
    graph, mirrored = complete_graph(positions, species), complete_graph(-positions, species)
    odd = ("2x0e+2x1o", "2x0e+2x1o+2x1e", "2x0e+2x0o+2x1e+2x2o")
    for config, kept in ((replace(PARITY, features=odd), True), (replace(SMALL, features=("4x0e+4x1e",) * 3), False)):
        model = TFN(config, "torch", dtype=torch.float64, seed=1)
        signs = torch.cat([torch.full((b.dim,), float(b.irrep.p)) for b in Irreps.of(config.features[-1])])
        found, expected = model(mirrored).detach(), signs * model(graph).detach()
        if not kept:
            found, expected = found[:, :4], expected[:, :4]  # their scalars are both kinds
        error = float((found - expected).abs().max() / expected.abs().max())
        assert error < 1e-13 if kept else error > 1e-3


def test_a_batch_is_classified_as_its_structures() -> None:
    model = TFNClassifier(replace(DEEP, lmax=1, features=("4x0e+4x1e", "4x0e")), 3, "torch", dtype=torch.float64)
    graphs = [complete_graph(*cloud(seed, count)) for seed, count in ((0, 4), (1, 1), (2, 6))]
    expected = torch.cat([model(graph) for graph in graphs])
    assert expected.shape == (3, 3)
    torch.testing.assert_close(model(batch(graphs)), expected, rtol=1e-12, atol=1e-12)


def test_a_field_that_does_not_fade_is_saved_and_loaded(tmp_path: Path) -> None:
    model, graph = TFN(DEEP, "torch", seed=2, dtype=torch.float64), complete_graph(*cloud())
    save_model(model, tmp_path / "field.pt")
    again = load_model(tmp_path / "field.pt", "torch")
    assert again.config == DEEP
    assert torch.equal(again(graph), model(graph))


def test_a_point_is_a_neighbour_of_itself_for_scalar_filters_alone() -> None:
    model = TFN(replace(DEEP, lmax=1, features=("2x0e+2x1e",)), "torch", dtype=torch.float64)
    positions, species = cloud(count=1)
    graph = complete_graph(positions.requires_grad_(), species)
    assert graph.num_edges == 1
    x = model(graph)
    assert bool(x[:, :2].detach().abs().min() > 0)
    assert not x[:, 2:].any()
    assert not torch.autograd.grad(x.sum(), positions)[0].any()


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = TFNEnergy(SMALL, "torch", seed=1)
    torch.manual_seed(1)
    b, c = TFNEnergy(SMALL, "torch", seed=1), TFNEnergy(SMALL, "torch", seed=2, dtype=torch.float64)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.field.layers[0].radial.first, c.field.layers[0].radial.first.float())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": (1, 1)}, "distinct"),
        ({"features": ()}, "features"),
        ({"features": ("4x0e+4x1o",)}, "there is no parity; write 1e, or set parity=True"),
        ({"embedding": 0}, "embedding = 0"),
        ({"lmax": -1}, "lmax = -1"),
        ({"reach": float("inf")}, "reach = inf"),
        ({"cutoff": 0.0}, "cutoff = 0.0"),
        ({"cutoff": float("nan")}, "cutoff = nan"),
        ({"basis": 1}, "basis = 1"),
        ({"activation": "tanh"}, "activation = 'tanh'; expected one of ssp, elu, relu"),
        ({"radial_activation": ""}, "radial_activation"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors"),
        ({"scales": (1.0,)}, "scales"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"got features \['2x3e'\], which 4x0e ⊗ .* does not reach; drop them"):
        TFN(replace(SMALL, features=("4x0e+2x3e",)), "torch")
    with pytest.raises(InputError, match="cutoff = inf; expected a finite number"):
        TFNEnergy(replace(SMALL, cutoff=float("inf")), "torch")
    with pytest.raises(InputError, match="got last features 4x1e; expected some 0e"):
        TFNClassifier(replace(SMALL, features=("4x1e",)), 2, "torch")
    field = TFN(SMALL, "torch", dtype=torch.float64)
    with pytest.raises(InputError, match=r"TFN: got shape \(6, 1\); expected \(rows, 4\)"):
        field.layerwise(complete_graph(*cloud()), torch.ones(6, 1, dtype=torch.float64))
    with pytest.raises(InputError, match=r"expected torch.float32"):
        TFN(SMALL, "torch")(complete_graph(*cloud()))
