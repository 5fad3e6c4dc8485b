"""Weights of the authors' tensor field networks give the authors' features, scores and gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.interop.tfn import filters_from, missing_point_from, read_variables, tetris_from, to_authors_axes
from irrepc.models.potential import energy_and_forces
from irrepc.models.tfn import TFN, Layer, Nonlinearity, TFNConfig, complete_graph
from irrepc.models.tfn_tasks import TFNEnergy
from irrepc.nn.graph import Graph, graph_from_edges
from irrepc.nn.linear import Linear

BACKENDS = ("torch", "llvm", pytest.param("numba", marks=pytest.mark.slow))
TETRIS, MISSING, FILTERS, GENERAL = (
    "A_tetris_official",
    "B_missingpoint_official",
    "C_moi_filter2_official",
    "D_general_l2_e3nn",
)


def arrays(shared: Path, case: str, file: str) -> dict[str, np.ndarray]:
    return read_variables(shared / "fixtures" / "architectures" / "tfn" / case / f"{file}.npz")


def assert_equal(found: Tensor, expected: np.ndarray) -> None:
    """To 1e-12 of the largest number."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def blocks(x: Tensor, features: str) -> dict[int, Tensor]:
    """Features (N, width) -> degree -> (N, channels, 2l + 1), as the authors keep them; blocks of one degree joined."""
    found: dict[int, Tensor] = {}
    for text in features.split("+"):
        mul, l = int(text.split("x")[0]), int(text.split("x")[1][0])
        block, x = x[:, : mul * (2 * l + 1)], x[:, mul * (2 * l + 1) :]
        block = block.unflatten(1, (2 * l + 1, mul)).mT
        found[l] = torch.cat((found[l], block), 1) if l in found else block
    return found


def messages(model: TFN, graph: Graph) -> list[dict[int, Tensor]]:
    """What each layer's convolution gives, paths joined by degree as the authors concatenate them."""
    found: list[dict[int, Tensor]] = []
    for layer in model.layers:
        assert isinstance(layer, Layer)
        layer.convolution.register_forward_hook(lambda c, _, z: found.append(blocks(z, str(c.irreps_out))))
    model(graph)
    return found


def points(inputs: dict[str, np.ndarray], species: Tensor | None = None) -> Graph:
    positions = torch.from_numpy(inputs["pos"]).requires_grad_()
    return complete_graph(positions, torch.zeros(len(positions), dtype=torch.int64) if species is None else species)


def assert_gradient(scalar: Tensor, graph: Graph, outputs: dict[str, np.ndarray]) -> None:
    assert_equal(scalar, outputs["scalar"])
    (gradient,) = torch.autograd.grad(scalar, graph.positions)
    assert_equal(-gradient, outputs["minus_dscalar_dpos"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_tetris(shared: Path, backend: str) -> None:
    model = tetris_from(arrays(shared, TETRIS, "weights"), backend=backend)
    graph, expected = points(arrays(shared, TETRIS, "inputs")), arrays(shared, TETRIS, "outputs")
    distances = torch.cdist(graph.positions, graph.positions).clamp(min=1e-4)
    assert_equal(model.field.basis(distances), expected["rbf"])
    layers = model.field.layerwise(graph, model.field.embedding(graph.species))
    for k, (x, features) in enumerate(zip(layers, model.field.config.features, strict=True)):
        for l, block in blocks(x, features).items():
            assert_equal(block, expected[f"layer{k}_out_L{l}_0"])
    scores = model(graph)
    for k, joined in enumerate(messages(model.field, graph)):
        for l, block in joined.items():
            assert_equal(block, expected[f"layer{k}_conv_L{l}_0"])
    assert_equal(scores[0], expected["logits"])
    assert_gradient((scores * torch.arange(1.0, 9.0)).sum(), graph, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_point(shared: Path, backend: str) -> None:
    model = missing_point_from(arrays(shared, MISSING, "weights"), (1, 6, 8), backend=backend)
    inputs, expected = arrays(shared, MISSING, "inputs"), arrays(shared, MISSING, "outputs")
    graph = points(inputs, torch.from_numpy(inputs["onehot"].argmax(1)))
    layers = model.layerwise(graph, model.embedding(graph.species))
    for k in (0, 1):
        for l, block in blocks(layers[k], model.config.features[k]).items():
            assert_equal(block, expected[f"layer{k}_out_L{l}_0"])
    last = blocks(model(graph), model.config.features[2])
    assert_equal(last[0][:, :3, 0], expected["atom_type"])
    assert_equal(last[0][:, 3, 0], expected["L0"])
    assert_equal(last[1][:, 0], expected["L1"])
    assert_gradient(last[0][:, 3].sum(), graph, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_filters_of_the_moment_of_inertia(shared: Path, backend: str) -> None:
    model = filters_from(arrays(shared, FILTERS, "weights"), backend=backend)
    inputs, expected = arrays(shared, FILTERS, "inputs"), arrays(shared, FILTERS, "outputs")
    graph = points(inputs)
    (x,) = model.layerwise(graph, torch.from_numpy(inputs["masses"])[:, None])
    scalars, tensors = blocks(x, "1x0e+1x2e").values()
    assert_equal(scalars[:, 0, 0], expected["L0"])
    assert_equal(to_authors_axes(tensors[:, 0], 2), expected["L2"])
    assert_gradient(x.square().sum(), graph, expected)


# ── degree 2 and a cutoff, where the authors' code ends: the formulas written down again, with e3nn ──


def general_config(shared: Path, last: str) -> TFNConfig:
    folder = shared / "fixtures" / "architectures" / "tfn" / GENERAL
    given: dict[str, Any] = json.loads((folder / "config.json").read_text())["cfg"]
    c = given["channels"]
    return TFNConfig(
        species=(1, 6, 8),
        features=(*(f"{c}x0e+{c}x1e+{c}x2e",) * (given["layers"] - 1), last.format(c=c)),
        embedding=c,
        lmax=given["lfilter"],
        reach=given["cutoff"],
        cutoff=given["cutoff"],
        basis=given["rbf_count"],
        hidden=given["hidden"],
        radial_activation="relu",
        avg_num_neighbors=given["avg_degree"],
        readout=c,
    )


def fill_general(model: TFN, weights: dict[str, Tensor]) -> None:
    """The same paths in the same order, but for the outermost loop, which is the degree of the output."""
    model.embedding.weight.copy_(weights["embed.weight"].T + weights["embed.bias"])
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        assert isinstance(layer.nonlinearity, Nonlinearity)
        radial, paths = layer.radial, layer.convolution.irreps_out
        names = [
            f"layer{k}.radial.{p.left}_{p.right}_{b.irrep.l}"
            for p, b in zip(layer.convolution.paths, paths, strict=True)
        ]
        radial.first.copy_(torch.cat([weights[f"{n}.w1"].T for n in names], 1) / radial.scales[0])
        radial.first_bias.copy_(torch.cat([weights[f"{n}.b1"] for n in names]))
        for own, n in zip(radial.second, names, strict=True):
            own.copy_(weights[f"{n}.w2"].T / radial.scales[1])
        radial.second_bias.copy_(torch.cat([weights[f"{n}.b2"] for n in names]))
        rest = {b.irrep.l: weights[f"layer{k}.si.{b.irrep.l}.weight"] for b in layer.irreps_out}
        fan_in = {l: matrix.shape[1] for l, matrix in rest.items()}
        pieces = []
        for block in paths:
            l = block.irrep.l
            pieces.append((rest[l][:, : block.mul].T * fan_in[l] ** 0.5).flatten())
            rest[l] = rest[l][:, block.mul :]
        layer.self_interaction.weight.copy_(torch.cat(pieces))
        assert layer.self_interaction.bias is not None
        layer.self_interaction.bias.copy_(weights[f"layer{k}.si.0.bias"] + weights[f"layer{k}.nl.0.bias"])
        if layer.nonlinearity.bias is not None:
            biases = [weights[f"layer{k}.nl.{b.irrep.l}.bias"] for b in layer.irreps_out if b.irrep.l]
            layer.nonlinearity.bias.copy_(torch.cat(biases))


def fill_map(linear: Linear, weight: Tensor, bias: Tensor) -> None:
    assert linear.bias is not None
    linear.weight.copy_(weight.T.flatten() * weight.shape[1] ** 0.5)
    linear.bias.copy_(bias)


@pytest.mark.parametrize("backend", BACKENDS)
def test_degree_two(shared: Path, backend: str) -> None:
    inputs, expected = arrays(shared, GENERAL, "inputs"), arrays(shared, GENERAL, "outputs")
    weights = {name: torch.from_numpy(array) for name, array in arrays(shared, GENERAL, "weights").items()}
    senders, receivers = torch.from_numpy(inputs["edge_index"])
    graph = graph_from_edges(torch.from_numpy(inputs["pos"]), torch.from_numpy(inputs["types"]), senders, receivers)
    field = TFN(general_config(shared, "{c}x0e+{c}x1e+{c}x2e"), backend, dtype=torch.float64)
    model = TFNEnergy(general_config(shared, "{c}x0e"), backend, dtype=torch.float64)
    with torch.no_grad():
        fill_general(field, weights)
        fill_general(model.field, weights)
        fill_map(model.hidden, weights["out.w1"], weights["out.b1"])
        fill_map(model.last, weights["out.w2"], weights["out.b2"])
    layers = field.layerwise(graph, field.embedding(graph.species))
    for k, x in enumerate(layers):
        for l, block in blocks(x, field.config.features[k]).items():
            assert_equal(block, expected[f"layer{k}_l{l}"])
    found = energy_and_forces(model, graph)
    assert_equal(found.energy[0], expected["energy"])
    assert_equal(found.forces, expected["forces"])


# ── what does not fit ────────────────────────────────────────────────────────────────────────────


def test_what_does_not_fit_is_refused(shared: Path) -> None:
    weights = arrays(shared, TETRIS, "weights")
    bias = "layer1/self_interaction/L0/tensor_0/self_interaction_layer/biases"
    radial = "layer1/convolution/L1/tensor_0/F1_to_0/F_1/radial_function/weights2"
    with pytest.raises(InputError, match=f"got no variable {bias}"):
        tetris_from({name: array for name, array in weights.items() if name != bias}, backend="torch")
    with pytest.raises(InputError, match=r"got variables \['optimiser'\]; expected none"):
        tetris_from({**weights, "optimiser": np.zeros(3)}, backend="torch")
    with pytest.raises(InputError, match=r"got \(4, 1\) for .*F1_to_0.*; expected \(4, 4\)"):
        tetris_from({**weights, radial: weights[radial][:1]}, backend="torch")
    with pytest.raises(InputError, match="got 2 species; expected 3"):
        missing_point_from(arrays(shared, MISSING, "weights"), (1, 6), backend="torch")
    with pytest.raises(InputError, match=r"degree 3 of 7 components"):
        to_authors_axes(torch.zeros(1, 7), 3)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not a network")
    np.savez(tmp_path / "objects.npz", weights=np.array([{}], dtype=object))
    for name in ("text.npz", "objects.npz"):
        with pytest.raises(InputError, match="no npz of plain arrays"):
            read_variables(tmp_path / name)
