"""The network of a training: made for the frames' statistics, or a trained one, moved to them, with frozen parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from irrepc.errors import InputError, IrrepcError
from irrepc.models.checkpoint import Network, load_model
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_config import EquiformerConfig
from irrepc.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from irrepc.models.esen import ESEN, DirectESEN, ESENConfig
from irrepc.models.mace import MACE, MACEConfig
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.potential import predict
from irrepc.models.tfn import TFNConfig
from irrepc.models.tfn_tasks import TFNEnergy
from irrepc.train.batches import join
from irrepc.train.configuration import convert
from irrepc.train.order import Graphs
from irrepc.train.settings import ModelSettings
from irrepc.train.statistics import Statistics, compositions

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_LOOKED_AT = 200  # training frames from which the energies of species are moved


@dataclass(frozen=True, slots=True)
class _Kind:
    """A network, its configuration, and which of its fields take which statistics."""

    network: Any  # a class of irrepc.models
    config: Any
    neighbours: str
    atoms: str
    per_species: bool  # scales and shifts for each species, references among the shifts


_KINDS = {
    "nequip": _Kind(NequIP, NequIPConfig, "avg_num_neighbors", "", True),
    "mace": _Kind(MACE, MACEConfig, "avg_num_neighbors", "", False),
    "esen": _Kind(ESEN, ESENConfig, "", "", True),
    "esen_direct": _Kind(DirectESEN, ESENConfig, "", "", True),
    "equiformer": _Kind(Equiformer, EquiformerConfig, "avg_num_neighbors", "avg_num_atoms", True),
    "equiformer_v2": _Kind(EquiformerV2, EquiformerV2Config, "neighbours", "atoms", True),
    "tfn": _Kind(TFNEnergy, TFNConfig, "avg_num_neighbors", "", True),
}
_TAKEN = ("species", "cutoff", "scales", "shifts", "energies")


def make_network(settings: ModelSettings, found: Statistics, seed: int) -> Network:
    """A fresh network for these statistics, or the trained one of settings.start, in the asked dtype.

    A fresh network gets the species and mean neighbours, the reference energies (shifts), and as scale the root mean
    square of the forces times 1 Å, so that its first forces are of about the right size (Batzner 2022, methods).
    Raises InputError for options its configuration does not have, and for species a trained model does not know.
    """
    dtype = DTYPES[settings.dtype]
    if settings.start is not None:
        model = load_model(settings.start, settings.backend, dtype=dtype)
        if unknown := sorted(set(found.species) - set(model.species)):
            raise InputError(
                f"model.start: got {settings.start} for atomic numbers {list(model.species)}; expected {unknown} too, "
                "which the frames hold; take a model that knows them"
            )
        return model.train()
    kind = _KINDS[settings.network]
    options = _options(settings, kind)
    count, scale = len(found.species), found.force_scale
    taken: dict[str, Any] = {"species": found.species, "cutoff": settings.cutoff}
    for field, value in ((kind.neighbours, found.neighbours), (kind.atoms, found.atoms)):
        if field:
            taken.setdefault(field, value)
    if kind.per_species:
        # what is divided by √atoms (Equiformer) or atoms (EquiformerV2) inside is multiplied back
        shifts = tuple(energy + found.rest for energy in found.energies)
        taken |= {"scales": (scale,) * count, "shifts": shifts}
    else:
        taken |= {"energies": found.energies, "scales": (scale,), "shifts": (found.rest,)}
    model = kind.network(kind.config(**{**taken, **options}), settings.backend, dtype=dtype, seed=seed)
    trained: Network = model.train()
    return trained


def _options(settings: ModelSettings, kind: _Kind) -> dict[str, Any]:
    """The fields of the configuration that the settings give, of the right types."""
    hints = get_type_hints(kind.config)
    names = [field.name for field in fields(kind.config) if field.name not in _TAKEN]
    if unknown := [name for name in settings.options if name not in names]:
        raise InputError(
            f"settings: got the key model.options.{unknown[0]}; expected, for {settings.network}, one of "
            f"{', '.join(names)}"
        )
    return {name: convert(hints[name], value, f"model.options.{name}") for name, value in settings.options.items()}


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> int:
    """Weights whose names fit a pattern (with * and ?) are no longer trained; how many numbers still are.

    Raises InputError for a pattern that fits no name, and when nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        fitting = [name for name in named if fnmatchcase(name, pattern)]
        if not fitting:
            raise InputError(
                f"model.frozen: got {pattern!r}, which fits no weight; expected some of {', '.join(list(named)[:8])}, …"
            )
        for name in fitting:
            named[name].requires_grad_(False)
    left = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not left:
        raise InputError(f"model.frozen: got {list(patterns)}, which fits every weight; expected some left to train")
    return left


def refit_energies(model: Network, graphs: Graphs) -> dict[int, float]:
    """Move the energies of species so that the model's mean errors on these frames vanish; the moves, eV.

    Least squares over 200 frames spread evenly: Σ (E - E_model - Σ_Z n_Z δ_Z)². Where compositions do not tell species
    apart the solution of smallest norm is taken. Raises InputError for a model without shifts.
    """
    ends = getattr(model, "scale_shift", None)
    if ends is None:
        raise InputError(
            f"model.refit_energies: got {type(model).__name__} without shifts; expected a model that adds energies of "
            "species; set it to false"
        )
    picked = np.unique(np.linspace(0, len(graphs) - 1, min(_LOOKED_AT, len(graphs))).astype(np.int64))
    gaps: list[NDArray[np.float64]] = []
    for index in picked:
        batch = join([graphs[int(index)]])
        gaps.append((batch.energy - predict(model, batch.graph).energy.double()).numpy())
    counts = compositions(graphs.frames, graphs.chosen[picked], model.species)
    moves = np.linalg.lstsq(counts, np.concatenate(gaps), rcond=None)[0]
    if not np.isfinite(moves).all():
        raise IrrepcError("model.refit_energies: got energies that are not finite; expected numbers; check the model")
    with torch.no_grad():  # a model with several heads has the shifts of each, one after the other
        ends.shifts += torch.from_numpy(np.tile(moves, math.ceil(len(ends.shifts) / len(moves))))
    return {z: float(move) for z, move in zip(model.species, moves, strict=True)}
