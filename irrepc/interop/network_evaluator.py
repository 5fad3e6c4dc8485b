"""NetworkEvaluator: a torch network asked for energies, forces and stress of structures given as plain arrays."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import InputError
from irrepc.models.checkpoint import Network
from irrepc.models.mace import MACE
from irrepc.models.nequip import NequIP
from irrepc.models.potential import DirectForces, predict
from irrepc.models.sevennet import SevenNet
from irrepc.nn.neighbours import SkinList, neighbours, species_of

Float = NDArray[np.float64]


class Answer(NamedTuple):
    """What a network says of one structure of N atoms, in float64.

    energy    eV
    energies  (N,) eV, each atom's share
    forces    (N, 3) eV/Å
    stress    (3, 3) eV/Å³, symmetric, tension positive; None without a periodic direction or a volume, and for a
              network with a force head
    """

    energy: float
    energies: Float
    forces: Float
    stress: Float | None


class NetworkEvaluator:
    """A copy of a network, so that later changes to it do not reach the evaluator, and its list of neighbours.

    device  where it runs
    dtype   of the arithmetic; the network's own unless given
    skin    Å: neighbours are searched anew only after an atom has moved half of it, or the cell has changed
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
    ) -> None:
        self.model = copy.deepcopy(network).to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.species, self.cutoff = network.species, float(network.cutoff)
        self.device, self.dtype = torch.device(device), next(self.model.parameters()).dtype
        # these take distances of positions in float64 before they round, whatever their weights are
        exact = isinstance(network, SevenNet | NequIP | MACE)
        self.positions_dtype = torch.float64 if exact else self.dtype
        self.pairs = SkinList(self.cutoff, skin)

    def evaluate(
        self,
        numbers: ArrayLike,
        positions: ArrayLike,
        cell: ArrayLike | None = None,
        pbc: bool | Sequence[bool] = False,
    ) -> Answer:
        """Atomic numbers (N,), positions (N, 3) Å, cell (3, 3) Å, rows are vectors.

        Raises InputError for elements that the network does not know, and as `neighbours` does.
        """
        kinds = species_of(numbers, self.species)
        graph = self.pairs.graph(kinds, positions, cell, pbc, dtype=self.positions_dtype)
        solid = bool(np.any(pbc)) and cell is not None and abs(np.linalg.det(np.asarray(cell))) > 0
        found = predict(self.model, graph.to(self.device), stress=solid and not isinstance(self.model, DirectForces))
        return Answer(
            float(found.energy),
            found.energies.double().cpu().numpy(),
            found.forces.double().cpu().numpy(),
            None if found.stress is None else found.stress[0].double().cpu().numpy(),
        )

    def check(self, positions: ArrayLike, cell: ArrayLike | None, pbc: bool | Sequence[bool], closest: float) -> None:
        """Raise InputError for a structure without meaning: as `neighbours`, and atoms nearer than `closest` (Å)."""
        pairs = neighbours(positions, cell, pbc, cutoff=closest)
        if len(pairs.receivers):
            raise InputError(
                f"structure: got atoms {pairs.receivers[0]} and {pairs.senders[0]} nearer than {closest} Å; expected a "
                "bond length at least; give positions and cell in Å, or remove the double"
            )
