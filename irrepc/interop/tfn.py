"""Reads networks of the authors' tensor field networks (tensorfieldnetworks, 2018): their variables become our weights.

The variables are arrays named by their scope, `layer1/convolution/L1/tensor_0/F1_to_0/F_1/radial_function/weights1`,
as a session of that package saves them (npz). Conventions of that package which this file turns into ours:
  * vectors point from the source to the centre, ours from the centre to the neighbour: odd filters change their sign;
  * filters are Y₁ = r/|r| and an unnormalised Y₂, couplings δ and ε_ijk, ours unit couplings times √(2l + 1) and
    component-normalised harmonics: one exact factor for each path, put into the last layer of its radial function;
  * the polar axis of l = 2 is z (`to_authors_axes` turns our features);
  * biases of l = 0 nonlinearities are saved but unused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.tfn import TFN, Layer, Nonlinearity, TFNConfig
from irrepc.models.tfn_tasks import TFNClassifier
from irrepc.nn.harmonics import WignerD
from irrepc.nn.linear import Linear

Variables = Mapping[str, Any]

# (degree in, degree of the filter, degree out) -> what their coupling and filter are, in units of ours
_FACTORS = {
    (0, 0, 0): 1.0,
    (1, 0, 1): 1.0,
    (0, 1, 1): -1.0 / math.sqrt(3.0),
    (1, 1, 0): -1.0,
    (1, 1, 1): math.sqrt(2.0 / 3.0),  # ε u x = -ε x u, and u = -r/|r|
    (0, 2, 2): 1.0 / math.sqrt(15.0),
}
_SCOPES = {0: "F0_to_L", 1: "F1_to_{}", 2: "F2_to_2"}


def read_variables(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> array of an npz file, without running code from it. Raises InputError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, AttributeError, EOFError) as error:
        raise InputError(
            f"tfn: got {path}, which is no npz of plain arrays; expected one; save it by np.savez"
        ) from error


def tetris_from(
    variables: Variables, *, reach: float = 3.5, backend: str = "auto", dtype: torch.dtype = torch.float64
) -> TFNClassifier:
    """The network of the tetris shapes: degrees 0 and 1, elu, one kind of point. `reach` Å is of its radial basis.

    Raises InputError for variables that are missing, left over or of another shape.
    """
    left = _Left(variables)
    widths = [left.shape(f"layer{k}/self_interaction/L0/{_SELF}/weights")[0] for k in range(left.layers())]
    config = TFNConfig(
        species=(1,),
        features=tuple(f"{n}x0e+{n}x1e" for n in widths),
        embedding=left.shape("embed/self_interaction_layer/weights")[0],
        reach=reach,
        basis=left.shape(f"{_FIRST_RADIAL}/weights1")[1],
        hidden=left.shape(f"{_FIRST_RADIAL}/weights1")[0],
        activation="elu",
        radial_activation="relu",
    )
    classes = left.shape("output_biases")[0]
    model = TFNClassifier(config, classes, backend, dtype=dtype)
    with torch.no_grad():
        model.field.embedding.weight.copy_(left.take("embed/self_interaction_layer/weights").T)
        for k, layer in enumerate(model.field.layers):
            assert isinstance(layer, Layer)
            _fill_layer(layer, left, f"layer{k}", [(0, "self_interaction"), (1, "self_interaction")])
            _fill_nonlinearity(layer, left, f"layer{k}/nonlinearity")
        _fill_linear(model.scores, [left.take("fully_connected_weights").T], [left.take("output_biases")], "scores")
    left.check_empty()
    return model


def missing_point_from(
    variables: Variables,
    species: tuple[int, ...],
    *,
    reach: float = 2.5,
    backend: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> TFN:
    """The network of the missing point: ssp, `species` in the order of its one-hot input.

    The last features are the scores of the missing atom's type (0e), the points' votes (0e) and displacements (1e).
    Raises InputError for variables that are missing, left over or of another shape.
    """
    left = _Left(variables)
    count = left.layers()
    widths = [left.shape(f"layer{k}/self_interaction/L0/{_SELF}/weights")[0] for k in range(count)]
    types = left.shape(f"layer{count - 1}/atom_types/self_interaction/L0/{_SELF}/weights")[0]
    config = TFNConfig(
        species=species,
        features=(*(f"{n}x0e+{n}x1e" for n in widths[:-1]), f"{types}x0e+{widths[-1]}x0e+{widths[-1]}x1e"),
        embedding=left.shape("embed/self_interaction_layer/weights")[0],
        reach=reach,
        basis=left.shape(f"{_FIRST_RADIAL}/weights1")[1],
        hidden=left.shape(f"{_FIRST_RADIAL}/weights1")[0],
        activation="ssp",
        radial_activation="relu",
        linear_last=True,
    )
    model = TFN(config, backend, dtype=dtype)
    with torch.no_grad():
        table = left.take("embed/self_interaction_layer/weights").T + left.take("embed/self_interaction_layer/biases")
        if table.shape != model.embedding.weight.shape:
            raise InputError(f"tfn: got {len(species)} species; expected {len(table)}, as the embedding has")
        model.embedding.weight.copy_(table)
        for k, layer in enumerate(model.layers):
            assert isinstance(layer, Layer)
            outputs = [(0, "self_interaction"), (1, "self_interaction")]
            if k == count - 1:
                outputs.insert(0, (0, "atom_types/self_interaction"))
            _fill_layer(layer, left, f"layer{k}", outputs)
            _fill_nonlinearity(layer, left, f"layer{k}/nonlinearity/nonlinearity")
    left.check_empty()
    return model


def filters_from(
    variables: Variables, *, reach: float = 2.0, backend: str = "auto", dtype: torch.dtype = torch.float64
) -> TFN:
    """The filters of the moment of inertia, 0 -> 0 and 0 -> 2 of one channel: `layerwise(graph, masses (N, 1))`.

    Their self-interaction is the identity. Raises InputError as `tetris_from`.
    """
    left = _Left(variables)
    names = [f"layer1/F{l}/{_SCOPES[l]}/F_{l}/radial_function" for l in (0, 2)]
    hidden, basis = left.shape(f"{names[0]}/weights1")
    config = TFNConfig(
        species=(1,),
        features=("1x0e+1x2e",),
        embedding=1,
        lmax=2,
        reach=reach,
        basis=basis,
        hidden=hidden,
        linear_last=True,
    )
    model = TFN(config, backend, dtype=dtype)
    layer = model.layers[0]
    assert isinstance(layer, Layer)
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
        _fill_radial(layer, left, names)
        layer.self_interaction.weight.fill_(1.0)
    left.check_empty()
    return model


def to_authors_axes(x: Tensor, l: int) -> Tensor:
    """Components (..., 2l + 1) of a feature of degree l <= 2 in our basis (polar axis y) -> in the authors'.

    Theirs are (x, y, z) for l = 1 and, for l = 2, ours of the vector (y, z, x). Raises InputError for higher degrees.
    """
    if l not in (0, 1, 2) or x.shape[-1] != 2 * l + 1:
        raise InputError(f"tfn: got degree {l} of {x.shape[-1]} components; expected 2l + 1, and l = 0, 1 or 2")
    if l < 2:
        return x
    # the rotation (x, y, z) -> (y, z, x): a third of a turn about (1, 1, 1)
    turn = torch.tensor([[0.5, -0.5, -0.5, -0.5]], dtype=x.dtype, device=x.device)
    return x @ WignerD(l, "torch").blocks(turn)[l][0].T


_SELF = "tensor_0/self_interaction_layer"
_FIRST_RADIAL = "layer0/convolution/L0/tensor_0/F0_to_L/F_0/radial_function"


class _Left:
    """The variables that are not taken yet."""

    def __init__(self, variables: Variables) -> None:
        self._arrays = {name: torch.as_tensor(np.asarray(array)) for name, array in variables.items()}

    def take(self, name: str) -> Tensor:
        self.shape(name)
        return self._arrays.pop(name)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._arrays:
            raise InputError(f"tfn: got no variable {name}; expected it in this kind of network")
        return tuple(self._arrays[name].shape)

    def layers(self) -> int:
        """How many numbered layers there are."""
        return len({name.split("/")[0] for name in self._arrays if name.startswith("layer")})

    def check_empty(self) -> None:
        if self._arrays:
            raise InputError(f"tfn: got variables {sorted(self._arrays)[:5]}; expected none of these names")


def _put(target: Tensor, value: Tensor, name: str) -> None:
    if target.shape != value.shape:
        raise InputError(f"tfn: got {tuple(value.shape)} for {name}; expected {tuple(target.shape)}")
    target.copy_(value)


def _fill_layer(layer: Layer, left: _Left, scope: str, outputs: Sequence[tuple[int, str]]) -> None:
    """Radial functions and self-interaction; `outputs` says degree and scope of each output block, in order."""
    names = []
    for path, block in zip(layer.convolution.paths, layer.convolution.irreps_out, strict=True):
        kind = _SCOPES[path.right].format(block.irrep.l)
        names.append(f"{scope}/convolution/L{path.left}/tensor_0/{kind}/F_{path.right}/radial_function")
    _fill_radial(layer, left, names)
    matrices = [left.take(f"{scope}/{name}/L{l}/{_SELF}/weights") for l, name in outputs]
    biases = [left.take(f"{scope}/{name}/L{l}/{_SELF}/biases") for l, name in outputs if l == 0]
    _fill_linear(layer.self_interaction, matrices, biases, scope)


def _fill_radial(layer: Layer, left: _Left, names: Sequence[str]) -> None:
    """The radial functions of the paths, in order; features and filters have one block for each degree."""
    radial, start = layer.radial, 0
    hidden = radial.second[0].shape[0]
    paths = zip(layer.convolution.paths, layer.convolution.irreps_out, names, strict=True)
    for p, (path, block, name) in enumerate(paths):
        factor = _FACTORS[path.left, path.right, block.irrep.l]
        own, out = slice(p * hidden, (p + 1) * hidden), slice(start, start + block.mul)
        _put(radial.first[:, own], left.take(f"{name}/weights1").T / radial.scales[0], name)
        _put(radial.first_bias[own], left.take(f"{name}/biases1"), name)
        _put(radial.second[p], left.take(f"{name}/weights2").T * (factor / radial.scales[1]), name)
        _put(radial.second_bias[out], left.take(f"{name}/biases2") * factor, name)
        start += block.mul


def _fill_linear(linear: Linear, matrices: Sequence[Tensor], biases: Sequence[Tensor], name: str) -> None:
    """One matrix (out, all inputs of the irrep, in order) for each output block; ours are cut by input block."""
    pieces, used = [], [0] * len(matrices)
    for block in linear.irreps_in:
        for k, target in enumerate(linear.irreps_out):
            if target.irrep == block.irrep:
                cut = matrices[k][:, used[k] : used[k] + block.mul].T
                pieces.append((cut * math.sqrt(matrices[k].shape[1])).flatten())
                used[k] += block.mul
    _put(linear.weight, torch.cat(pieces), f"{name} weights")
    if linear.bias is not None:
        _put(linear.bias, torch.cat(list(biases)), f"{name} biases")


def _fill_nonlinearity(layer: Layer, left: _Left, scope: str) -> None:
    if isinstance(layer.nonlinearity, Nonlinearity) and layer.nonlinearity.bias is not None:
        left.take(f"{scope}/L0/tensor_0/biases")  # saved, and never used
        _put(layer.nonlinearity.bias, left.take(f"{scope}/L1/tensor_0/biases"), scope)
