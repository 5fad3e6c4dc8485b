"""MACE as a program: the builder walks the layers of models/mace.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from irrepc.algebra.irreps import Block, Irrep
from irrepc.deploy.builder import Builder, Part, Tabulation
from irrepc.deploy.program import Call, Embed, Readout
from irrepc.deploy.tables import Float, Radial
from irrepc.errors import InputError
from irrepc.models.mace import MACE, Interaction
from irrepc.models.mace import Readout as Perceptron
from irrepc.nn.gate import ACTIVATIONS
from irrepc.nn.linear import Linear
from irrepc.nn.radial import polynomial_cutoff

SCALAR = Irrep(0, 1)
MOST_TABLES = 128


def mace_radials(model: MACE) -> list[Radial]:
    """What is tabulated: of each layer, for each pair of species that has a table, the weights of its convolution."""
    pairs = _pairs(model)
    if len(pairs) > MOST_TABLES:
        raise InputError(
            f"deploy: got a MACE whose radial functions differ for {len(pairs)} pairs of species; expected at most "
            f"{MOST_TABLES}, each has a table; use the exact engine, or a network of fewer elements"
        )
    return [_radial_of(model, layer, pair) for layer in model.layers for pair in pairs]


def build_mace(model: MACE, tabulation: Tabulation, dtype: str) -> Builder:
    """The forward steps of a MACE, in float64, for the head that speaks.

    Raises InputError for a network with a density, with nuclear repulsion, or with too many pairs of species.
    """
    config = model.config
    for name in ("density", "repulsion"):
        if getattr(config, name):
            raise InputError(f"deploy: got a MACE with {name}; expected one without; use the exact engine")
    count, builder = len(config.species), Builder(dtype)
    builder.geometry(-1, config.lmax)
    tables, radials = _pairs(model), mace_radials(model)
    first = np.array([tables.index(pair) for pair in _unordered(model)]) * tabulation.rows
    builder.locate(np.ones(count**2), first, tabulation)
    kinds = torch.eye(count, dtype=torch.float64)
    embedding = model.embedding / math.sqrt(count)
    total = Part(Block(1, SCALAR), builder.buffer("total", 1))
    x: tuple[Part, ...] = ()
    for k, (layer, readout) in enumerate(zip(model.layers, model.readouts, strict=True)):
        assert isinstance(layer, Interaction)
        kept = None
        if k == 0:  # before any message an atom is its species: what it sends and keeps is a constant of each
            made, kept = layer.own(embedding, kinds)
            sent = builder.embedded("sent_0", made)
        else:
            row = builder.features(f"sent_{k}", layer.linear_up.irreps_in)
            sent = row[0].place.buffer
            builder.linear(f"linear_up_{k}", layer.linear_up, x, row)
        functions = radials[k * len(tables) : (k + 1) * len(tables)]
        table = builder.table(f"radial_{k}", functions, tabulation)
        m = builder.convolution(f"m_{k}", layer.convolution, sent, table, tabulation.degree)
        a = builder.features(f"a_{k}", layer.linear.irreps_out)
        if layer.residual:
            builder.linear(f"linear_{k}", layer.linear, m, a)
        else:
            builder.products(f"linear_{k}", _mixed(layer, kinds), m, a, add=False, by_species=True)
        b = builder.features(f"b_{k}", layer.irreps_out)
        contraction = layer.contraction
        coefficients = builder.constant(f"couplings_{k}", contraction.coefficients())
        inputs, outputs = (a[0].place.buffer, coefficients), (b[0].place.buffer,)
        builder.steps.append(Call(contraction.recipe, 0, inputs, outputs, ("species",), (config.channels,)))
        following = builder.features(f"x_{k}", layer.irreps_out)
        builder.linear(f"product_{k}", layer.product, b, following)
        if kept is not None:
            for part, values in zip(
                following, kept.split_with_sizes([b.dim for b in layer.irreps_out], 1), strict=True
            ):
                if part.block.irrep.l == 0:
                    builder.steps.append(Embed(builder.constant("kept_0", values), part.place, True))
        elif layer.residual:
            builder.species_linear(f"skip_{k}", layer.skip, kinds, x, following, add=True)
        x = following
        _read(builder, f"readout_{k}", readout, model, x, total, add=k > 0)
    builder.buffer("energies", 1, "node", "float64")
    own = slice(model.head * count, (model.head + 1) * count)
    scales = builder.exact("scales", model.scale_shift.scales[own])
    shifts = builder.exact("shifts", model.scale_shift.shifts[own])
    builder.steps.append(Readout(total.place, "energies", scales, shifts))
    return builder


def _unordered(model: MACE) -> list[tuple[int, int]]:
    """For each pair (centre, neighbour), flat, the pair of species whose table it reads."""
    count = len(model.species)
    if model.transform is None:
        return [(0, 0)] * count**2
    return [(min(i, j), max(i, j)) for i in range(count) for j in range(count)]


def _pairs(model: MACE) -> list[tuple[int, int]]:
    """The pairs of species that have tables of their own."""
    return sorted(set(_unordered(model)))


def _radial_of(model: MACE, layer: torch.nn.Module, pair: tuple[int, int]) -> Radial:
    """Distances -> the weights of a layer's convolution, for two species."""
    assert isinstance(layer, Interaction)

    def values(x: Float) -> Float:
        r = torch.from_numpy(x)
        fade = model.gain * polynomial_cutoff(r / model.cutoff, model.config.cutoff_power)
        if model.transform is not None:
            i, j = (torch.full(r.shape, kind, dtype=torch.int64) for kind in pair)
            r = model.transform(r, i, j)
        found: Float = layer.radial(model.basis(r) * fade.unsqueeze(1)).detach().numpy()
        return found

    return values


def _mixed(layer: Interaction, kinds: Tensor) -> list[Tensor]:
    """The linear map of the messages and the mixing by species after it, as one matrix for each species."""
    count = len(kinds)
    mixing = [m.reshape(count, m.shape[0] // count, -1) for m in layer.skip.matrices(kinds)]
    return [first @ second for first, second in zip(layer.linear.matrices(), mixing, strict=True)]


def _read(
    builder: Builder, name: str, readout: torch.nn.Module, model: MACE, x: Sequence[Part], total: Part, *, add: bool
) -> None:
    """total (+)= what a readout says for the head that speaks."""
    head, width = model.head, model.config.readout_width
    if isinstance(readout, Linear):
        builder.products(name, [readout.matrices()[0][:, head : head + 1]], x, (total,), add=add)
        return
    assert isinstance(readout, Perceptron)
    own = slice(head * width, (head + 1) * width)
    first, second = readout.linear_1.matrices()[0][:, own], readout.linear_2.matrices()[0][own, head : head + 1]
    gate = model.config.gate
    if gate == "none":
        builder.products(name, [first @ second], x, (total,), add=add)
        return
    hidden = Part(Block(width, SCALAR), builder.buffer(f"{name}_hidden", width))
    builder.products(f"{name}_1", [first], x, (hidden,), add=False)
    active = builder.activated(f"{name}_active", hidden, gate, ACTIVATIONS[gate].gain)
    builder.products(f"{name}_2", [second], (active,), (total,), add=add)
