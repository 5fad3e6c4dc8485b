"""NequIP and SevenNet as programs: the builders walk the layers of models/nequip.py and models/sevennet.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from irrepc.algebra.irreps import Block, Irrep
from irrepc.deploy.builder import Builder, Part, Tabulation
from irrepc.deploy.program import Embed, Readout
from irrepc.deploy.tables import Float, Radial
from irrepc.errors import InputError
from irrepc.models.nequip import Interaction, NequIP
from irrepc.models.sevennet import Interaction as SevenNetInteraction
from irrepc.models.sevennet import SevenNet
from irrepc.nn.radial import ScalarMLP, polynomial_cutoff

SCALAR = Irrep(0, 1)


def nequip_radials(model: NequIP) -> list[Radial]:
    """What is tabulated: of each layer the weights of its convolution, of distances times the stretch of their pair."""
    config = model.config

    def radial_of(layer: torch.nn.Module) -> Radial:
        assert isinstance(layer, Interaction)

        def values(x: Float) -> Float:
            r = torch.from_numpy(x)
            fade = polynomial_cutoff(r / config.cutoff, config.cutoff_power)
            found: Float = layer.radial(model.basis(r) * fade.unsqueeze(1)).detach().numpy()
            return found

        return values

    return [radial_of(layer) for layer in model.layers]


def sevennet_radials(model: SevenNet) -> list[Radial]:
    """What is tabulated: of each layer the weights of its convolution."""

    def radial_of(layer: torch.nn.Module) -> Radial:
        assert isinstance(layer, SevenNetInteraction)

        def values(x: Float) -> Float:
            found: Float = layer.radial(model.radial_features(torch.from_numpy(x))).detach().numpy()
            return found

        return values

    return [radial_of(layer) for layer in model.layers]


def build_nequip(model: NequIP, tabulation: Tabulation, dtype: str) -> Builder:
    """The forward steps of a NequIP, in float64; raises InputError for a network with nuclear repulsion."""
    if model.repulsion is not None:
        raise InputError("deploy: got a NequIP with nuclear repulsion; expected one without; use the exact engine")
    config, embedding = model.config, model.embedding.weight
    builder, radials = Builder(dtype), nequip_radials(model)
    builder.geometry(1, config.lmax)
    stretch = np.ones(len(config.species) ** 2) if model.stretch is None else model.stretch.numpy().ravel()
    builder.locate(stretch, np.zeros(len(stretch), dtype=np.int64), tabulation)

    shares = None if model.shares is None else model.shares.detach()
    x: tuple[Part, ...] = ()
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, Interaction)
        if k == 0:
            made = layer.linear_1(embedding)
            sent = builder.embedded("sent_0", made if shares is None else made * shares)
        else:
            row = builder.features(f"sent_{k}", layer.linear_1.irreps_in)
            sent = row[0].place.buffer
            matrices: Sequence[Tensor] = layer.linear_1.matrices()
            if shares is not None:
                matrices = [m * shares[:, :, None] for m in matrices]
            builder.products(f"linear_1_{k}", matrices, x, row, add=False, by_species=shares is not None)
        table = builder.table(f"radial_{k}", [radials[k]], tabulation)
        m = builder.convolution(f"m_{k}", layer.convolution, sent, table, tabulation.degree)
        y = builder.apart(f"y_{k}", layer.gate.irreps_in)
        builder.linear(f"linear_2_{k}", layer.linear_2, m, y)
        if layer.self_connection is not None:
            builder.species_linear(f"own_{k}", layer.self_connection, embedding, x, y, add=True)
        x = builder.gate(f"x_{k}", layer.gate, y)
    last = perceptron(builder, "readout", model.readout, x)
    scales, shifts = model.scale_shift.scales, model.scale_shift.shifts
    read_out(builder, last, scales, shifts)
    return builder


def build_sevennet(model: SevenNet, tabulation: Tabulation, dtype: str) -> Builder:
    """The forward steps of a SevenNet, in float64."""
    embedding = model.embedding.weight * (1 / math.sqrt(len(model.species)))
    builder, radials = Builder(dtype), sevennet_radials(model)
    builder.geometry(1, model.config.lmax)
    pairs = len(model.species) ** 2
    builder.locate(np.ones(pairs), np.zeros(pairs, dtype=np.int64), tabulation)

    x: tuple[Part, ...] = ()
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, SevenNetInteraction)
        kept = None
        if k == 0:  # before any message an atom is its species: what it sends and keeps is a constant of each
            made, kept = layer.own(embedding)
            sent = builder.embedded("sent_0", made)
        else:
            row = builder.features(f"sent_{k}", layer.linear_1.irreps_in)
            sent = row[0].place.buffer
            builder.linear(f"linear_1_{k}", layer.linear_1, x, row)
        table = builder.table(f"radial_{k}", [radials[k]], tabulation)
        m = builder.convolution(f"m_{k}", layer.convolution, sent, table, tabulation.degree)
        y = builder.apart(f"y_{k}", layer.gate.irreps_in)
        builder.linear(f"linear_2_{k}", layer.linear_2, m, y)
        if kept is None:
            builder.linear(f"own_{k}", layer.self_connection, x, y, add=True)
        else:  # only the scalars hold something
            parts = kept.split_with_sizes([b.dim for b in layer.gate.irreps_in], 1)
            for part, values in zip(y, parts, strict=True):
                if part.block.irrep.l == 0:
                    builder.steps.append(Embed(builder.constant(f"own_0_{part.block}", values), part.place, True))
        x = builder.gate(f"x_{k}", layer.gate, y)
    whole = model.readout_1.matrices()[0] @ model.readout_2.matrices()[0]
    last = Part(Block(1, SCALAR), builder.buffer("total", 1))
    builder.products("readout", [whole], x, (last,), add=False)
    read_out(builder, last, model.scale_shift.scales, model.scale_shift.shifts)
    return builder


def perceptron(builder: Builder, name: str, module: ScalarMLP, x: Sequence[Part]) -> Part:
    """A perceptron with SiLU between its matrices, on scalars."""
    matrices = module.matrices()
    for k, matrix in enumerate(matrices):
        y = Part(Block(matrix.shape[1], SCALAR), builder.buffer(f"{name}_{k}", matrix.shape[1]))
        builder.products(f"{name}_w{k}", [matrix], x, (y,), add=False)
        x = (y,) if k == len(matrices) - 1 else (builder.activated(f"{name}_a{k}", y, "silu", 1.0),)
    return x[0]


def read_out(builder: Builder, x: Part, scales: Tensor, shifts: Tensor) -> None:
    """Energies of atoms from the last scalar."""
    builder.buffer("energies", 1, "node", "float64")
    names = (builder.exact(n, v.detach().double()) for n, v in (("scales", scales), ("shifts", shifts)))
    builder.steps.append(Readout(x.place, "energies", *names))
