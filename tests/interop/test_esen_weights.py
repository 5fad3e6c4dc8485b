"""Weights of the authors' eSEN give the authors' numbers: every intermediate, energy, forces, stress."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.interop.esen import config_from, esen_from, esen_state, load_esen, official_name
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.esen import ESEN, PUBLISHED, DirectESEN
from irrepc.models.potential import energy_and_forces
from irrepc.nn.graph import Graph, graph_from_edges
from irrepc.nn.rotations import matrix_to_quaternion
from irrepc.nn.so2 import degree_order

CASES = ("A_conservative_gate_spectral", "B_direct_s2_grid", "C_conservative_gate_gridmlp")
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Case:
    """One reference: arguments, tensors, and the graph; `order` takes its edges to ours."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]
    graph: Graph
    order: Tensor

    @property
    def frames(self) -> Tensor:
        """The authors' frames, whose roll about the edge was drawn at random, for our edges."""
        return matrix_to_quaternion(self.outputs["edge_rot_mat"].mT)[self.order]


def read(shared: Path, name: str) -> Case:
    folder = shared / "fixtures" / "architectures" / "esen" / name

    def tensors(file: str) -> dict[str, Tensor]:
        with np.load(folder / f"{file}.npz") as found:
            return {key: torch.from_numpy(found[key]) for key in found.files}

    given = tensors("inputs")
    senders, receivers = given["edge_index"]
    graph = graph_from_edges(
        given["pos"], given["numbers"], senders, receivers, shifts=given["shifts"], cell=given["cell"][0]
    )
    order = torch.argsort(receivers, stable=True)
    config = json.loads((folder / "config.json").read_text())
    return Case(config, tensors("weights"), tensors("outputs"), graph, order)


@pytest.fixture(params=CASES)
def case(shared: Path, request: pytest.FixtureRequest) -> Case:
    return read(shared, request.param)


def build(case: Case, backend: str = "torch") -> ESEN | DirectESEN:
    return esen_from(case.config["model_kwargs"], case.weights, backend)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    margin = tolerance * float(expected.abs().max())
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=margin)


def potential(model: ESEN | DirectESEN) -> ESEN:
    return model if isinstance(model, ESEN) else model.potential


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_energy_forces_and_stress(case: Case, backend: str) -> None:
    model, expected = build(case, backend), case.outputs
    assert sum(p.numel() for p in model.parameters()) == case.config["num_params"]
    if isinstance(model, DirectESEN):
        energies, forces = model.energies_and_forces(case.graph, case.frames)
        assert_close(energies.sum(0, keepdim=True), expected["energy"])
        assert_close(forces, expected["forces"])
        return
    found = energy_and_forces(model, case.graph, stress=True)  # our frames: the roll must not matter
    assert_close(found.energy, expected["energy"])
    assert_close(found.forces, expected["forces"])
    if "stress" in expected:
        assert found.stress is not None
        assert_close(found.stress.flatten(1), expected["stress"])


def test_every_intermediate(case: Case) -> None:
    """Edges in our order, components on the edge by order m, in the authors' frames."""
    model = build(case)
    backbone = potential(model).backbone
    seen: dict[str, Any] = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, inputs, output: seen.update({f"{name} in": inputs, name: output}))

    block: Any = backbone.blocks[0]
    for name, module in (
        ("matrices", backbone.matrices), ("block0", block), ("block1", backbone.blocks[1]), ("norm", backbone.norm),
        ("norm_1", block.norm_1), ("conv_1", block.edge_wise.conv_1), ("conv_2", block.edge_wise.conv_2),
        ("edge_wise", block.edge_wise), ("atom_wise", block.atom_wise),
    ):  # fmt: skip
        watch(name, module)
    model(case.graph, case.frames)
    expected, edges = case.outputs, case.order
    channels, hidden = model.config.channels, model.config.hidden
    places = degree_order(model.config.lmax, model.config.mmax)

    def by_order(arrays: tuple[Tensor, ...], width: int) -> Tensor:
        """As the authors keep them: (E, components by degree, channels)."""
        whole = torch.cat([a.unflatten(1, (-1, width)) for a in arrays], 1)
        return whole[:, torch.argsort(torch.tensor(places))]

    def nodes(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, channels))

    assert_close(seen["block0 in"][1], expected["x_edge"][edges])
    assert_close(nodes(seen["block0 in"][0]), expected["x_after_embedding"])
    assert_close(nodes(seen["norm_1"]), expected["block0_norm1"])
    extra, y = seen["conv_1"]
    assert_close(extra, expected["block0_so2conv1_extra"][edges])
    assert_close(by_order(y, hidden), expected["block0_so2conv1_out"][edges])
    assert_close(by_order(seen["conv_2"][1], channels), expected["block0_so2conv2_out"][edges])
    assert_close(nodes(seen["edge_wise"]), expected["block0_edgewise_out"])
    assert_close(nodes(seen["atom_wise"]), expected["block0_atomwise_out"])
    assert_close(nodes(seen["block0"]), expected["x_after_block0"])
    assert_close(nodes(seen["block1"]), expected["x_after_block1"])
    assert_close(nodes(seen["norm"]), expected["final_norm"])
    # D is kept without its zeros: the rows |m'| <= mmax of each block of the authors' dense matrices, first edges
    dense, lmax, mmax = expected["wigner_first8"], model.config.lmax, model.config.mmax
    kept = [
        dense[:, l * l + l - min(l, mmax) : l * l + l + min(l, mmax) + 1, l * l : (l + 1) ** 2].flatten(1)
        for l in range(lmax + 1)
    ]
    ours = torch.empty_like(seen["matrices"])
    ours[edges] = seen["matrices"]
    assert_close(ours[: dense.shape[0]], torch.cat(kept, 1))


@pytest.mark.parametrize("name", [CASES[0], CASES[2]])
def test_any_roll_gives_the_same_result_with_gates(shared: Path, name: str) -> None:
    case = read(shared, name)
    model = build(case, "llvm")
    for frames in (None, case.frames):
        found = energy_and_forces(partial(model, frames=frames), case.graph)
        assert_close(found.energy, case.outputs["energy"])


def test_a_grid_makes_the_result_depend_on_the_roll(shared: Path) -> None:
    # 5e-3 between the authors' own rolls: the edge's grid of 8 x 5 points cannot hold SiLU of degree 3
    case = read(shared, CASES[1])
    model = build(case, "llvm")
    assert isinstance(model, DirectESEN)
    forces = case.outputs["forces"]
    found = model.energies_and_forces(case.graph)[1].detach()
    change = float((found - forces).abs().max() / forces.abs().max())
    assert 1e-4 < change < 2e-2


@pytest.mark.parametrize(
    ("name", "count"),
    [("eSEN-30M-OAM", 30_161_153), ("eSEN-30M-MP", 30_085_121), ("eSEN-6M", 6_261_249), ("eSEN-3M", 3_199_755)],
)
def test_published_sizes(name: str, count: int) -> None:
    with torch.device("meta"):
        model = ESEN(PUBLISHED[name], "torch")
    assert sum(p.numel() for p in model.parameters()) == count


def test_there_and_back(case: Case, tmp_path: Path) -> None:
    model = build(case)
    state = esen_state(model)
    again = esen_from(case.config["model_kwargs"], state, "torch")
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)
        theirs = [k for k in case.weights if k.split(".")[1:] == official_name(name).split(".")[1:]]
        assert len(theirs) == 1
        torch.testing.assert_close(state[official_name(name)], case.weights[theirs[0]], rtol=1e-15, atol=0)
    save_model(model, tmp_path / "ours.pt")
    loaded = load_model(tmp_path / "ours.pt", "torch")
    assert torch.equal(loaded(case.graph), model(case.graph))  # type: ignore[arg-type]


def test_files_and_stored_constants(shared: Path, tmp_path: Path) -> None:
    case = read(shared, CASES[0])
    constants = {"backbone.Jd_3": torch.ones(7, 7), "backbone.mappingReduced.to_m": torch.ones(14, 14)}
    state = {**{f"module.{k}": v for k, v in case.weights.items()}, **constants}
    torch.save({"config": case.config["model_kwargs"], "state_dict": state}, tmp_path / "theirs.pt")
    found = energy_and_forces(load_esen(tmp_path / "theirs.pt", "torch"), case.graph)
    assert_close(found.forces, case.outputs["forces"])
    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"state_dict": {}}, tmp_path / "half.pt")
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_esen(tmp_path / "text.pt")
    with pytest.raises(InputError, match="without 'config'"):
        load_esen(tmp_path / "half.pt")


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "a tensor missing": (lambda c, s: s.pop("backbone.blocks.1.edge_wise.so2_conv_2.fc_m0.bias"), "got nothing"),
    "a tensor too many": (lambda c, s: s.update({"backbone.charge.weight": torch.ones(3)}), "charge.weight"),
    "another size": (lambda c, s: c.update(hidden_channels=15), r"got \(.*; expected"),
    "an argument missing": (lambda c, s: c.pop("mmax"), "without mmax"),
    "an unknown argument": (lambda c, s: c.update(attention=True), "attention"),
    "another activation": (lambda c, s: c.update(act_type="tanh"), "activation = 'tanh'"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_does_not_fit_is_refused(shared: Path, broken: str) -> None:
    case = read(shared, CASES[0])
    change, says = BROKEN[broken]
    config, state = dict(case.config["model_kwargs"]), dict(case.weights)
    change(config, state)
    with pytest.raises(InputError, match=says):
        esen_from(config, state, "torch")


def test_elements_are_counted_by_atomic_number(shared: Path) -> None:
    config = config_from(read(shared, CASES[0]).config["model_kwargs"])
    assert config.species == tuple(range(20))
