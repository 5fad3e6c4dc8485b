"""The arguments of MACE models of the authors' package (mace-torch 0.3): read as our configuration, and written.

What the tensors say is taken from them, and held against the arguments; only avg_num_neighbors and gate leave no trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.models.mace import MACEConfig
from irrepc.nn.gate import ACTIVATIONS

# options that change the network without a trace in the tensors: only these values are ours
_REFUSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("use_so3", (None, False)),
    ("use_last_readout_only", (None, False)),
    ("use_agnostic_product", (None, False)),
    ("use_embedding_readout", (None, False)),
    ("keep_last_layer_irreps", (None, False)),
    ("apply_cutoff", (None, True)),
    ("radial_type", (None, "bessel")),
)
# (residual, density) of an interaction block, by the name of its class
_BLOCKS = {
    "RealAgnosticInteractionBlock": (False, False),
    "RealAgnosticResidualInteractionBlock": (True, False),
    "RealAgnosticDensityInteractionBlock": (False, True),
    "RealAgnosticDensityResidualInteractionBlock": (True, True),
}
_TRANSFORMS = {"none": "None", "agnesi": "Agnesi", "soft": "Soft"}
_TRANSFORM = "radial_embedding.distance_transform"
_CONTRACTIONS = "products.0.symmetric_contractions.contractions"


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MACEConfig:
    """The configuration of a state_dict; `config`, the model's arguments, must not contradict it.

    Raises InputError for what we do not have, and where the two disagree.
    """

    def tensor(name: str) -> Tensor:
        if name not in state:
            raise InputError(f"mace: got no {name}; expected the state_dict of a MACE or ScaleShiftMACE of bessels")
        return state[name]

    for name, values in _REFUSED:
        if config.get(name) not in values:
            raise InputError(f"mace: got {name} = {config[name]!r}; expected {values[1]!r}, or nothing said of it")
    species = tuple(int(z) for z in tensor("atomic_numbers"))
    energies = tensor("atomic_energies_fn.atomic_energies").double().reshape(-1)
    heads, channels = energies.numel() // len(species), tensor("node_embedding.linear.weight").numel() // len(species)
    layers = int(tensor("num_interactions"))
    couplings = _couplings(state)
    lmax = math.isqrt(couplings[0][0][-2]) - 1
    first = _block(config, "interaction_cls_first")
    # the residual path has 0e alone, the mixing of the first atomic basis all degrees
    residual = tensor("interactions.0.skip_tp.weight").numel() == len(species) * channels**2
    density = "interactions.0.density_fn.layer0.weight" in state
    if not density and "avg_num_neighbors" not in config:
        raise InputError("mace: got a configuration without avg_num_neighbors; expected it: no tensor tells")
    last = f"readouts.{layers - 1}.linear_1.weight"
    kinds = [kind for part, kind in (("q", "agnesi"), ("alpha", "soft")) if f"{_TRANSFORM}.{part}" in state]
    found = MACEConfig(
        species=species,
        cutoff=float(tensor("radial_embedding.cutoff_fn.r_max")),
        layers=layers,
        lmax=lmax,
        channels=channels,
        degrees=tuple((shapes[0][0] - 1) // 2 if len(shapes[0]) == 3 else 0 for shapes in couplings),
        correlation=len(couplings[0]),
        residual=(first or (residual, density))[0] if lmax == 0 else residual,
        density=density,
        bessels=tensor("radial_embedding.bessel_fn.bessel_weights").numel(),
        cutoff_power=int(tensor("radial_embedding.cutoff_fn.p")),
        transform=kinds[0] if kinds else "none",
        repulsion="pair_repulsion_fn.c" in state,
        radial_widths=_radial_widths(state),
        readout_width=tensor(last).numel() // (channels * heads) if layers > 1 else 16,
        gate=_gate(config.get("gate", "silu")),
        avg_num_neighbors=float(config.get("avg_num_neighbors", 1.0)),
        heads=tuple(config.get("heads") or (("Default",) if heads == 1 else (f"head_{k}" for k in range(heads)))),
        energies=tuple(energies.tolist()),
        scales=tuple(state.get("scale_shift.scale", torch.ones(heads)).double().reshape(-1).tolist()),
        shifts=tuple(state.get("scale_shift.shift", torch.zeros(heads)).double().reshape(-1).tolist()),
        couplings=tuple(shape[-1] for shapes in couplings for shape in shapes),
    )
    _compare(config, found, first)
    return found


def arguments_of(config: MACEConfig) -> dict[str, Any]:
    """The arguments of mace's ScaleShiftMACE of that configuration, as plain data: classes and irreps by name."""
    blocks = {kinds: name for name, kinds in _BLOCKS.items()}
    count, heads = len(config.species), len(config.heads)
    energies = config.energies or (0.0,) * (count * heads)
    by_head = [list(energies[k * count : (k + 1) * count]) for k in range(heads)]
    scales, shifts = list(config.scales or (1.0,) * heads), list(config.shifts or (0.0,) * heads)
    return {
        "class": "ScaleShiftMACE",
        "r_max": config.cutoff,
        "num_bessel": config.bessels,
        "num_polynomial_cutoff": config.cutoff_power,
        "max_ell": config.lmax,
        "interaction_cls": blocks[True, config.density],
        "interaction_cls_first": blocks[config.residual, config.density],
        "num_interactions": config.layers,
        "num_elements": count,
        "hidden_irreps": str(config.irreps(config.degrees)),
        "MLP_irreps": f"{config.readout_width}x0e",
        "atomic_energies": by_head if heads > 1 else by_head[0],
        "avg_num_neighbors": config.avg_num_neighbors,
        "atomic_numbers": list(config.species),
        "correlation": config.correlation,
        "gate": None if config.gate == "none" else config.gate,
        "pair_repulsion": config.repulsion,
        "distance_transform": _TRANSFORMS[config.transform],
        "radial_MLP": list(config.radial_widths),
        "heads": list(config.heads),
        "atomic_inter_scale": scales if heads > 1 else scales[0],
        "atomic_inter_shift": shifts if heads > 1 else shifts[0],
    }


def _compare(config: Mapping[str, Any], found: MACEConfig, first: tuple[bool, bool] | None) -> None:
    """Raise InputError where the arguments say something else than the tensors."""
    hidden = Irreps.of(str(config.get("hidden_irreps", found.irreps(found.degrees)))).simplify()
    if found.layers == 1:  # the only layer keeps its scalars, whatever is asked for
        hidden = Irreps(tuple(hidden)[:1])
    named = {
        "r_max": found.cutoff,
        "num_bessel": found.bessels,
        "num_polynomial_cutoff": found.cutoff_power,
        "max_ell": found.lmax,
        "num_interactions": found.layers,
        "correlation": found.correlation,
        "radial_MLP": list(found.radial_widths),
        "pair_repulsion": found.repulsion,
        "distance_transform": _TRANSFORMS[found.transform],
    }
    said = {name: config[name] for name in named if config.get(name) is not None}
    said |= {"hidden_irreps": str(hidden)}
    named["hidden_irreps"] = str(found.irreps(found.degrees))
    if "MLP_irreps" in config:
        said["MLP_irreps"] = str(Irreps.of(str(config["MLP_irreps"])).simplify())
        named["MLP_irreps"] = f"{found.readout_width}x0e" if found.layers > 1 else said["MLP_irreps"]
    if first is not None:
        said["interaction_cls_first"], named["interaction_cls_first"] = first, (found.residual, found.density)
    later = _block(config, "interaction_cls")
    if later is not None and found.layers > 1:
        said["interaction_cls"], named["interaction_cls"] = later, (True, found.density)
    for name, value in said.items():
        same = abs(value - named[name]) < 1e-6 if name == "r_max" else value == named[name]
        if not same:
            raise InputError(
                f"mace: got {name} = {config.get(name, value)!r} with tensors of {named[name]!r}; expected both alike"
            )


def _couplings(state: Mapping[str, Tensor]) -> list[list[tuple[int, ...]]]:
    """Shapes of U, by output, then ν: ([2L+1,] n, ..., n, k)."""
    found: list[list[tuple[int, ...]]] = []
    while f"{_CONTRACTIONS}.{len(found)}.U_matrix_1" in state:
        shapes: list[tuple[int, ...]] = []
        while (name := f"{_CONTRACTIONS}.{len(found)}.U_matrix_{len(shapes) + 1}") in state:
            shapes.append(tuple(state[name].shape))
        found.append(shapes)
    if not found or any(len(shapes) != len(found[0]) or len(shapes[0]) not in (2, 3) for shapes in found):
        raise InputError(
            f"mace: got U matrices of shapes {found} in {_CONTRACTIONS}; expected one for each output and each ν"
        )
    return found


def _radial_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    widths: list[int] = []
    while (name := f"interactions.0.conv_tp_weights.layer{len(widths)}.weight") in state:
        widths.append(state[name].shape[1])
    return tuple(widths[:-1])


def _block(config: Mapping[str, Any], name: str) -> tuple[bool, bool] | None:
    """Whether an interaction block is residual and whether it has a density, by the name of its class."""
    if name not in config:
        return None
    short = str(config[name]).removesuffix("'>").rsplit(".", 1)[-1]
    if short not in _BLOCKS:
        raise InputError(f"mace: got interaction block {short!r}; expected {', '.join(_BLOCKS)}")
    return _BLOCKS[short]


def _gate(given: Any) -> str:
    """The name of an activation, from itself or from the repr of torch's function."""
    if given is None or given == "None":
        return "none"
    for name in ACTIVATIONS:
        if name in str(given):
            return name
    raise InputError(f"mace: got gate {given!r}; expected {', '.join(ACTIVATIONS)}, or none in the last readout")
