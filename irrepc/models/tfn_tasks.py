"""What a tensor field network is asked for: the energies of atoms, or the class of each structure."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.models.nequip import ScaleShift
from irrepc.models.tfn import TFN, TFNConfig, draw, shifted_softplus
from irrepc.nn.graph import Graph
from irrepc.nn.linear import Linear


class TFNEnergy(nn.Module):
    """Energies of atoms: E_i = σ_t (w₂ · ssp(W₁ x_i + b₁) + b₂) + μ_t of the last 0e features x.

    Arguments as those of TFN; the last scale and shift are in float64. Raises InputError for a cutoff that is not
    finite: a periodic crystal has no complete graph.
    """

    def __init__(
        self, config: TFNConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        if not math.isfinite(config.cutoff):
            raise InputError(f"TFNEnergy: got cutoff = {config.cutoff}; expected a finite number of Å")
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        self.field = TFN(config, backend, dtype=dtype, seed=seed)
        self.hidden = readout(self.field, config.readout)
        self.last = Linear(f"{config.readout}x0e", "1x0e", bias=True)
        count = len(config.species)
        self.scale_shift = ScaleShift(config.scales or (1.0,) * count, config.shifts or (0.0,) * count)
        draw(self.to(dtype), seed)

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights."""
        energies = self.last(shifted_softplus(self.hidden(self.field(graph)))).squeeze(1)
        out: Tensor = self.scale_shift(energies, graph.species)
        return out


class TFNClassifier(nn.Module):
    """Scores of `classes` classes for each structure: W · mean over points of the last 0e features, + b."""

    def __init__(
        self,
        config: TFNConfig,
        classes: int,
        backend: str = "auto",
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.field = TFN(config, backend, dtype=dtype, seed=seed)
        self.scores = readout(self.field, classes)
        draw(self.to(dtype), seed)

    def forward(self, graph: Graph) -> Tensor:
        """(B, classes) scores, logits of a softmax. A structure without points has the score of zero features."""
        x = self.field(graph)
        total = x.new_zeros(graph.num_graphs, x.shape[1]).index_add(0, graph.batch, x)
        count = x.new_zeros(graph.num_graphs).index_add(0, graph.batch, x.new_ones(graph.num_atoms))
        out: Tensor = self.scores(total / count.clamp(min=1.0).unsqueeze(1))
        return out


def readout(field: TFN, channels: int) -> Linear:
    """The linear map from the last 0e features, which there must be (InputError), to `channels` numbers with bias."""
    if "0e" not in field.irreps_out:
        raise InputError(f"TFN: got last features {field.irreps_out}; expected some 0e to read; add them")
    return Linear(field.irreps_out, f"{channels}x0e", bias=True)
