"""Labelled graphs: frames with their neighbours, made once, and joined into the batches that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from irrepc.models.checkpoint import Network
from irrepc.nn.graph import Graph, batch
from irrepc.nn.neighbours import graph_of, species_of
from irrepc.train.frames import Frames, expect_frames, forces_or_nan


class Labelled(NamedTuple):
    """A graph of B structures and N atoms with the answers; NaN where there is none.

    graph   in the dtype of the model
    energy  (B,) eV, float64: total energies need more digits than float32 has
    forces  (N, 3) eV/Å, in the dtype of the graph
    stress  (B, 3, 3) eV/Å³, in the dtype of the graph
    origin  (B,) int64, the frames' places in their file
    """

    graph: Graph
    energy: Tensor
    forces: Tensor
    stress: Tensor
    origin: Tensor

    def to(self, device: torch.device | str) -> Labelled:
        """The same on another device."""
        return Labelled(self.graph.to(device), *(tensor.to(device) for tensor in self[1:]))


def label(frames: Frames, model: Network) -> tuple[Labelled, ...]:
    """Each frame as a graph with the model's cutoff, species, dtype and device.

    Raises IrrepcError for no frames, InputError for elements that the model does not know.
    """
    expect_frames(frames, "label")
    weight = next(model.parameters())
    absent = torch.full((1, 3, 3), torch.nan, dtype=weight.dtype)
    singles = []
    for number, frame in enumerate(frames):
        kinds = species_of(frame.numbers, model.species)
        graph = graph_of(kinds, frame.positions, frame.cell, frame.pbc, cutoff=model.cutoff, dtype=weight.dtype)
        energy = torch.tensor([frame.energy], dtype=torch.float64)
        forces = torch.from_numpy(forces_or_nan(frame).copy()).to(weight.dtype)
        stress = absent if frame.stress is None else torch.from_numpy(frame.stress.copy()).to(weight.dtype)[None]
        singles.append(Labelled(graph, energy, forces, stress, torch.tensor([number])).to(weight.device))
    return tuple(singles)


def join(singles: Sequence[Labelled]) -> Labelled:
    """One batch of several; raises InputError for none."""
    graph = batch([single.graph for single in singles])
    return Labelled(graph, *(torch.cat(tensors) for tensors in zip(*(single[1:] for single in singles), strict=True)))
