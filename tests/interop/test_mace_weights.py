"""Weights of the authors' MACE give the authors' energies, forces and stress."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.interop.mace import columns_by_path, load_mace, mace_from
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.mace import MACE
from irrepc.models.potential import energy_and_forces
from irrepc.nn.contraction import coupling_matrix
from irrepc.nn.neighbours import graph_of, species_of

# A: ScaleShiftMACE, all layers residual, l 3, correlation 3; B: MACE, first layer without residual, l 2, three layers
MODELS = ("mace_A", "mace_B")
CONTRACTIONS = "products.0.symmetric_contractions.contractions"


def load(shared: Path, name: str, backend: str, dtype: torch.dtype = torch.float64) -> MACE:
    folder = shared / "fixtures" / "mace_small"
    return load_mace(folder / f"{name}.npz", folder / f"{name}_config.json", backend, dtype=dtype)


def references(shared: Path, name: str) -> list[dict[str, Any]]:
    text = (shared / "fixtures" / "mace_small" / f"{name}_refs.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)["refs"]
    return found


def assert_reproduces(model: MACE, expected: dict[str, Any]) -> None:
    """1e-12, relative."""
    periodic = any(expected["pbc"])
    species = species_of(expected["numbers"], model.species)
    graph = graph_of(species, expected["positions"], expected["cell"], expected["pbc"], cutoff=model.cutoff)
    assert graph.num_edges == expected["n_edges"]
    found = energy_and_forces(model, graph, stress=periodic)
    np.testing.assert_allclose(float(found.energy), expected["energy"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.energies.numpy(), expected["node_energy"], rtol=1e-12, atol=0)
    forces = np.array(expected["forces"])
    np.testing.assert_allclose(found.forces.numpy(), forces, rtol=0, atol=1e-12 * np.abs(forces).max())
    assert (found.stress is None) == (expected["stress"] is None)
    if found.stress is not None:
        stress = np.array(expected["stress"])
        np.testing.assert_allclose(found.stress[0].numpy(), stress, rtol=0, atol=1e-12 * np.abs(stress).max())


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize("name", MODELS)
def test_all_reference_structures(shared: Path, name: str, backend: str) -> None:
    model = load(shared, name, backend)
    expected = references(shared, name)
    assert len(expected) == 6
    for structure in expected:
        assert_reproduces(model, structure)


def test_they_survive_our_own_file(shared: Path, tmp_path: Path) -> None:
    save_model(load(shared, "mace_B", "torch"), tmp_path / "ours.pt")
    again = load_model(tmp_path / "ours.pt", "torch")
    assert isinstance(again, MACE)
    assert_reproduces(again, references(shared, "mace_B")[3])


def test_float32_is_near(shared: Path) -> None:
    model, expected = load(shared, "mace_B", "torch", torch.float32), references(shared, "mace_B")[2]
    species = species_of(expected["numbers"], model.species)
    found = energy_and_forces(model, graph_of(species, expected["positions"], cutoff=5.0, dtype=torch.float32))
    assert abs(float(found.energy) - expected["energy"]) < 1e-4  # of thousands of eV: E0 stays in float64
    np.testing.assert_allclose(found.forces.numpy(), expected["forces"], rtol=0, atol=1e-4)


def test_couplings_of_the_file_are_our_trees(shared: Path) -> None:
    """e3nn 0.4 made the file: its trees are ours but for the sign of those that end in its flipped couplings."""
    layer = load(shared, "mace_A", "torch").layers[0].contraction
    for degree, nu in layer.keys:
        found, expected = layer.coupling(degree, nu), coupling_matrix(3, degree, nu)
        flipped = [k for k in range(found.shape[1]) if (found[:, k] - expected[:, k]).abs().max() > 1e-14]
        assert flipped == ([21, 22] if (degree, nu) == (1, 3) else [])
        torch.testing.assert_close(found[:, flipped], -expected[:, flipped], rtol=0, atol=1e-14)


def test_columns_go_to_their_paths() -> None:
    paths = Irreps.of("2x1o+2x0e+1x1o+1x0e")
    assert columns_by_path(paths).tolist() == [3, 4, 0, 1, 5, 2]


def test_a_smaller_basis_gives_the_same_network(
    shared: Path, content: tuple[dict[str, Any], dict[str, Tensor]]
) -> None:
    """Of the four couplings to 1o two are independent once symmetric: a file may hold these and mixed weights."""
    config, state = content
    for product in (0, 1):
        name = f"products.{product}.symmetric_contractions.contractions.1"
        u = state[f"{name}.U_matrix_2"]
        matrix = ((u + u.transpose(1, 2)) / 2).flatten(0, 2)
        left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
        assert int((singular > 1e-10).sum()) == 2
        state[f"{name}.U_matrix_2"] = left[:, :2].reshape(3, 9, 9, 2)
        mixing = singular[:2, None] * right[:2]
        state[f"{name}.weights_max"] = torch.einsum("jk,skc->sjc", mixing, state[f"{name}.weights_max"])
    model = mace_from(config, state, "torch")
    assert model.config.couplings == (1, 3, 1, 2, 1, 4)
    assert_reproduces(model, references(shared, "mace_B")[2])


@pytest.fixture
def content(shared: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = shared / "fixtures" / "mace_small"
    with np.load(folder / "mace_B.npz") as arrays:
        state = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    return json.loads((folder / "mace_B_config.json").read_text()), state


def without(name: str) -> Callable[[dict[str, Any], dict[str, Tensor]], Any]:
    return lambda config, state: state.pop(name)


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "a tensor missing": (without("interactions.1.skip_tp.weight"), "got nothing for interactions.1.skip_tp.weight"),
    "a tensor too many": (lambda c, s: s.update({"pair_repulsion_fn.a_exp": torch.ones(1)}), "pair_repulsion_fn"),
    "a bias": (lambda c, s: s.update({"readouts.0.linear.bias": torch.ones(1)}), "readouts.0.linear.bias"),
    "another size": (lambda c, s: c.update(radial_MLP=[16, 17]), "conv_tp_weights.layer1"),
    "another cutoff": (lambda c, s: c.update(r_max=4.6), "r_max = 5.0"),
    "another block": (lambda c, s: c.update(interaction_cls_first="RealAgnosticDensityBlock"), "DensityBlock"),
    "no residual later": (lambda c, s: c.update(interaction_cls="RealAgnosticInteractionBlock"), "later layers"),
    "odd scalars": (lambda c, s: c.update(hidden_irreps="8x0e+8x1e"), "natural parity"),
    "a list of correlations": (lambda c, s: c.update(correlation=[2, 2, 3]), "one number for all layers"),
    "no U": (without(f"{CONTRACTIONS}.2.U_matrix_2"), "got no .*U_matrix_2"),
    "U of another size": (
        lambda c, s: s.update({f"{CONTRACTIONS}.0.U_matrix_1": torch.ones(4, 1)}),
        "U: got shape",
    ),
    "several heads": (
        lambda c, s: s.update({"atomic_energies_fn.atomic_energies": torch.ones(2, 3)}),
        "model of one head",
    ),
    "a repulsion": (lambda c, s: c.update(pair_repulsion=True), "pair_repulsion = True; expected False"),
    "another distance": (lambda c, s: c.update(distance_transform="Agnesi"), "distance_transform = 'Agnesi'"),
    "another basis": (lambda c, s: c.update(radial_type="gaussian"), "radial_type = 'gaussian'"),
    "another activation": (lambda c, s: c.update(gate="<function tanh>"), "expected silu"),
    "half a configuration": (lambda c, s: c.pop("max_ell"), "without max_ell"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(content: tuple[dict[str, Any], dict[str, Tensor]], case: str) -> None:
    config, state = content
    change, says = BROKEN[case]
    change(config, state)
    with pytest.raises(InputError, match=says):
        mace_from(config, state, "torch")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not a model")
    np.savez(tmp_path / "empty.npz")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read as plain arrays"):
        load_mace(tmp_path / "text.npz", tmp_path / "config.json")
    with pytest.raises(InputError, match="is no JSON"):
        load_mace(tmp_path / "empty.npz", tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="without MLP_irreps, avg_num_neighbors"):
        load_mace(tmp_path / "empty.npz", tmp_path / "config.json")
