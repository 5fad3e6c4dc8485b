"""Labelled graphs: frames with their neighbours, made once, and joined into the batches that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from irrepc.models.checkpoint import Network
from irrepc.nn.graph import Graph, batch
from irrepc.nn.neighbours import graph_of, species_of
from irrepc.train.frames import Frames, expect_frames


class Labelled(NamedTuple):
    """A graph of B structures and N atoms with the answers.

    graph   in the dtype of the model
    energy  (B,) eV, float64: total energies need more digits than float32 has
    forces  (N, 3) eV/Å, in the dtype of the graph
    """

    graph: Graph
    energy: Tensor
    forces: Tensor


def label(frames: Frames, model: Network) -> tuple[Labelled, ...]:
    """Each frame as a graph with the model's cutoff, species, dtype and device.

    Raises IrrepcError for no frames, InputError for elements that the model does not know.
    """
    expect_frames(frames, "label")
    weight = next(model.parameters())
    singles = []
    for frame in frames:
        kinds = species_of(frame.numbers, model.species)
        graph = graph_of(kinds, frame.positions, frame.cell, frame.pbc, cutoff=model.cutoff, dtype=weight.dtype)
        energy = torch.tensor([frame.energy], dtype=torch.float64)
        forces = torch.from_numpy(frame.forces.copy()).to(weight.dtype)
        singles.append(Labelled(graph.to(weight.device), energy.to(weight.device), forces.to(weight.device)))
    return tuple(singles)


def join(singles: Sequence[Labelled]) -> Labelled:
    """One batch of several; raises InputError for none."""
    return Labelled(
        batch([single.graph for single in singles]),
        torch.cat([single.energy for single in singles]),
        torch.cat([single.forces for single in singles]),
    )
