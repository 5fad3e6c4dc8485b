"""Reads SevenNet checkpoints of the authors' package (sevenn), from the file, the package's folder, or its wheel.

A checkpoint is a dict of torch.save with "config" and "model_state_dict"; besides tensors and plain data it holds numpy
arrays. torch's restricted reader takes those and nothing else: no class of the package is imported, no code is run.
Conventions of that package which this file turns into ours:
  * messages are sorted by irrep before Linear₂; ours stay one block a path, so the rows of that weight are put into the
    order of the paths. The columns of the last radial matrix are in the order of the paths up to sevenn 0.10, sorted
    too since 0.11;
  * couplings are stored beside the weights, with the signs of the e3nn that trained them: columns of paths whose sign
    is not ours are multiplied by -1.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.interop.nequip import rows_by_path
from irrepc.interop.pairs import Pair, read
from irrepc.models.sevennet import Interaction, SevenNet, SevenNetConfig
from irrepc.nn.convolution import Convolution

PUBLISHED = {
    "sevennet-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
}
"""The published networks that are read: name -> place in the package's folder of potentials."""
SYNONYMS = {"7net-0": "sevennet-0", "7net-l3i5": "sevennet-l3i5"}
FOLDER = "sevenn/pretrained_potentials"
_CONSTANT = ("output_mask", "_w3j_")
_ARRAY, _SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]  # how numpy says it makes them again
PLAIN: tuple[Any, ...] = (
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),  # up to numpy 1, and since
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
)
# name in the configuration, what it is where the file does not say, the values that we have
_ONLY: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("is_parity", False, (False,)),
    ("_normalize_sph", False, (True,)),
    ("interaction_type", "nequip", ("nequip",)),
    ("self_connection_type", "nequip", ("linear",)),
    ("use_bias_in_linear", False, (False,)),
    ("readout_as_fcn", False, (False,)),
    ("use_modality", False, (False,)),
    ("_number_of_modalities", 0, (0, 1)),
    ("lmax_edge", -1, (-1,)),
    ("lmax_node", -1, (-1,)),
    ("act_radial", "silu", ("silu",)),
)


def load_sevennet(
    source: str | Path, name: str = "", backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> SevenNet:
    """Read a checkpoint; `source` is its file, or a folder or wheel of sevenn, and `name` then one of PUBLISHED.

    Raises FileNotFoundError, or InputError for a file that is none, a name that is not there, and as `sevennet_from`.
    """
    config, state = read_checkpoint(checkpoint_bytes(source, name), str(source))
    return sevennet_from(config, state, backend, dtype=dtype)


def checkpoint_bytes(source: str | Path, name: str = "") -> bytes:
    """The checkpoint's file, out of a folder or a wheel where it lies in one. Errors as `load_sevennet`."""
    place, wanted = Path(source), SYNONYMS.get(name.lower(), name.lower())
    if wanted and wanted not in PUBLISHED:
        raise InputError(f"sevennet: got the name {name!r}; expected one of {', '.join(PUBLISHED)}")
    if place.is_dir():
        roots = [place, place / "pretrained_potentials", place / FOLDER]
        found = {k: r / v for k, v in PUBLISHED.items() for r in roots if (r / v).is_file()}
        return found[_chosen(wanted, found, place)].read_bytes()
    if place.suffix == ".whl":
        try:
            with zipfile.ZipFile(place) as wheel:
                names = set(wheel.namelist())
                inside = {k: f"{FOLDER}/{v}" for k, v in PUBLISHED.items() if f"{FOLDER}/{v}" in names}
                return wheel.read(inside[_chosen(wanted, inside, place)])
        except zipfile.BadZipFile as error:
            raise InputError(f"sevennet: got {place}, a damaged wheel ({error}); expected it whole") from error
    return place.read_bytes()


def read_checkpoint(content: bytes, path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and state_dict of a checkpoint, without running code from it; `path` for messages.

    Raises InputError for another file.
    """
    try:
        with torch.serialization.safe_globals(list(PLAIN)):
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"sevennet: got {path}, which torch cannot read as tensors and plain data ({type(error).__name__}); "
            "expected a checkpoint of sevenn, checkpoint_*.pth, whole"
        ) from error
    if not isinstance(found, dict) or not {"config", "model_state_dict"} <= found.keys():
        raise InputError(
            f"sevennet: got {path} without 'config' and 'model_state_dict'; expected a checkpoint of sevenn"
        )
    return found["config"], found["model_state_dict"]


def sevennet_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> SevenNet:
    """Our SevenNet with the weights of sevenn's model of that configuration.

    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    model = SevenNet(config_from(config, state), backend, dtype=dtype)
    left = {k: v for k, v in state.items() if v.numel() and not any(part in k for part in _CONSTANT)}
    for name in (f"{k}_convolution.denominator" for k in range(model.config.layers)):
        left.pop(name)
    for name in ("scale", "shift"):
        left.pop(f"rescale_atomic_energy.{name}")
    read(_pairs(model), left, "sevennet")
    if left:
        raise InputError(f"sevennet: got tensors {sorted(left)[:5]}; expected none of these names in a plain SevenNet")
    columns_are_sorted = _version(config) >= (0, 11)
    with torch.no_grad():
        for k, layer in enumerate(model.layers):
            assert isinstance(layer, Interaction)
            last = layer.radial.weights[-1]
            if columns_are_sorted:
                last.copy_(last.index_select(1, _columns_by_path(layer.convolution)))
            last.mul_(_signs(layer.convolution, state, f"{k}_convolution.convolution").to(last))
    return model


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SevenNetConfig:
    """The configuration of sevenn's checkpoint as ours; numbers that are tensors there are taken from them.

    Raises InputError for what we do not have.
    """
    for name, default, ours in _ONLY:
        if config.get(name, default) not in ours:
            raise InputError(
                f"sevennet: got {name} = {config.get(name, default)!r}; expected {ours[0]!r}; "
                f"{', '.join(PUBLISHED)} and checkpoints with their options are read"
            )
    for name in ("act_gate", "act_scalar"):
        if dict(config.get(name, {"e": "silu"})).get("e") != "silu":
            raise InputError(f"sevennet: got {name} = {config[name]!r}; expected 'silu' for even scalars")
    layers, lmax = int(config["num_convolution_layer"]), int(config["lmax"])
    radial, envelope = dict(config["radial_basis"]), dict(config["cutoff_function"])
    if radial.get("radial_basis_name", "bessel") != "bessel":
        raise InputError(f"sevennet: got radial basis {radial!r}; expected 'bessel'")
    kinds = {"XPLOR": "xplor", "poly_cut": "polynomial"}
    if envelope.get("cutoff_function_name") not in kinds:
        raise InputError(f"sevennet: got envelope {envelope!r}; expected one of {', '.join(kinds)}")
    numbers = {int(index): int(z) for z, index in dict(config["_type_map"]).items()}
    denominators = [_tensor(state, f"{k}_convolution.denominator") for k in range(layers)]
    scales, shifts = (_tensor(state, f"rescale_atomic_energy.{name}") for name in ("scale", "shift"))
    readout = _tensor(state, "reduce_hidden_to_energy.linear.weight")
    cutoff = float(config["cutoff"])
    return SevenNetConfig(
        species=tuple(numbers[k] for k in range(len(numbers))),
        cutoff=cutoff,
        envelope=kinds[envelope["cutoff_function_name"]],
        cutoff_power=int(envelope.get("poly_cut_p_value", 6)),
        cutoff_on=float(envelope.get("cutoff_on", 0.9 * cutoff)),
        layers=layers,
        lmax=lmax,
        features=_features(config, layers, lmax),
        bessels=int(radial.get("bessel_basis_num", 8)),
        radial_widths=tuple(int(n) for n in config["weight_nn_hidden_neurons"]),
        denominators=tuple(float(d) for d in denominators),
        readout_width=readout.numel(),
        scales=tuple(scales.double().reshape(-1).expand(len(numbers)).tolist()),
        shifts=tuple(shifts.double().reshape(-1).expand(len(numbers)).tolist()),
    )


def _features(config: Mapping[str, Any], layers: int, lmax: int) -> tuple[int, ...]:
    """Copies of each degree; raises InputError where the layers are not alike."""
    given = config.get("irreps_manual")
    if not isinstance(given, list):  # False stands for none
        return (int(config["channel"]),) * (lmax + 1)
    found = [Irreps.of(str(text)) for text in given]
    hidden = found[1] if layers > 1 else found[0]
    features = tuple(block.mul for block in hidden)
    scalars = Irreps.of(f"{features[0]}x0e")
    wanted = [scalars, *[hidden] * (layers - 1), scalars]
    if found != wanted or [(b.irrep.l, b.irrep.p) for b in hidden] != [(l, 1) for l in range(lmax + 1)]:
        raise InputError(
            f"sevennet: got irreps {[str(i) for i in found]}; expected scalars, {layers - 1} times the same even "
            "irreps up to lmax, scalars"
        )
    return features


def _tensor(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise InputError(f"sevennet: got no tensor {name}; expected it; older files (22May2024) are not read")
    return state[name]


def _version(config: Mapping[str, Any]) -> tuple[int, ...]:
    words = str(config.get("version", "0")).split(".")
    return tuple(int(word) for word in words[:2] if word.isdecimal())


def _columns_by_path(convolution: Convolution) -> Tensor:
    """Where, in columns sorted by the irrep of the result, the columns of each path stand; (weight_numel,) int64."""
    order = sorted(range(len(convolution.paths)), key=lambda p: (tuple(convolution.irreps_out)[p].irrep, p))
    place, start = {}, 0
    for p in order:
        width = convolution.weight_slices[p].stop - convolution.weight_slices[p].start
        place[p], start = torch.arange(start, start + width), start + width
    return torch.cat([place[p] for p in range(len(convolution.paths))])


def _signs(convolution: Convolution, state: Mapping[str, Tensor], name: str) -> Tensor:
    """±1 for each column of the last radial matrix: the sign of the stored coupling against ours."""
    stored = {key.rpartition("_w3j_")[2]: v for key, v in state.items() if key.startswith(name) and "_w3j_" in key}
    signs = torch.ones(convolution.weight_numel, dtype=torch.float64)
    outputs = tuple(convolution.irreps_out)
    for p, (path, where) in enumerate(zip(convolution.paths, convolution.weight_slices, strict=True)):
        degrees = (
            tuple(convolution.irreps_in)[path.left].irrep.l,
            tuple(convolution.irreps_edge)[path.right].irrep.l,
            outputs[p].irrep.l,
        )
        if 0 in degrees:
            continue  # unit matrices, the same for all; their packages do not even store them
        key = "_".join(str(l) for l in degrees)
        if key not in stored:
            raise InputError(f"sevennet: got no coupling {key} in {name}; expected it beside the weights, for its sign")
        same = sum(float(value) * float(stored[key][index]) for index, value in w3j(*degrees).items())
        if not 0.999 < abs(same) < 1.001:
            raise InputError(f"sevennet: got a coupling {key} that is not ± ours ({same:.3f}); expected ± 1")
        signs[where] = 1.0 if same > 0 else -1.0
    return signs


def _chosen(name: str, found: Mapping[str, Any], place: Path) -> str:
    if name not in found:
        raise InputError(
            f"sevennet: got {name!r} of {place}; expected the name of one that is there: "
            f"{', '.join(found) or 'none is'}"
        )
    return name


def _pairs(model: SevenNet) -> Iterator[Pair]:
    """Every tensor that has a counterpart of the same numbers."""

    def whole(name: str, ours: Tensor) -> Pair:
        return Pair(name, ours, tuple(ours.shape))

    yield whole("edge_embedding.basis_function.coeffs", model.basis.waves)
    yield whole("onehot_to_feature_x.linear.weight", model.embedding.weight)
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, Interaction)
        second = layer.linear_2
        yield whole(f"{k}_self_connection_intro.linear.weight", layer.self_connection.weight)
        yield whole(f"{k}_self_interaction_1.linear.weight", layer.linear_1.weight)
        for n, weight in enumerate(layer.radial.weights):
            yield whole(f"{k}_convolution.weight_nn.layer{n}.weight", weight)
        rows = rows_by_path(torch.arange(second.weight_numel), second.irreps_in, second.irreps_out)
        yield Pair(f"{k}_self_interaction_2.linear.weight", second.weight, (second.weight_numel,), rows)
    yield whole("reduce_input_to_hidden.linear.weight", model.readout_1.weight)
    yield whole("reduce_hidden_to_energy.linear.weight", model.readout_2.weight)
