"""Reads Equiformer networks of the authors' code: the arguments of the model and a state_dict become our Equiformer.

The arguments are those of GraphAttentionTransformer or GraphAttentionTransformerMD17 as plain data, all irreps said.
What this file turns into ours:
  * signs of the couplings: weights belong to one version of e3nn (the authors' own is 0.4.4), which no tensor tells;
    the rows of radial profiles and the weights of products with paths of opposite sign are multiplied by -1;
  * with linear messages one map gives scores and values, their scalars side by side in each head; ours are two maps;
  * frequencies of the Bessel basis are multiples of π here.
Energies are those of the network: the mean and deviation of the training set are not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.interop.e3nn_signs import path_signs
from irrepc.interop.plain_files import read_arrays, read_settings
from irrepc.models.equiformer import Equiformer, ScalarReadout, TransformerBlock
from irrepc.models.equiformer_config import EquiformerConfig
from irrepc.nn.attention import GraphAttention, LinearValue
from irrepc.nn.block_linear import BlockLinear
from irrepc.nn.depthwise import Depthwise
from irrepc.nn.distance_bases import EnvelopedBessel, ExponentialBasis, RadialProfile, TrainedGaussians
from irrepc.nn.norm import EquivariantLayerNorm

_CONSTANT = ("output_mask", "_w3j_", "atomref", ".gate.")
_NEEDED = {
    "cutoff": "max_radius",
    "layers": "num_layers",
    "features": "irreps_node_embedding",
    "harmonics": "irreps_sh",
    "head": "irreps_head",
    "heads": "num_heads",
    "hidden": "irreps_mlp_mid",
    "outputs": "irreps_feature",
    "basis_size": "number_of_basis",
    "radial_widths": "fc_neurons",
    "nonlinear_messages": "nonlinear_message",
    "rescale_degree": "rescale_degree",
}
_OPTIONAL: dict[str, tuple[str, Any]] = {
    "basis": ("basis_type", "gaussian"),
    "attention_head": ("use_attn_head", False),
    "alpha_drop": ("alpha_drop", 0.2),
    "proj_drop": ("proj_drop", 0.0),
    "out_drop": ("out_drop", 0.0),
    "path_drop": ("drop_path_rate", 0.0),
}
_REFUSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("irreps_node_attr", ("1x0e",)),
    ("irreps_pre_attn", (None, "None")),
    ("norm_layer", ("layer",)),
)
_QM9 = (1, 6, 7, 8, 9)


def load_equiformer(
    tensors: str | Path,
    config: str | Path,
    backend: str = "auto",
    *,
    signs: str,
    dtype: torch.dtype = torch.float64,
) -> Equiformer:
    """Read a state_dict saved with numpy.savez and the arguments of the model saved as JSON; no code of either is run.

    Raises FileNotFoundError, or InputError for files that are none, and as `equiformer_from`.
    """
    state = read_arrays(tensors, "load_equiformer", "do: numpy.savez(file, **model.cpu().state_dict())")
    given = read_settings(config, "load_equiformer", "do: json.dump of the arguments of the model's class")
    return equiformer_from(given, state, backend, signs=signs, dtype=dtype)


def equiformer_from(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    backend: str = "auto",
    *,
    signs: str,
    dtype: torch.dtype = torch.float64,
) -> Equiformer:
    """Our Equiformer with the weights of the authors' model of these arguments, in evaluation mode.

    signs  of the e3nn the weights were trained with: "e3nn-0.4" (all published weights) or "e3nn-0.5" (and later)
    Raises ConventionError for other signs, InputError for an option that we do not have, and for tensors that are
    missing, left over or of another size.
    """
    reader = _Reader(state, signs)
    model = Equiformer(config_from(config, state), backend, dtype=dtype)
    with torch.no_grad():
        reader.fill(model.embedding, "atom_embed.atom_type_lin.tp.weight")
        reader.fill(model.embedding_bias, "atom_embed.atom_type_lin.bias.0")
        reader.basis(model.basis)
        around = model.surroundings
        reader.linear(around.constant, "edge_deg_embed.exp")
        reader.radial(around.radial, around.plan, "edge_deg_embed.rad")
        reader.linear(around.linear, "edge_deg_embed.proj")
        for k, block in enumerate(model.blocks):
            assert isinstance(block, TransformerBlock)
            reader.block(block, f"blocks.{k}")
        reader.norm(model.norm, "norm")
        if isinstance(model.readout, ScalarReadout):
            reader.linear(model.readout.linear_1, "head.0")
            reader.linear(model.readout.linear_2, "head.2")
        else:
            reader.attention(model.readout, "head")
    reader.check_empty()
    return model


def config_from(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> EquiformerConfig:
    """The arguments of the authors' model as ours; how many species there are is read off the tensors.

    64 species are counted by atomic number (MD17), 5 are H, C, N, O, F (QM9).
    Raises InputError for what we do not have.
    """
    missing = sorted(set(_NEEDED.values()) - config.keys())
    if missing:
        raise InputError(f"equiformer: got a configuration without {', '.join(missing)}; expected all arguments")
    for name, ours in _REFUSED:
        if name in config and config[name] not in ours:
            raise InputError(f"equiformer: got {name} = {config[name]!r}; expected {ours[0]!r}")
    given = {ours: config[theirs] for ours, theirs in _NEEDED.items()}
    given |= {ours: config.get(theirs, default) for ours, (theirs, default) in _OPTIONAL.items()}
    given["radial_widths"] = tuple(int(n) for n in given["radial_widths"])
    bias, weight = (state.get(f"atom_embed.atom_type_lin.{name}") for name in ("bias.0", "tp.weight"))
    if bias is None or weight is None or weight.numel() not in (64 * bias.numel(), 5 * bias.numel()):
        raise InputError("equiformer: got no embedding of 64 or 5 species; expected atom_embed.atom_type_lin of them")
    species = _QM9 if weight.numel() == 5 * bias.numel() else tuple(range(64))
    scale = config.get("scale")
    scales = () if scale in (None, "None") else (float(scale),) * len(species)
    return EquiformerConfig(species, scales=scales, **given)


class _Reader:
    """The tensors that are not taken yet, and how each layer takes its own."""

    def __init__(self, state: Mapping[str, Tensor], signs: str) -> None:
        self.signs = signs
        self.left = {
            name: tensor
            for name, tensor in state.items()
            if tensor.numel() and not any(part in name for part in _CONSTANT)
        }

    def take(self, name: str, numel: int) -> Tensor:
        if name not in self.left or self.left[name].numel() != numel:
            got = tuple(self.left[name].shape) if name in self.left else "nothing"
            raise InputError(f"equiformer: got {got} for {name}; expected {numel} numbers, by the configuration")
        return self.left.pop(name)

    def fill(self, tensor: Tensor, name: str) -> None:
        tensor.copy_(self.take(name, tensor.numel()).reshape(tensor.shape))

    def check_empty(self) -> None:
        if self.left:
            raise InputError(f"equiformer: got tensors {sorted(self.left)[:5]}; expected none of these names")

    def linear(self, layer: BlockLinear, name: str) -> None:
        self.fill(layer.weight, f"{name}.tp.weight")
        if layer.bias is not None and layer.bias.numel():
            self.fill(layer.bias, f"{name}.bias.0")

    def norm(self, layer: EquivariantLayerNorm, name: str) -> None:
        self.fill(layer.weight, f"{name}.affine_weight")
        self.fill(layer.bias, f"{name}.affine_bias")

    def basis(self, basis: nn.Module) -> None:
        if isinstance(basis, TrainedGaussians):
            for tensor, name in zip((basis.mean, basis.width, basis.scale, basis.shift), _GAUSSIAN, strict=True):
                self.fill(tensor, f"rbf.{name}")
        elif isinstance(basis, EnvelopedBessel):
            self.fill(basis.bessel.roots, "rbf.rbf.frequencies")
            basis.bessel.roots.div_(math.pi)
        else:
            assert isinstance(basis, ExponentialBasis)
            for name in ("means", "betas"):  # buffers, which not every file holds; they follow from the configuration
                if f"rbf.{name}" in self.left:
                    self.fill(basis.get_buffer(name), f"rbf.{name}")

    def path_weights(self, plan: Depthwise, like: Tensor) -> Tensor:
        """±1 for each weight of a product."""
        signs = path_signs(plan.degrees(), self.signs)
        lengths = [s.stop - s.start for s in plan.weight_slices]
        return torch.tensor(signs, dtype=like.dtype).repeat_interleave(torch.tensor(lengths))

    def radial(self, layer: RadialProfile, plan: Depthwise, name: str) -> None:
        for k, (linear, norm) in enumerate(zip(layer.layers, layer.norms, strict=True)):
            for part, place in ((linear, 3 * k), (norm, 3 * k + 1)):  # an activation stands third
                self.fill(part.get_parameter("weight"), f"{name}.net.{place}.weight")
                self.fill(part.get_parameter("bias"), f"{name}.net.{place}.bias")
        self.fill(layer.last, f"{name}.net.{3 * len(layer.layers)}.weight")
        self.fill(layer.offset, f"{name}.offset")
        signs = self.path_weights(plan, layer.last)
        layer.last.mul_(signs.unsqueeze(-1))
        layer.offset.mul_(signs)

    def block(self, block: TransformerBlock, name: str) -> None:
        self.norm(block.norm_1, f"{name}.norm_1")
        self.attention(block.attention, f"{name}.ga")
        self.norm(block.norm_2, f"{name}.norm_2")
        self.linear(block.feed_forward.linear_1, f"{name}.ffn.fctp_1")
        self.linear(block.feed_forward.linear_2, f"{name}.ffn.fctp_2")
        if block.shortcut is not None:
            self.linear(block.shortcut, f"{name}.ffn_shortcut")

    def attention(self, layer: GraphAttention, name: str) -> None:
        self.linear(layer.source, f"{name}.merge_src")
        self.linear(layer.target, f"{name}.merge_dst")
        self.fill(layer.dot, f"{name}.alpha_dot")
        if isinstance(layer.value, LinearValue):
            self.radial(layer.radial, layer.product.plan, f"{name}.sep.dtp_rad")
            self.linear_messages(layer.score, layer.value.linear, layer.heads, f"{name}.sep.lin")
        else:
            value = layer.value
            self.radial(layer.radial, layer.product.plan, f"{name}.sep_act.dtp_rad")
            self.linear(layer.score, f"{name}.sep_alpha")
            self.linear(value.linear, f"{name}.sep_act.lin")
            plan = value.plan
            weight = self.take(f"{name}.sep_value.dtp.tp.weight", plan.weight_numel).reshape(-1)
            value.weight.copy_(plan.sorted_weight(weight * self.path_weights(plan, weight)))
            self.linear(value.mix, f"{name}.sep_value.lin")
        self.linear(layer.projection, f"{name}.proj")

    def linear_messages(self, score: BlockLinear, value: BlockLinear, heads: int, name: str) -> None:
        """One map in the file: its scalars are, for each head, those of the score and then those of the value."""
        assert score.bias is not None
        assert value.bias is not None
        size = score.weight_numel + value.weight_numel
        weight = self.take(f"{name}.tp.weight", size).reshape(-1)
        bias = self.take(f"{name}.bias.0", 2 * score.bias.numel()).view(heads, 2, -1)
        scalars = weight[: 2 * score.weight_numel].view(-1, heads, 2, score.bias.numel() // heads)
        score.weight.copy_(scalars[:, :, 0].reshape(-1))
        value.weight.copy_(torch.cat((scalars[:, :, 1].reshape(-1), weight[2 * score.weight_numel :])))
        score.bias.copy_(bias[:, 0].reshape(-1))
        value.bias.copy_(bias[:, 1].reshape(-1))


_GAUSSIAN = ("mean", "std", "weight", "bias")
