"""Weights of the authors' NequIP give the authors' energies, forces and stress."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.interop.nequip import config_from, load_nequip, nequip_from, rows_by_path, to_nequip
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.nequip import NequIP
from irrepc.models.potential import energy_and_forces
from irrepc.nn.neighbours import graph_of, species_of

MODELS = (
    "nequip_A",
    "nequip_B",
)  # A: both parities, l 2, three layers; B: one parity, l 3, uneven widths, a deep readout


def references(shared: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "fixtures" / "nequip_small" / f"{name}_refs.json").read_text())[
        "refs"
    ]
    return found


def assert_reproduces(model: NequIP, expected: dict[str, Any]) -> None:
    """1e-12, relative: a wrong order of irreps shows at 1e-8 only."""
    periodic = any(expected["pbc"])
    graph = graph_of(
        species_of(expected["numbers"], model.species),
        expected["positions"],
        expected["cell"],
        expected["pbc"],
        cutoff=model.cutoff,
    )
    assert graph.num_edges == expected["n_edges"]
    found = energy_and_forces(model, graph, stress=periodic)
    np.testing.assert_allclose(float(found.energy), expected["energy"], rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.energies.numpy(), expected["per_atom_energy"], rtol=1e-12, atol=1e-12)
    forces = np.array(expected["forces"])
    np.testing.assert_allclose(found.forces.numpy(), forces, rtol=0, atol=1e-12 * np.abs(forces).max())
    if found.stress is not None:
        stress = np.array(expected["stress"])
        np.testing.assert_allclose(found.stress[0].numpy(), stress, rtol=0, atol=1e-12 * np.abs(stress).max())


NUMBERS = Path(__file__).parent / "numbers"


def assert_as_official(model: NequIP, structures: dict[str, Any]) -> None:
    for expected in structures.values():
        species, cell = species_of(expected["numbers"], model.species), expected["cell"]
        graph = graph_of(species, expected["positions"], cell, cell is not None, cutoff=model.cutoff)
        found = energy_and_forces(model, graph)
        margin = 1e-12 * float(expected["forces"].abs().max())
        torch.testing.assert_close(found.energies, expected["energies"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.forces, expected["forces"], rtol=0, atol=margin)


# options that the shared models do not have (numbers/make_nequip.py)
@pytest.mark.parametrize("name", ["repulsion", "by_type", "trainable"])
def test_options_and_back(name: str) -> None:
    content = torch.load(NUMBERS / f"nequip_{name}.pt", weights_only=True)
    config, state = content["config"], content["state_dict"]
    model = nequip_from(config, state, "torch")
    assert_as_official(model, content["structures"])
    arguments, written = to_nequip(model)
    lost = {key for key in state if not state[key].numel() or key.endswith("atomic_numbers")}
    scaling = {key for key in written if "scale_shift" in key}
    assert written.keys() - scaling == state.keys() - lost - scaling
    for key in written.keys() - scaling:
        assert written[key].shape == state[key].shape, key
        torch.testing.assert_close(written[key].double(), state[key].double(), rtol=1e-15, atol=0)
    again = nequip_from(arguments, written, "torch")
    assert_as_official(again, content["structures"])
    assert again.config.neighbors == model.config.neighbors
    assert again.config.cutoffs == model.config.cutoffs


def test_trainable_options_are_weights() -> None:
    content = torch.load(NUMBERS / "nequip_trainable.pt", weights_only=True)
    model = nequip_from(content["config"], content["state_dict"], "torch")
    names = {name for name, _ in model.named_parameters()}
    assert {"basis.roots", "scale_shift.scales", "scale_shift.shifts"} <= names
    assert {p.dtype for p in model.to(torch.float32).scale_shift.parameters()} == {torch.float64}


@pytest.mark.parametrize("name", MODELS)
def test_the_shared_models_come_back(shared: Path, name: str) -> None:
    model = load_nequip(shared / "fixtures" / "nequip_small" / f"{name}.pt", "torch")
    assert_reproduces(nequip_from(*to_nequip(model), "torch"), references(shared, name)[3])


@pytest.mark.parametrize("name", MODELS)
def test_all_reference_structures(shared: Path, name: str) -> None:
    model = load_nequip(shared / "fixtures" / "nequip_small" / f"{name}.pt", "torch")
    expected = references(shared, name)
    assert len(expected) == 6
    for structure in expected:
        assert_reproduces(model, structure)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numba", "llvm"])
@pytest.mark.parametrize("name", MODELS)
def test_all_reference_structures_with_compiled_kernels(shared: Path, name: str, backend: str) -> None:
    model = load_nequip(shared / "fixtures" / "nequip_small" / f"{name}.pt", backend)
    for structure in references(shared, name):
        assert_reproduces(model, structure)


def test_they_survive_our_own_file(shared: Path, tmp_path: Path) -> None:
    save_model(load_nequip(shared / "fixtures" / "nequip_small" / "nequip_B.pt", "torch"), tmp_path / "ours.pt")
    assert_reproduces(load_model(tmp_path / "ours.pt", "torch"), references(shared, "nequip_B")[2])


def test_float32_is_near(shared: Path) -> None:
    model = load_nequip(shared / "fixtures" / "nequip_small" / "nequip_A.pt", "torch", dtype=torch.float32)
    expected = references(shared, "nequip_A")[2]
    graph = graph_of(
        species_of(expected["numbers"], model.species), expected["positions"], cutoff=5.0, dtype=torch.float32
    )
    found = energy_and_forces(model, graph)
    assert abs(float(found.energy) - expected["energy"]) < 1e-5  # of -4173 eV: float32 alone would lose 2e-4
    np.testing.assert_allclose(found.forces.numpy(), expected["forces"], rtol=0, atol=1e-5)


def test_rows_go_to_their_paths() -> None:
    # sorted and joined: 0e holds paths 0 and 2, 1o holds path 1; two outputs each
    weight = torch.arange(10.0)
    paths, out = Irreps.of("2x0e+2x1o+1x0e"), Irreps.of("2x0e+2x1o")
    assert rows_by_path(weight, paths, out).tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 4, 5]


@pytest.fixture
def content(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(shared / "fixtures" / "nequip_small" / "nequip_B.pt", weights_only=True)
    return found


def without(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda config, state: state.pop(f"model.func.{name}")


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "a tensor missing": (without("layer1_convnet.conv.sc.weight"), "got nothing for layer1_convnet.conv.sc.weight"),
    "a tensor too many": (lambda c, s: s.update({"model.func.charge.weight": torch.ones(3)}), "charge.weight"),
    "a bias": (lambda c, s: s.update({"model.func.layer0_convnet.conv.linear_1.bias": torch.ones(3)}), "linear_1.bias"),
    "another size": (lambda c, s: c.update(radial_mlp_width=25), "edge_mlp.mlp.0.weight"),
    "another cutoff": (lambda c, s: c.update(r_max=4.6), "1 / r_max"),
    "another activation": (lambda c, s: c.update(readout_mlp_nonlinearity="tanh"), "without SiLU"),
    "no cutoff": (lambda c, s: c.pop("r_max"), "without r_max"),
    "no element": (lambda c, s: c.update(type_names=["H", "C", "Qq"]), r"\['Qq'\]"),
    "neighbours of some types": (lambda c, s: c.update(avg_num_neighbors={"H": 1.0}), r"without \['C', 'O'\]"),
    "another pair potential": (lambda c, s: c.update(pair_potential={"_target_": "LennardJones"}), "LennardJones"),
    "cutoffs by type": (lambda c, s: c.update(per_edge_type_cutoff={"H": 3.0}), "1 / r_max"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(content: dict[str, Any], case: str) -> None:
    change, says = BROKEN[case]
    config, state = dict(content["config"]), dict(content["state_dict"])
    change(config, state)
    with pytest.raises(InputError, match=says):
        nequip_from(config, state, "torch")


def test_defaults_are_nequips(content: dict[str, Any]) -> None:
    config = {
        k: content["config"][k] for k in ("type_names", "r_max", "num_layers", "l_max", "type_embed_num_features")
    }
    found = config_from({**config, "num_features": 16})
    assert found.features == (16, 16, 16, 16)
    assert found.parity
    assert found.scales == found.shifts == ()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"state_dict": {}}, tmp_path / "half.pt")
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_nequip(tmp_path / "text.pt")
    with pytest.raises(InputError, match="without 'config'"):
        load_nequip(tmp_path / "half.pt")
