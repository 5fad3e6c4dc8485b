"""Weights of the authors' Equiformer give the authors' energies, forces and intermediates, with both signs of e3nn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import ConventionError, InputError
from irrepc.interop.e3nn_layout import to_e3nn
from irrepc.interop.e3nn_signs import path_signs
from irrepc.interop.equiformer import equiformer_from, load_equiformer
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.equiformer import Equiformer
from irrepc.models.potential import energy_and_forces
from irrepc.nn.attention import NonlinearValue
from irrepc.nn.block_linear import together
from irrepc.nn.depthwise import DepthwiseProduct
from irrepc.nn.graph import Graph, graph_from_edges

# A: SE(3), exponentials; B: E(3), Gaussians; C: linear messages, attention head, rescaled by the degree
CASES = ("A_nonlinear_exp_se3", "B_nonlinear_gauss_e3_parity", "C_linear_gauss_attnhead")
SIGNS = {"": "e3nn-0.5", "_e3nn044": "e3nn-0.4"}
BOTH = [(case, suffix) for case in CASES for suffix in SIGNS]


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as found:
        return {key: torch.from_numpy(found[key]) for key in found.files}


def arguments(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["model_kwargs"]
    return found


def graph_and_edges(folder: Path) -> tuple[Graph, Tensor]:
    """The graph, and for each of its edges the number of the same edge in the file."""
    inputs = arrays(folder, "inputs")
    senders, receivers = inputs["edge_index"]
    graph = graph_from_edges(inputs["pos"], inputs["numbers"], senders, receivers)
    return graph, torch.argsort(receivers, stable=True)


@pytest.fixture
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "architectures" / "equiformer"


def assert_reproduces(model: Equiformer, case: Path) -> None:
    graph, _ = graph_and_edges(case)
    found, expected = energy_and_forces(model, graph), arrays(case, "outputs")
    forces = expected["forces"]
    torch.testing.assert_close(found.energy, expected["energy"], rtol=1e-12, atol=0)
    torch.testing.assert_close(found.forces, forces, rtol=0, atol=1e-12 * float(forces.abs().max()))


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize(("case", "suffix"), BOTH)
def test_energies_and_forces(folder: Path, case: str, suffix: str, backend: str) -> None:
    where = folder / f"{case}{suffix}"
    model = equiformer_from(arguments(where), arrays(where, "weights"), backend, signs=SIGNS[suffix])
    counted = json.loads((where / "config.json").read_text())["num_params"]
    assert sum(p.numel() for p in model.parameters()) == counted
    assert_reproduces(model, where)


@pytest.mark.parametrize("case", CASES)
def test_the_other_sign_is_another_network(folder: Path, case: str) -> None:
    where = folder / f"{case}_e3nn044"
    expected = float(arrays(where, "outputs")["energy"])
    wrong = equiformer_from(arguments(where), arrays(where, "weights"), "torch", signs="e3nn-0.5")
    found = float(energy_and_forces(wrong, graph_and_edges(where)[0]).energy)
    assert abs(found - expected) > 1e-3


@pytest.mark.parametrize(("case", "suffix"), BOTH)
def test_intermediates(folder: Path, monkeypatch: pytest.MonkeyPatch, case: str, suffix: str) -> None:
    where = folder / f"{case}{suffix}"
    model = equiformer_from(arguments(where), arrays(where, "weights"), "torch", signs=SIGNS[suffix])
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    block: Any = model.blocks[0]
    layers = {
        "edge_rbf": model.basis,
        "edge_sh": model.harmonics,
        "edge_degree_embedding": model.surroundings,
        "block0_dtp_out": block.attention.product,
        "block0_alpha_raw": block.attention.score,
        "block0_attention_out": block.attention,
        "block0_ffn_out": block.feed_forward,
        "x_after_block0": block,
        "x_after_block1": model.blocks[1],
    }
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name))
    for name, norm in (("block0_norm1", block.norm_1), ("final_norm", model.norm)):

        def kept(blocks: list[Tensor], name: str = name, norm: Any = norm) -> list[Tensor]:
            seen[name] = type(norm).apart(norm, blocks)
            return seen[name]

        monkeypatch.setattr(norm, "apart", kept)
    graph, order = graph_and_edges(where)
    model(graph)
    seen["edge_rbf"] = seen["edge_rbf"][graph.pairs.values]  # made once for both directions of a pair
    expected, nodes, last = arrays(where, "outputs"), block.norm_1.irreps, model.norm.irreps
    # blocks of equal irreps, which the file keeps one for each path, lie side by side as one in e3nn's layout
    kinds = {"edge_rbf": None, "edge_sh": None, "block0_dtp_out": block.attention.product.irreps_out}
    kinds |= {"x_after_block1": last, "final_norm": last, "block0_alpha_raw": block.attention.score.irreps_out}
    attention = block.attention
    if isinstance(attention.value, NonlinearValue):
        seen["block0_value"] = value_of_edges(attention.value, attention.product, seen)
        kinds["block0_value"] = attention.value.mix.irreps_out
    else:
        linear = attention.value.linear
        scalars, *others = linear(seen["block0_dtp_out"])
        both = torch.stack([x.view(len(x), attention.heads, -1) for x in (seen["block0_alpha_raw"][0], scalars)], 2)
        kinds["block0_sep_out"] = Irreps.of(f"{2 * scalars.shape[1]}x0e") + Irreps(linear.irreps_out.blocks[1:])
        seen["block0_sep_out"] = [both.flatten(1), *others]
    for name in sorted(seen.keys() & expected.keys()):
        reference = expected[name][order] if expected[name].shape[0] == graph.num_edges else expected[name]
        found = whole(seen[name], kinds.get(name, nodes))
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12 * float(reference.abs().max()))
    assert len(seen.keys() & expected.keys()) == (12 if "block0_value" in expected else 10)


def value_of_edges(layer: NonlinearValue, product: DepthwiseProduct, seen: dict[str, Any]) -> list[Tensor]:
    """The value of each edge, which the layer itself never makes: it sums over the edges before the last map."""
    x = layer.gate(layer.linear(seen["block0_dtp_out"]))
    again = DepthwiseProduct(product.irreps_in, product.irreps_edge, layer.mix.irreps_out, "torch")
    parts = again(x, seen["edge_sh"], x.new_ones(x.shape[0], again.weight_numel))
    weights = layer.weight.split([b.mul for b in again.irreps_out])
    return layer.mix([part * w for part, w in zip(parts, weights, strict=True)])


def whole(value: Tensor | list[Tensor], irreps: Irreps | None) -> Tensor:
    """A feature as one row for each atom or edge, in e3nn's layout."""
    row = value if isinstance(value, Tensor) else together(value, irreps or Irreps())
    return row if irreps is None else to_e3nn(row, irreps)


def test_signs_of_paths() -> None:
    degrees = ((0, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 2, 2), (3, 3, 1), (5, 4, 4))
    assert path_signs(degrees, "e3nn-0.4") == (1, 1, -1, -1, 1, -1, -1)
    assert set(path_signs(degrees, "e3nn-0.5")) == {1.0}
    with pytest.raises(ConventionError, match="degrees up to 8"):
        path_signs(((9, 9, 1),), "e3nn-0.4")


def test_files_are_read_and_survive_our_own(folder: Path, tmp_path: Path) -> None:
    where = folder / "A_nonlinear_exp_se3_e3nn044"
    (tmp_path / "arguments.json").write_text(json.dumps(arguments(where)))
    model = load_equiformer(where / "weights.npz", tmp_path / "arguments.json", "torch", signs="e3nn-0.4")
    assert_reproduces(model, where)
    save_model(model, tmp_path / "ours.pt")
    again = load_model(tmp_path / "ours.pt", "torch")
    assert isinstance(again, Equiformer)
    assert_reproduces(again, where)


def test_buffers_of_the_basis_are_taken(folder: Path) -> None:
    where = folder / "A_nonlinear_exp_se3"
    state = {**arrays(where, "weights"), **arrays(where, "constants")}
    assert_reproduces(equiformer_from(arguments(where), state, "torch", signs="e3nn-0.5"), where)


def without(name: str) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    return lambda config, state: state.pop(name)


BROKEN: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "a tensor missing": (without("blocks.1.ga.proj.tp.weight"), "got nothing for blocks.1.ga.proj.tp.weight"),
    "a tensor too many": (lambda c, s: s.update({"charge": torch.ones(3)}), r"\['charge'\]"),
    "another size": (lambda c, s: c.update(fc_neurons=[10, 11]), "edge_deg_embed.rad.net.3.weight"),
    "no embedding": (without("atom_embed.atom_type_lin.bias.0"), "64 or 5 species"),
    "an argument missing": (lambda c, s: c.pop("max_radius"), "without max_radius"),
    "other irreps before attention": (lambda c, s: c.update(irreps_pre_attn="8x0e"), "irreps_pre_attn = '8x0e'"),
    "another norm": (lambda c, s: c.update(norm_layer="graph"), "norm_layer = 'graph'; expected 'layer'"),
    "another basis": (lambda c, s: c.update(basis_type="fourier"), "gaussian, exp, bessel"),
    "irreps that are not sorted": (lambda c, s: c.update(irreps_head="3x1e+4x0e+2x2e"), "sorted by degree"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(folder: Path, case: str) -> None:
    change, says = BROKEN[case]
    where = folder / "A_nonlinear_exp_se3"
    config, state = arguments(where), arrays(where, "weights")
    change(config, state)
    with pytest.raises(InputError, match=says):
        equiformer_from(config, state, "torch", signs="e3nn-0.5")


def test_signs_must_be_known_ones(folder: Path) -> None:
    where = folder / "A_nonlinear_exp_se3"
    with pytest.raises(ConventionError, match=r"e3nn-0\.5, e3nn-0\.4"):
        equiformer_from(arguments(where), arrays(where, "weights"), "torch", signs="e3nn-1")


def test_a_scale_is_kept(folder: Path) -> None:
    where = folder / "A_nonlinear_exp_se3"
    config, state = {**arguments(where), "scale": 2.5}, arrays(where, "weights")
    model = equiformer_from(config, state, "torch", signs="e3nn-0.5")
    found = energy_and_forces(model, graph_and_edges(where)[0]).energy
    torch.testing.assert_close(found, 2.5 * arrays(where, "outputs")["energy"], rtol=1e-12, atol=0)


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a model")
    weights = folder / "A_nonlinear_exp_se3" / "weights.npz"
    with pytest.raises(InputError, match="cannot read as plain arrays"):
        load_equiformer(tmp_path / "text", tmp_path / "text", signs="e3nn-0.5")
    with pytest.raises(InputError, match="no JSON"):
        load_equiformer(weights, tmp_path / "text", signs="e3nn-0.5")
