"""Weights of the authors' UMA give the authors' numbers: features, energies, forces and stresses of a batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.interop.uma import config_from, load_uma, official_name, uma_from
from irrepc.models.potential import energy_and_forces
from irrepc.models.uma import UMA, Systems
from irrepc.nn.graph import Graph, batch, graph_from_edges

NUMBERS = Path(__file__).parent / "numbers"
CASES = ("waves", "table", "affine")


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Arguments, weights, inputs and outputs of a reference."""
    with np.load(NUMBERS / f"uma_{name}.npz") as found:
        parts: dict[str, dict[str, Tensor]] = {"w": {}, "in": {}, "out": {}}
        for key in found.files:
            if key != "config":
                kind, _, field = key.partition("/")
                parts[kind][field] = torch.from_numpy(found[key])
        return json.loads(str(found["config"])), parts["w"], parts["in"], parts["out"]


def graph_of(given: dict[str, Tensor]) -> Graph:
    senders, receivers = given["edge_index"]
    graphs = []
    for number, cell in enumerate(given["cell"]):
        atoms = given["batch"] == number
        first = int(torch.nonzero(atoms)[0])
        edges = atoms[receivers]
        graphs.append(
            graph_from_edges(
                given["pos"][atoms],
                given["atomic_numbers"][atoms],
                senders[edges] - first,
                receivers[edges] - first,
                shifts=given["cell_offsets"][edges].double(),
                cell=cell,
            )
        )
    return batch(graphs)


def systems_of(model: UMA, given: dict[str, Tensor]) -> Systems:
    names = model.config.datasets
    rows = [names.index(n) for n in ("omol", "oc")] if names else [0, 0]
    return Systems(given["charge"].double(), given["spin"].double(), torch.tensor(rows))


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize("name", CASES)
def test_energy_forces_and_stress(name: str, backend: str) -> None:
    config, weights, given, expected = read(name)
    model = uma_from(config, weights, backend)
    systems = systems_of(model, given)
    found = energy_and_forces(lambda graph: model(graph, systems), graph_of(given), stress=True)
    assert found.stress is not None
    for field, value in (("energy", found.energy), ("forces", found.forces), ("stress", found.stress)):
        reference = expected[field].reshape(value.shape)
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-12 * float(reference.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_charge_and_spin_matter(name: str) -> None:
    config, weights, given, _ = read(name)
    model, graph = uma_from(config, weights, "torch"), graph_of(given)
    systems = systems_of(model, given)
    plain = model(graph, systems)
    for changed in (systems._replace(charge=systems.charge + 1), systems._replace(spin=systems.spin + 2)):
        assert float((model(graph, changed) - plain).abs().max().detach()) > 1e-4


def test_features_of_every_degree() -> None:
    config, weights, given, expected = read("waves")
    model, kept = uma_from(config, weights, "torch"), []
    model.backbone.norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    model(graph_of(given), systems_of(model, given))
    reference = expected["node_embedding"].flatten(1)
    torch.testing.assert_close(kept[0].detach(), reference, rtol=0, atol=1e-12 * float(reference.abs().max()))


def test_a_file_without_pickled_classes(tmp_path: Path) -> None:
    config, weights, given, expected = read("waves")
    torch.save({"config": config, "state_dict": weights}, tmp_path / "uma.pt")
    model = load_uma(tmp_path / "uma.pt", "torch")
    energies = model(graph_of(given), systems_of(model, given)).detach()
    energy = torch.zeros(2, dtype=torch.float64).index_add(0, given["batch"], energies)
    torch.testing.assert_close(energy, expected["energy"].reshape(2), rtol=1e-12, atol=0)


def test_names_of_weights_are_all_different() -> None:
    config, weights, _, _ = read("waves")
    names = [official_name(name) for name, _ in uma_from(config, weights, "torch").named_parameters()]
    assert len(set(names)) == len(names)


def test_a_mixture_of_experts_is_refused_with_the_remedy() -> None:
    config, weights, _, _ = read("waves")
    with pytest.raises(InputError, match="merge the experts"):
        uma_from(config, weights | {"backbone.routing_mlp.0.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="merge_mole"):
        config_from(config | {"num_experts": 32})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chg_spin_emb_type": "none"}, "expected one of pos_emb, lin_emb, rand_emb"),
        ({"dataset_mapping": None}, "use_dataset_embedding: False"),
        ({"charge_balanced_channels": [0, 2]}, "neighbouring"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"distance_function": "bessel"}, "expected gaussian"),
    ],
)
def test_arguments_we_do_not_have(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        config_from(read("waves")[0] | change)


def test_missing_tensors_are_named() -> None:
    config, weights, _, _ = read("waves")
    with pytest.raises(InputError, match="mix_csd"):
        uma_from(config, {name: t for name, t in weights.items() if "mix_csd" not in name})
