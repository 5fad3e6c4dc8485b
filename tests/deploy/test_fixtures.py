"""Deployed networks with published weights and with those of small reference networks, on their own structures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irrepc.deploy.compile import compile_network
from irrepc.deploy.deployed import Deployed
from irrepc.interop.mace import load_mace
from irrepc.interop.nequip import load_nequip
from irrepc.interop.sevennet import sevennet_from
from irrepc.models import energy_and_forces
from irrepc.nn.neighbours import graph_of, species_of

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"{FIXTURES} is not there")
TOLERANCE = 1e-6  # of the tables; forces are then right to a few 1e-7 eV/Å


def check(model: Any, structures: list[dict[str, Any]]) -> None:
    deployed = Deployed(compile_network(model, tolerance=TOLERANCE))
    seen = 0
    for s in structures:
        if not set(s["numbers"]) <= set(model.species):
            continue
        given = (np.array(s["numbers"]), np.array(s["positions"]), s.get("cell"), s.get("pbc", False))
        found = deployed.evaluate(*given)
        graph = graph_of(species_of(given[0], model.species), *given[1:], cutoff=model.cutoff)
        exact = energy_and_forces(model, graph, stress=found.stress is not None)
        assert found.energy == pytest.approx(float(exact.energy), abs=1e-7 * len(given[0]))
        np.testing.assert_allclose(found.forces, exact.forces, atol=1e-6)
        if found.stress is not None:
            np.testing.assert_allclose(found.stress, exact.stress[0], atol=1e-7)
        seen += 1
    assert seen >= 5


@pytest.mark.parametrize("name", "AB")
def test_nequip(name: str) -> None:
    folder = FIXTURES / "nequip_small"
    model = load_nequip(folder / f"nequip_{name}.pt", dtype=torch.float64)
    check(model, json.loads((folder / f"nequip_{name}_refs.json").read_text())["refs"])


@pytest.mark.parametrize("name", "AB")
def test_mace(name: str) -> None:
    folder = FIXTURES / "mace_small"
    model = load_mace(folder / f"mace_{name}.npz", folder / f"mace_{name}_config.json", dtype=torch.float64)
    check(model, json.loads((folder / f"mace_{name}_refs.json").read_text())["refs"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["7net-0", "7net-l3i5"])
def test_sevennet(name: str) -> None:
    folder = FIXTURES / "sevennet"
    config = json.loads((folder / "export" / f"{name}.json").read_text())
    with np.load(folder / "export" / f"{name}.npz") as arrays:
        state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    model = sevennet_from(config.get("config", config), state, dtype=torch.float64)
    check(model, json.loads((folder / "structures.json").read_text()))
