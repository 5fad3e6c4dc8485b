"""Published weights of SevenNet give the published numbers, whichever way the checkpoint is found."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from irrepc.errors import InputError
from irrepc.interop.ase_calculator import IrrepcCalculator
from irrepc.interop.sevennet import checkpoint_bytes, load_sevennet, read_checkpoint, sevennet_from
from irrepc.models.potential import predict
from irrepc.models.sevennet import SevenNet
from irrepc.nn.neighbours import graph_of, species_of

NAMES = {"sevennet-0": "7net-0", "sevennet-l3i5": "7net-l3i5"}
PLACES = {
    "sevennet-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
}
NUMBERS = Path(__file__).parent / "numbers"
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def exported(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and tensors of a checkpoint, kept without pickle beside the references."""
    folder = shared / "fixtures" / "sevennet" / "export"
    config = json.loads((folder / f"{NAMES[name]}.json").read_text())
    with np.load(folder / f"{NAMES[name]}.npz") as arrays:
        return config, {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def model(shared: Path, name: str) -> SevenNet:
    return sevennet_from(*exported(shared, name)).requires_grad_(False)


def cases(shared: Path, name: str, dtype: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Structures, and what the authors' package says of them."""
    folder, found = shared / "fixtures" / "sevennet", []
    for kind in ("", "edge_"):
        references = json.loads((folder / f"{kind}reference.json").read_text())
        for structure in json.loads((folder / f"{kind}structures.json").read_text()):
            found.append((structure, references[structure["name"]][f"{NAMES[name]}/{dtype}"]))
    return found


def evaluated(model: SevenNet, structure: dict[str, Any]) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces, stress (Voigt; empty without a cell), of positions in float64."""
    species, solid = species_of(structure["numbers"], model.species), any(structure["pbc"])
    graph = graph_of(species, structure["positions"], structure["cell"], structure["pbc"], cutoff=model.cutoff)
    found = predict(model, graph, stress=solid)
    stress = [float(found.stress[0, i, j]) for i, j in VOIGT] if found.stress is not None else []
    return float(found.energy), found.forces.numpy(), np.array(stress)


def test_all_structures_in_float64(shared: Path, name: str, model: SevenNet) -> None:
    for structure, expected in cases(shared, name, "float64"):
        energy, forces, stress = evaluated(model, structure)
        np.testing.assert_allclose(energy, expected["energy"], rtol=1e-13, err_msg=structure["name"])
        scale = max(np.abs(expected["forces"]).max(), 0.1)  # smaller ones are differences of larger numbers
        np.testing.assert_allclose(forces, expected["forces"], rtol=0, atol=1e-12 * scale, err_msg=structure["name"])
        if expected["stress"] is not None and len(stress):
            scale = np.abs(expected["stress"]).max()
            np.testing.assert_allclose(stress, expected["stress"], rtol=0, atol=1e-12 * scale)


def test_all_structures_in_float32(shared: Path, name: str, model: SevenNet) -> None:
    """Within twice of what the authors' package loses itself in float32, at most."""
    single = sevennet_from(*exported(shared, name), dtype=torch.float32).requires_grad_(False)
    exact, rounded = cases(shared, name, "float64"), cases(shared, name, "float32")
    pairs = [(a["forces"], b["forces"]) for (_, a), (_, b) in zip(exact, rounded, strict=True)]
    worst = max(np.abs(np.subtract(a, b)).max() for a, b in pairs)
    for structure, expected in exact:
        energy, forces, _ = evaluated(single, structure)
        np.testing.assert_allclose(energy, expected["energy"], rtol=2e-6, err_msg=structure["name"])
        np.testing.assert_allclose(forces, expected["forces"], rtol=0, atol=2 * worst, err_msg=structure["name"])


def test_checkpoints_of_the_newer_package_have_sorted_columns() -> None:
    expected = json.loads((NUMBERS / "sevennet_sorted.json").read_text())
    model = load_sevennet(NUMBERS / "sevennet_sorted.pth", backend="torch")
    energy, forces, stress = evaluated(model, {**expected, "pbc": [True] * 3})
    np.testing.assert_allclose(energy, expected["energy"], rtol=3e-7)
    np.testing.assert_allclose(forces, expected["forces"], atol=5e-7)  # of 0.1; a wrong order shows at 1e-3
    np.testing.assert_allclose(stress, expected["stress"], atol=3e-8)
    config, state = read_checkpoint((NUMBERS / "sevennet_sorted.pth").read_bytes(), "")
    unsorted = sevennet_from({**config, "version": "0.10.0"}, state, "torch")
    assert np.abs(evaluated(unsorted, {**expected, "pbc": [True] * 3})[1] - expected["forces"]).max() > 1e-3


def test_published_dynamics_keep_their_energy_to_the_order_of_the_integrator(shared: Path, model: SevenNet) -> None:
    """Half the step leaves a quarter of the error of velocity Verlet, where forces are gradients."""

    def wobble(step: float) -> float:
        atoms = molecule("H2O")
        atoms.set_cell([4.0, 4.2, 4.4])
        atoms.pbc = True
        atoms.calc = IrrepcCalculator(model, skin=0.3)
        momenta = np.random.default_rng(0).normal(size=(3, 3)) * np.sqrt(units.kB * 300 * atoms.get_masses())[:, None]
        atoms.set_momenta(momenta - momenta.mean(0))
        energies = [atoms.get_total_energy()]
        verlet = VelocityVerlet(atoms, step * units.fs)
        verlet.attach(lambda: energies.append(atoms.get_total_energy()), interval=round(1 / step))
        verlet.run(round(8 / step))
        return float(np.ptp(energies))

    coarse, fine = wobble(0.5), wobble(0.25)
    assert coarse < 0.01
    assert 3.5 < coarse / fine < 4.5


def checkpoint(shared: Path, name: str, file: Path) -> Path:
    """As the authors' package writes it: numpy arrays in the configuration, and more than the weights."""
    config, state = exported(shared, name)
    given = {**config, "shift": np.zeros(3), "scale": np.ones(3, np.float32), "device": torch.device("cpu")}
    given["_type_map"] = {int(z): k for z, k in config["_type_map"].items()}
    torch.save({"config": given, "model_state_dict": state, "optimizer_state_dict": {}, "epoch": 600}, file)
    return file


def test_a_checkpoint_a_folder_and_a_wheel_are_the_same(
    shared: Path, model: SevenNet, name: str, tmp_path: Path
) -> None:
    file = checkpoint(shared, name, tmp_path / "checkpoint.pth")
    inside = tmp_path / "site" / "sevenn" / "pretrained_potentials" / PLACES[name]
    inside.parent.mkdir(parents=True)
    shutil.copy(file, inside)
    with zipfile.ZipFile(tmp_path / "sevenn-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(inside, inside.relative_to(tmp_path / "site").as_posix())
    sources = [(file, "")]
    sources += [(p, name) for p in (tmp_path / "site", tmp_path / "site" / "sevenn", inside.parents[1])]
    sources += [(tmp_path / "sevenn-1.0-py3-none-any.whl", NAMES[name])]
    for source, wanted in sources:
        found = load_sevennet(source, wanted, "torch").state_dict()
        assert all(torch.equal(tensor, found[key]) for key, tensor in model.state_dict().items())


def test_names_and_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got the name 'sevennet-9'; expected one of sevennet-0, sevennet-l3i5"):
        checkpoint_bytes(tmp_path, "sevennet-9")
    with pytest.raises(InputError, match="expected the name of one that is there: none is"):
        checkpoint_bytes(tmp_path, "sevennet-0")
    (tmp_path / "broken.whl").write_bytes(b"PK")
    with pytest.raises(InputError, match="a damaged wheel"):
        checkpoint_bytes(tmp_path / "broken.whl", "sevennet-0")
    with pytest.raises(FileNotFoundError):
        load_sevennet(tmp_path / "absent.pth")


class Trap:
    """Unpickling it would make a file."""

    def __reduce__(self) -> Any:
        return (open, ("trapped", "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"config": Trap(), "model_state_dict": {}}, "trap.pth")
    with pytest.raises(InputError, match="cannot read as tensors and plain data"):
        load_sevennet("trap.pth")
    assert not Path("trapped").exists()
    torch.save({"weights": torch.zeros(2)}, "other.pth")
    with pytest.raises(InputError, match="without 'config' and 'model_state_dict'"):
        read_checkpoint(Path("other.pth").read_bytes(), "other.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"is_parity": True}, "is_parity = True"),
        ({"self_connection_type": "nequip"}, "self_connection_type = 'nequip'"),
        ({"_normalize_sph": False}, "_normalize_sph = False"),
        ({"_number_of_modalities": 2}, "_number_of_modalities = 2"),
        ({"readout_as_fcn": True}, "readout_as_fcn = True"),
        ({"act_gate": {"e": "relu"}}, "act_gate"),
        ({"radial_basis": {"radial_basis_name": "gaussian"}}, "radial basis"),
        ({"cutoff_function": {"cutoff_function_name": "cosine"}}, "envelope"),
        ({"irreps_manual": ["128x0e"] * 6}, "expected scalars, 4 times"),
        ({"weight_nn_hidden_neurons": [64, 32]}, "layer1.weight; expected 2048 numbers"),
    ],
)
def test_options_that_are_not_ours_are_refused(shared: Path, change: dict[str, Any], says: str) -> None:
    config, state = exported(shared, "sevennet-0")
    with pytest.raises(InputError, match=says):
        sevennet_from({**config, **change}, state, "torch")


def test_couplings_say_the_signs(shared: Path) -> None:
    config, state = exported(shared, "sevennet-0")
    couplings = [key for key in state if key.endswith("1_convolution.convolution._compiled_main_left_right._w3j_1_2_2")]
    assert couplings
    flipped = {**state, couplings[0]: -state[couplings[0]]}
    a, b = (sevennet_from(config, s, "torch").layers[1].radial.weights[-1] for s in (state, flipped))
    width = 64
    changed = (a + b == 0).all(0) & ~(a == b).all(0)
    assert int(changed.sum()) == width
    with pytest.raises(InputError, match="no coupling 1_2_2"):
        sevennet_from(config, {k: v for k, v in state.items() if k != couplings[0]}, "torch")
    with pytest.raises(InputError, match="not ± ours"):
        sevennet_from(config, {**state, couplings[0]: 0.5 * state[couplings[0]]}, "torch")


def test_tensors_left_over_are_named(shared: Path) -> None:
    config, state = exported(shared, "sevennet-0")
    with pytest.raises(InputError, match=r"\['bias'\]"):
        sevennet_from(config, {**state, "bias": torch.zeros(3)}, "torch")
