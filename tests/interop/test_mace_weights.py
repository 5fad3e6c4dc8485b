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
from irrepc.interop.mace import columns_by_path, load_mace, mace_from, to_mace
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.mace import MACE
from irrepc.models.potential import energy_and_forces
from irrepc.nn.contraction import coupling_matrix
from irrepc.nn.graph import batch
from irrepc.nn.neighbours import graph_of, species_of

# A: ScaleShiftMACE, all layers residual, l 3, correlation 3; B: MACE, first layer without residual, l 2, three layers
MODELS = ("mace_A", "mace_B")
CONTRACTIONS = "products.0.symmetric_contractions.contractions"
NUMBERS = Path(__file__).parent / "numbers"
OPTIONS = ("density_agnesi_heads", "soft_tanh", "reduced_degrees", "four_factors", "one_layer")


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


U = f"{CONTRACTIONS}.2.U_matrix_2"
BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "a tensor missing": (without("interactions.1.skip_tp.weight"), "got nothing for interactions.1.skip_tp.weight"),
    "a tensor too many": (lambda c, s: s.update({"joint_embedding.weight": torch.ones(1)}), "joint_embedding"),
    "a bias": (lambda c, s: s.update({"readouts.0.linear.bias": torch.ones(1)}), "readouts.0.linear.bias"),
    "another size": (lambda c, s: c.update(radial_MLP=[16, 17]), r"radial_MLP = \[16, 17\] with tensors of \[16, 16\]"),
    "a torn tensor": (
        lambda c, s: s.update({"interactions.1.conv_tp_weights.layer1.weight": torch.ones(16, 17)}),
        r"got \(16, 17\) for interactions.1.conv_tp_weights.layer1",
    ),
    "another cutoff": (lambda c, s: c.update(r_max=4.6), "r_max = 4.6 with tensors of 5.0"),
    "another block": (lambda c, s: c.update(interaction_cls_first="RealAgnosticAttBlock"), "AttBlock"),
    "a density": (
        lambda c, s: c.update(interaction_cls="RealAgnosticDensityResidualInteractionBlock"),
        "interaction_cls = .*Density",
    ),
    "no residual later": (lambda c, s: c.update(interaction_cls="RealAgnosticInteractionBlock"), "interaction_cls ="),
    "odd scalars": (lambda c, s: c.update(hidden_irreps="8x0e+8x1e"), "hidden_irreps = '8x0e.8x1e' with tensors of"),
    "a list of correlations": (lambda c, s: c.update(correlation=[2, 2, 3]), "correlation = "),
    "no U": (without(U), "got U matrices of shapes"),
    "U of another size": (lambda c, s: s.update({U: torch.ones(5, 9, 4, 4)}), "U: got shape"),
    "no E0": (without("atomic_energies_fn.atomic_energies"), "got no atomic_energies_fn"),
    "a repulsion": (lambda c, s: c.update(pair_repulsion=True), "pair_repulsion = True with tensors of False"),
    "another distance": (lambda c, s: c.update(distance_transform="Agnesi"), "distance_transform = 'Agnesi'"),
    "another basis": (lambda c, s: c.update(radial_type="gaussian"), "radial_type = 'gaussian'"),
    "another readout": (lambda c, s: c.update(MLP_irreps="17x0e"), "MLP_irreps = '17x0e'"),
    "another activation": (lambda c, s: c.update(gate="<function relu>"), "got gate"),
    "half a configuration": (lambda c, s: c.pop("avg_num_neighbors"), "without avg_num_neighbors"),
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
    with pytest.raises(InputError, match="got no atomic_numbers"):
        load_mace(tmp_path / "empty.npz", tmp_path / "config.json")


def test_the_tensors_say_nearly_everything(shared: Path, content: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    config, state = content
    least = {"avg_num_neighbors": config["avg_num_neighbors"]}
    assert mace_from(least, state, "torch").config == mace_from(config, state, "torch").config


# ── numbers/: options that the shared models do not have, each with both structures and every head ──


def option(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, np.ndarray]]:
    """Arguments, state_dict, and the rest of a file of numbers/make_mace.py."""
    with np.load(NUMBERS / f"mace_{name}.npz") as arrays:
        found = {key: np.array(arrays[key]) for key in arrays.files}
    state = {k.removeprefix("state/"): torch.from_numpy(v) for k, v in found.items() if k.startswith("state/")}
    return json.loads(str(found["config"])), state, found


def assert_as_official(model: MACE, found: dict[str, np.ndarray]) -> None:
    """1e-12 of the largest, for each structure and head."""
    for structure in ("molecule", "solid"):
        species = species_of(found[f"{structure}/numbers"], model.species)
        cell = found[f"{structure}/cell"]
        graph = graph_of(species, found[f"{structure}/positions"], cell, bool(cell.any()), cutoff=model.cutoff)
        for head in range(len(model.config.heads)):
            model.head = head
            mine = energy_and_forces(model, graph)
            energies, forces = found[f"{structure}/energies/{head}"], found[f"{structure}/forces/{head}"]
            np.testing.assert_allclose(mine.energies.numpy(), energies, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(mine.forces.numpy(), forces, rtol=0, atol=1e-12 * np.abs(forces).max())


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    config, state, found = option(name)
    assert_as_official(mace_from(config, state, "torch"), found)


@pytest.mark.parametrize("name", OPTIONS)
def test_written_back(name: str) -> None:
    config, state, found = option(name)
    model = mace_from(config, state, "torch")
    arguments, written = to_mace(model)
    constant = {name for name in state if "bias" in name or "covalent_radii" in name or not state[name].numel()}
    assert written.keys() == state.keys() - constant
    for key, tensor in written.items():
        assert tensor.shape == state[key].shape, key
        if "U_matrix" not in key:
            torch.testing.assert_close(tensor.double(), state[key].double(), rtol=1e-15, atol=1e-15)
    idle = {"hidden_irreps", "MLP_irreps"} if name == "one_layer" else set()  # one layer is scalars, read linearly
    assert all(arguments[key] == value for key, value in config.items() if key not in idle)
    again = mace_from(arguments, written, "torch")
    assert again.config == model.config
    assert_as_official(again, found)


def test_the_heads_of_a_batch_may_differ() -> None:
    config, state, found = option("density_agnesi_heads")
    model = mace_from(config, state, "torch")
    species = species_of(found["molecule/numbers"], model.species)
    graph = graph_of(species, found["molecule/positions"], cutoff=model.cutoff)
    energies = model(batch([graph, graph]), torch.tensor([1, 0]))
    expected = [*found["molecule/energies/1"], *found["molecule/energies/0"]]
    np.testing.assert_allclose(energies.detach().numpy(), expected, rtol=1e-12)
