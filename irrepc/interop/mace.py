"""Reads MACE networks of the authors' package (mace-torch 0.3): a configuration and a state_dict become our MACE.

The configuration holds the arguments of MACE or ScaleShiftMACE as plain data, and "class", which of the two it is.
Conventions of that package which this file turns into ours:
  * messages are sorted by irrep, and so are the columns of the last radial matrix and the rows of `linear`; ours stay
    one block a path, in the order of the paths;
  * U matrices are dense arrays over all ν factors; ours are summed over the permutations of the factors. They are
    read from the file, as are the numbers of couplings: there are two bases, and signs that depend on e3nn's version;
  * weights_max belongs to ν = correlation, weights.s to ν = correlation - 1 - s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.interop.nequip import rows_by_path
from irrepc.models.mace import MACE, Interaction, MACEConfig
from irrepc.nn.contraction import SymmetricContraction, collapsed
from irrepc.nn.linear import Linear
from irrepc.nn.radial import ScalarMLP

_CONSTANT = ("output_mask", "_w3j_", "_zeroed")
# said by the configuration, or by tensors that are read by name before the rest
_KNOWN = (
    "atomic_numbers",
    "r_max",
    "num_interactions",
    "radial_embedding.bessel_fn.r_max",
    "radial_embedding.bessel_fn.prefactor",
    "radial_embedding.cutoff_fn.p",
    "radial_embedding.cutoff_fn.r_max",
    "heads",
)
# options that change the network without a trace in the tensors' names: only these values are ours
_REFUSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("pair_repulsion", (None, False)),
    ("use_so3", (None, False)),
    ("use_last_readout_only", (None, False)),
    ("use_agnostic_product", (None, False)),
    ("apply_cutoff", (None, True)),
    ("distance_transform", (None, "None")),
    ("radial_type", (None, "bessel")),
)
_BLOCKS = {"RealAgnosticResidualInteractionBlock": True, "RealAgnosticInteractionBlock": False}


def load_mace(
    tensors: str | Path, config: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> MACE:
    """Read a state_dict saved with numpy.savez and a configuration saved as JSON; no code of either is run.

    Raises FileNotFoundError, or InputError for files that are none, and as `mace_from`.
    """
    with open(tensors, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                state = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
        except (ValueError, OSError, EOFError, AttributeError, TypeError) as error:
            raise InputError(
                f"load_mace: got {tensors}, which numpy cannot read as plain arrays ({type(error).__name__}); expected "
                "a .npz; do, where mace is installed: numpy.savez(file, **model.cpu().state_dict())"
            ) from error
    try:
        given = json.loads(Path(config).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"load_mace: got {config}, which is no JSON: {error}; expected the model's arguments"
        ) from error
    return mace_from(given, state, backend, dtype=dtype)


def mace_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> MACE:
    """Our MACE with the weights of mace's model of that configuration.

    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    ours = config_from(config, state)
    model = MACE(ours, backend, dtype=dtype)
    left = {
        name: tensor
        for name, tensor in state.items()
        if tensor.numel() and name not in _KNOWN and not any(part in name for part in _CONSTANT)
    }

    def take(name: str, like: Tensor) -> Tensor:
        if name not in left or left[name].numel() != like.numel():
            got = tuple(left[name].shape) if name in left else "nothing"
            raise InputError(f"mace: got {got} for {name}; expected {like.numel()} numbers, by the configuration")
        return left.pop(name).reshape(like.shape)

    def fill(tensor: Tensor, name: str) -> None:
        tensor.copy_(take(name, tensor))

    def fill_interaction(layer: Interaction, name: str) -> None:
        fill(layer.linear_up.weight, f"{name}.linear_up.weight")
        fill(layer.skip.weight, f"{name}.skip_tp.weight")
        for k, weight in enumerate(layer.radial.weights):
            fill(weight, f"{name}.conv_tp_weights.layer{k}.weight")
        last = layer.radial.weights[-1]
        last.copy_(last.index_select(1, columns_by_path(layer.convolution.irreps_out)))
        joined = take(f"{name}.linear.weight", layer.linear.weight)
        layer.linear.weight.copy_(rows_by_path(joined, layer.linear.irreps_in, layer.linear.irreps_out))

    def fill_contraction(layer: SymmetricContraction, name: str) -> None:
        for (degree, nu), weight in zip(layer.keys, layer.weights, strict=True):
            part = f"{name}.{layer.degrees.index(degree)}"
            place = "weights_max" if nu == layer.correlation else f"weights.{layer.correlation - 1 - nu}"
            fill(weight, f"{part}.{place}")
            u = left.pop(f"{part}.U_matrix_{nu}", torch.zeros(0))
            layer.coupling(degree, nu).copy_(collapsed(u.double(), layer.lmax, degree))

    with torch.no_grad():
        roots = take("radial_embedding.bessel_fn.bessel_weights", model.basis.roots)
        model.basis.roots.copy_(roots.double() * (model.cutoff / math.pi))
        fill(model.embedding, "node_embedding.linear.weight")
        for k, (layer, readout) in enumerate(zip(model.layers, model.readouts, strict=True)):
            assert isinstance(layer, Interaction)
            fill_interaction(layer, f"interactions.{k}")
            fill_contraction(layer.contraction, f"products.{k}.symmetric_contractions.contractions")
            fill(layer.product.weight, f"products.{k}.linear.weight")
            if isinstance(readout, ScalarMLP):
                for n, weight in enumerate(readout.weights):
                    fill(weight, f"readouts.{k}.linear_{n + 1}.weight")
            else:
                assert isinstance(readout, Linear)
                fill(readout.weight, f"readouts.{k}.linear.weight")
        shift = float(left.pop("scale_shift.shift", torch.tensor(0.0)))
        scale = float(left.pop("scale_shift.scale", torch.tensor(1.0)))
        energies = left.pop("atomic_energies_fn.atomic_energies")
        model.scale_shift.scales.fill_(scale)
        model.scale_shift.shifts.copy_(energies.double().reshape(-1) + shift)
    if left:
        raise InputError(f"mace: got tensors {sorted(left)}; expected none of these names in a plain MACE model")
    return model


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MACEConfig:
    """The arguments of mace's model as ours; what the tensors say too is taken from them.

    Raises InputError for what we do not have, and where the two disagree.
    """
    wanted = {"r_max", "max_ell", "num_interactions", "hidden_irreps", "MLP_irreps", "correlation", "interaction_cls"}
    missing = sorted((wanted | {"interaction_cls_first", "avg_num_neighbors"}) - config.keys())
    if missing:
        raise InputError(f"mace: got a configuration without {', '.join(missing)}; expected all arguments of the model")
    numbers = state.get("atomic_numbers")
    energies = state.get("atomic_energies_fn.atomic_energies")
    if numbers is None or energies is None or energies.numel() != numbers.numel():
        raise InputError("mace: got tensors without one E0 for each of atomic_numbers; expected a model of one head")
    hidden = Irreps.of(str(config["hidden_irreps"])).simplify()
    readout = Irreps.of(str(config["MLP_irreps"]))
    natural = all(b.irrep.p == (-1) ** b.irrep.l and b.mul == hidden[0].mul for b in hidden)
    if not natural or [str(b.irrep) for b in readout] != ["0e"]:
        raise InputError(
            f"mace: got hidden irreps {hidden} and MLP irreps {readout}; expected natural parity with the same number "
            "of channels, and scalars"
        )
    for name, ours in _REFUSED:
        if config.get(name) not in ours:
            raise InputError(f"mace: got {name} = {config[name]!r}; expected {ours[1]!r}, or nothing said of it")
    if "silu" not in str(config.get("gate", "silu")):
        raise InputError(f"mace: got gate {config['gate']!r}; expected silu in the last readout")
    if _block(config["interaction_cls"]) is not True:
        raise InputError("mace: got a model whose later layers are not residual; expected RealAgnosticResidual blocks")
    correlation = config["correlation"]
    if not isinstance(correlation, int):
        raise InputError(f"mace: got correlation {correlation!r}; expected one number for all layers")
    cutoff = float(config["r_max"])
    for name in ("r_max", "radial_embedding.bessel_fn.r_max"):
        if name in state and abs(float(state[name]) - cutoff) > 1e-6:
            raise InputError(f"mace: got {name} = {float(state[name])} in the tensors; expected that of {cutoff} Å")
    power = state.get("radial_embedding.cutoff_fn.p", torch.tensor(int(config.get("num_polynomial_cutoff", 5))))
    degrees = tuple(b.irrep.l for b in hidden)
    return MACEConfig(
        species=tuple(int(z) for z in numbers),
        cutoff=cutoff,
        layers=int(config["num_interactions"]),
        lmax=int(config["max_ell"]),
        channels=hidden[0].mul,
        degrees=degrees,
        correlation=correlation,
        residual=_block(config["interaction_cls_first"]),
        bessels=int(config.get("num_bessel", 8)),
        cutoff_power=int(power),
        radial_widths=tuple(int(n) for n in config.get("radial_MLP") or (64, 64, 64)),
        readout_width=readout[0].mul,
        avg_num_neighbors=float(config["avg_num_neighbors"]),
        energies=tuple(float(e) for e in energies.reshape(-1)),
        scale=float(state.get("scale_shift.scale", torch.tensor(1.0))),
        shift=float(state.get("scale_shift.shift", torch.tensor(0.0))),
        couplings=_couplings(state, len(degrees), correlation),
    )


def columns_by_path(paths: Irreps) -> Tensor:
    """For each weight of `paths`, in their order, its column among the weights sorted by irrep (stable)."""
    order = sorted(range(len(paths)), key=lambda k: (paths[k].irrep.l, paths[k].irrep.p))
    starts, start = {}, 0
    for k in order:
        starts[k] = start
        start += paths[k].mul
    return torch.cat([torch.arange(starts[k], starts[k] + block.mul) for k, block in enumerate(paths)])


def _couplings(state: Mapping[str, Tensor], outputs: int, correlation: int) -> tuple[int, ...]:
    """The numbers of couplings in the file: by output, then ν."""
    found = []
    for n in range(outputs):
        for nu in range(1, correlation + 1):
            name = f"products.0.symmetric_contractions.contractions.{n}.U_matrix_{nu}"
            if name not in state:
                raise InputError(f"mace: got no {name}; expected U for each output and each ν up to the correlation")
            found.append(state[name].shape[-1])
    return tuple(found)


def _block(name: Any) -> bool:
    """Whether an interaction block is residual, by the name of its class."""
    short = str(name).removesuffix("'>").rsplit(".", 1)[-1]
    if short not in _BLOCKS:
        raise InputError(f"mace: got interaction block {short!r}; expected {' or '.join(_BLOCKS)}")
    return _BLOCKS[short]
