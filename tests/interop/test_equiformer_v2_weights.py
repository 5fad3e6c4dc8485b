"""Weights of the authors' EquiformerV2 give the authors' numbers: every intermediate, energy, forces."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.interop.equiformer_v2 import (
    config_from,
    equiformer_v2_from,
    equiformer_v2_state,
    load_equiformer_v2,
    official_name,
)
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.equiformer_v2 import PUBLISHED, EquiformerV2
from irrepc.models.potential import predict
from irrepc.nn.graph import Graph, edge_vectors, graph_from_edges
from irrepc.nn.rotations import matrix_to_quaternion
from irrepc.nn.s2_grid import grid_matrices
from irrepc.nn.so2 import degree_order

CASES = ("A_seps2_gridmlp", "B_rms_seps2_defaultgrid", "C_gate_msharerad")
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Case:
    """One reference: arguments, tensors, and the graph; `order` takes its edges to ours."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]
    constants: dict[str, Tensor]
    random: Tensor
    graph: Graph
    order: Tensor

    @property
    def frames(self) -> Tensor:
        """The authors' frames for our edges."""
        vectors = edge_vectors(self.graph)
        return matrix_to_quaternion(drawn_frames(vectors, self.random[self.order]).mT)


def drawn_frames(r: Tensor, random: Tensor) -> Tensor:
    """As the authors make them of vectors r (E, 3) and numbers (E, 3) in [0, 1): rotations (E, 3, 3), edge to ŷ."""

    def unit(v: Tensor) -> Tensor:
        return v / v.norm(dim=1, keepdim=True)

    def along(v: Tensor) -> Tensor:
        return (v * n).sum(1, keepdim=True).abs()

    n, u = unit(r), unit(random - 0.5)
    x, y, z = u.unbind(1)
    for other in (torch.stack((-y, x, z), 1), torch.stack((x, -z, y), 1)):
        u = torch.where(along(u) > along(other), other, u)
    assert float(along(u).max()) < 0.99
    third = unit(torch.linalg.cross(n, u))
    return torch.stack((third, n, unit(torch.linalg.cross(third, n))), 1)


def read(shared: Path, name: str) -> Case:
    folder = shared / "fixtures" / "architectures" / "equiformer_v2" / name

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
    return Case(
        config, tensors("weights"), tensors("outputs"), tensors("constants"), given["edge_rand"], graph, order
    )


@pytest.fixture(params=CASES)
def case(shared: Path, request: pytest.FixtureRequest) -> Case:
    return read(shared, request.param)


def build(case: Case, backend: str = "torch") -> EquiformerV2:
    return equiformer_v2_from(case.config["model_kwargs"], case.weights, backend)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    margin = tolerance * float(expected.abs().max())
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=margin)


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_energy_and_forces(case: Case, backend: str) -> None:
    model = build(case, backend)
    assert sum(p.numel() for p in model.parameters()) == case.config["num_params"]
    energies, forces = model.energies_and_forces(case.graph, case.frames)
    assert_close(energies.sum(0, keepdim=True), case.outputs["energy"])
    assert_close(forces, case.outputs["forces"])
    assert torch.equal(model(case.graph, case.frames), energies)


def test_every_intermediate(case: Case) -> None:
    """Edges in our order, components on the edge by order m, in the authors' frames."""
    model = build(case)
    seen: dict[str, Any] = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, inputs, output: seen.update({f"{name} in": inputs, name: output}))

    block: Any = model.blocks[0]
    for name, module in (
        ("matrices", model.matrices), ("degree", model.degree), ("block0", block), ("block1", model.blocks[1]),
        ("norm", model.norm), ("norm_1", block.norm_1), ("attention", block.attention),
        ("conv_1", block.attention.conv_1), ("conv_2", block.attention.conv_2),
    ):  # fmt: skip
        watch(name, module)
    model(case.graph, case.frames)
    expected, edges, config = case.outputs, case.order, model.config
    places = torch.argsort(torch.tensor(degree_order(config.lmax, config.mmax)))

    def by_order(arrays: tuple[Tensor, ...], width: int) -> Tensor:
        """As the authors keep them: (E, components by degree, channels)."""
        return torch.cat([a.unflatten(1, (-1, width)) for a in arrays], 1)[:, places]

    def nodes(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, config.channels))

    vectors = edge_vectors(case.graph)
    assert_close(vectors.norm(dim=1), expected["edge_distance"][edges])
    assert_close(drawn_frames(vectors, case.random[edges]), expected["edge_rot_mat"][edges])
    assert_close(nodes(seen["degree"]), expected["edge_degree_embedding"])
    assert_close(nodes(seen["block0 in"][0]), expected["x_after_embedding"])
    assert_close(nodes(seen["norm_1"]), expected["block0_norm1"])
    extra, y = seen["conv_1"]
    assert_close(extra, expected["block0_so2conv1_extra"][edges])
    assert_close(by_order(y, config.hidden), expected["block0_so2conv1_out"][edges])
    assert_close(by_order(seen["conv_2"][1], config.heads * config.value), expected["block0_so2conv2_out"][edges])
    assert_close(nodes(seen["attention"]), expected["block0_attention_out"])
    assert_close(nodes(seen["block0"]), expected["x_after_block0"])
    assert_close(nodes(seen["block1"]), expected["x_after_block1"])
    assert_close(nodes(seen["norm"]), expected["final_norm"])
    # D is kept without its zeros: the rows |m'| <= mmax of each block of the authors' dense matrices, first edges
    dense, lmax, mmax = expected["wigner_first8"], config.lmax, config.mmax
    kept = [
        dense[:, l * l + l - min(l, mmax) : l * l + l + min(l, mmax) + 1, l * l : (l + 1) ** 2].flatten(1)
        for l in range(lmax + 1)
    ]
    ours = torch.empty_like(seen["matrices"])
    ours[edges] = seen["matrices"]
    assert_close(ours[: dense.shape[0]], torch.cat(kept, 1))


def test_matrices_of_the_grids(case: Case) -> None:
    config = config_from(case.config["model_kwargs"])
    rings = (config.grid, config.grid) if config.grid else None
    for mmax, name in ((config.mmax, "lmax_mmax"), (config.lmax, "lmax_lmax")):
        found = grid_matrices(config.lmax, mmax, normalization="component", rings_and_points=rings)
        for ours, way in zip(found, ("to_grid", "from_grid"), strict=True):
            assert_close(ours, case.constants[f"{way}_{name}"].flatten(0, 1))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    # the change that the authors' own rolls make: 5e-7, 9e-4 and 2e-16 of the largest force
    [(CASES[0], 1e-8, 3e-6), (CASES[1], 1e-5, 5e-3), (CASES[2], 0.0, 1e-12)],
)
def test_what_the_roll_of_frames_changes(shared: Path, name: str, least: float, most: float) -> None:
    case = read(shared, name)
    model = build(case, "llvm")
    found = predict(model, case.graph)
    assert torch.equal(found.forces, predict(model, case.graph).forces)  # no random roll
    expected = case.outputs["forces"]
    change = float((found.forces - expected).abs().max() / expected.abs().max())
    assert least <= change < most


@pytest.mark.parametrize(("name", "count"), [("31M", 31_058_690), ("86M", 86_437_250), ("153M", 153_602_690)])
def test_published_sizes(name: str, count: int) -> None:
    with torch.device("meta"):
        model = EquiformerV2(PUBLISHED[name], "torch")
    assert sum(p.numel() for p in model.parameters()) == count


def test_sizes_with_the_elements_of_omat() -> None:
    with torch.device("meta"):
        model = EquiformerV2(replace(PUBLISHED["31M"], species=tuple(range(96))), "torch")
    assert sum(p.numel() for p in model.parameters()) == 31_074_818


def test_there_and_back(case: Case, tmp_path: Path) -> None:
    model = build(case)
    state = equiformer_v2_state(model)
    assert state.keys() == case.weights.keys()
    assert all(torch.equal(state[name], case.weights[name]) for name in state)
    assert len({official_name(name, model.config) for name, _ in model.named_parameters()}) == len(state)
    save_model(model, tmp_path / "ours.pt")
    loaded = load_model(tmp_path / "ours.pt", "torch")
    assert torch.equal(predict(loaded, case.graph).forces, predict(model, case.graph).forces)


def test_files_stored_constants_and_names_of_heads(shared: Path, tmp_path: Path) -> None:
    case = read(shared, CASES[2])
    constants = {"backbone.SO3_rotation.0.mapping.to_m": torch.ones(14, 14), "backbone.Jd_3": torch.ones(7, 7)}
    heads = {"energy": "heads.oc20", "force": "output_heads.f", "backbone": "backbone"}
    state = {f"module.{heads[k.partition('.')[0]]}.{k.partition('.')[2]}": v for k, v in case.weights.items()}
    state |= constants
    torch.save({"config": case.config["model_kwargs"], "state_dict": state}, tmp_path / "theirs.pt")
    found = predict(load_equiformer_v2(tmp_path / "theirs.pt", "torch"), case.graph)
    assert_close(found.forces, case.outputs["forces"])
    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"state_dict": {}}, tmp_path / "half.pt")
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_equiformer_v2(tmp_path / "text.pt")
    with pytest.raises(InputError, match="without 'config'"):
        load_equiformer_v2(tmp_path / "half.pt")


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], Any], str]] = {
    "a tensor missing": (lambda c, s: s.pop("backbone.blocks.1.ga.alpha_dot"), "got nothing for .*alpha_dot"),
    "no head for forces": (lambda c, s: [s.pop(k) for k in list(s) if k.startswith("force.")], "got nothing for force"),
    "a tensor too many": (lambda c, s: s.update({"stress.stress_block.weight": torch.ones(3)}), "stress_block.weight"),
    "another size": (lambda c, s: c.update(attn_value_channels=4), r"got \(.*; expected"),
    "an argument missing": (lambda c, s: c.pop("num_heads"), "without num_heads"),
    "an unknown argument": (lambda c, s: c.update(charge=True), "charge"),
    "scores after the activation": (lambda c, s: c.update(use_s2_act_attn=True), "use_s2_act_attn"),
    "energies of elements": (lambda c, s: c.update(use_energy_lin_ref=True), "use_energy_lin_ref"),
    "two resolutions": (lambda c, s: c.update(lmax_list=[4, 2]), r"got lmax \[4, 2\]"),
    "another norm": (lambda c, s: c.update(norm_type="batch"), "norm = 'batch'"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_does_not_fit_is_refused(shared: Path, broken: str) -> None:
    case = read(shared, CASES[0])
    change, says = BROKEN[broken]
    config, state = dict(case.config["model_kwargs"]), dict(case.weights)
    change(config, state)
    with pytest.raises(InputError, match=says):
        equiformer_v2_from(config, state, "torch")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"activation": "separable_s2", "feed_forward": "separable_grid", "edge_embedding": "own"}),
        ({"use_sep_s2_act": False}, {"activation": "s2", "feed_forward": "grid"}),
        ({"use_sep_s2_act": False, "use_grid_mlp": False}, {"activation": "s2", "feed_forward": "s2"}),
        ({"use_gate_act": True}, {"activation": "gate", "feed_forward": "separable_grid"}),
        ({"use_atom_edge_embedding": False}, {"edge_embedding": "none"}),
        ({"avg_degree": 61.95, "avg_num_nodes": 31.17}, {"neighbours": 61.95, "atoms": 31.17}),
        ({"use_attn_renorm": False}, {"renorm": False}),
    ],
)
def test_arguments(shared: Path, change: dict[str, Any], expected: dict[str, Any]) -> None:
    config = config_from(read(shared, CASES[0]).config["model_kwargs"] | change)
    assert config.species == tuple(range(20))
    assert {name: getattr(config, name) for name in expected} == expected
