"""Peers on a GPU: the same convolution by OpenEquivariance and cuEquivariance, where they are installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ProductRecipe
from irrepc.commands.bench_timing import Contender
from irrepc.errors import KernelError
from irrepc.frontend.clebsch_gordan import clebsch_gordan
from irrepc.nn.graph import Index


def open_equivariance(
    recipe: ProductRecipe, inputs: tuple[Tensor, ...], senders: Index, receivers: Index, channels: int
) -> list[Contender]:
    """OpenEquivariance's fused convolution, with atomics and deterministic, in its layout that is ours.

    Its weights and paths are those of e3nn, and so are ours.
    """
    if find_spec("openequivariance") is None:
        return []
    oeq: Any = import_module("openequivariance")
    left, right, out = sides(recipe, channels)
    real = np.float32 if inputs[0].dtype == torch.float32 else np.float64
    problem = oeq.TPProblem(
        str(left),
        str(right),
        str(out),
        [(p.left, p.right, p.out, "uvu", True) for p in recipe.paths],
        irrep_normalization="component",
        path_normalization="none",
        shared_weights=False,
        irrep_dtype=real,
        weight_dtype=real,
        layout="ir_mul",
    )
    # With edges sorted by receiver this transposes the adjacency matrix: the deterministic variant asks for it.
    transposed = {"": None, ", deterministic": senders.order}
    contenders = []
    for how, order in transposed.items():
        convolution = oeq.TensorProductConv(problem, torch_op=True, deterministic=order is not None)

        def run(x: Tensor, y: Tensor, w: Tensor, fused: Any = convolution, order: Tensor | None = order) -> Tensor:
            value: Tensor = fused(x, y, w, receivers.values, senders.values, order)
            return value

        contenders.append(Contender(f"OpenEquivariance{how}", run, inputs, 3, is_peer=True))
    return contenders


def cu_equivariance(
    recipe: ProductRecipe,
    inputs: tuple[Tensor, ...],
    senders: Index,
    receivers: Index,
    channels: int,
    method: str = "uniform_1d",
) -> list[Contender]:
    """cuEquivariance's channel-wise product with fused gather and scatter, in its layout that is ours.

    It sorts paths by the irreps they give, and some of its couplings have the other sign: weights are brought to its
    order and signs before the clock runs, values and gradients back after it.
    method  "uniform_1d", its CUDA kernels; "naive" runs on any device
    """
    if find_spec("cuequivariance_torch") is None or find_spec("cuequivariance") is None:
        return []
    cue: Any = import_module("cuequivariance")
    cuet: Any = import_module("cuequivariance_torch")
    left, right, out = sides(recipe, channels)
    x, y, w = inputs
    product = cuet.ChannelWiseTensorProduct(
        *(cue.Irreps("O3", str(side)) for side in (left, right)),
        list(dict.fromkeys(cue.O3(b.irrep.l, b.irrep.p) for b in out)),
        layout=cue.ir_mul,
        shared_weights=False,
        internal_weights=False,
        dtype=x.dtype,
        math_dtype=x.dtype,
        method=method,
    ).to(x.device)
    order = sorted(range(len(recipe.paths)), key=lambda i: cue.O3(out[i].irrep.l, out[i].irrep.p))
    signs = [_sign(cue, recipe, i) for i in range(len(recipe.paths))]
    sign = torch.tensor(signs, dtype=x.dtype, device=x.device).repeat_interleave(channels)
    places = torch.tensor(order, device=x.device)

    def by_path(w: Tensor, places: Tensor) -> Tensor:
        return w.view(-1, len(order), channels).index_select(1, places).flatten(1)

    def from_weights(w: Tensor) -> Tensor:
        return by_path(w, places.argsort()) * sign

    def from_value(value: Tensor) -> Tensor:
        pieces = torch.split(value, [out[i].irrep.dim * channels for i in order], 1)
        return torch.cat([pieces[order.index(i)] for i in range(len(order))], 1)

    def run(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        value: Tensor = product(
            x, y, w, indices_1=senders.values, indices_out=receivers.values, size_out=x.shape[0]
        )
        return value

    def same(t: Tensor) -> Tensor:
        return t

    restore = (from_value, same, same, from_weights)
    return [Contender("cuEquivariance", run, (x, y, by_path(w * sign, places)), 3, restore, is_peer=True)]


def sides(recipe: ProductRecipe, channels: int) -> tuple[Irreps, Irreps, Irreps]:
    """The features, harmonics and messages of a convolution whose features have one multiplicity."""
    left, right, out = recipe.left, recipe.right, recipe.out
    return (
        Irreps.of([(channels, b.irrep) for b in left]),
        Irreps.of([(1, b.irrep) for b in right]),
        Irreps.of([(channels, b.irrep) for b in out]),
    )


def _sign(cue: Any, recipe: ProductRecipe, path: int) -> float:
    """+1 or -1: how a coupling of cuEquivariance differs from ours; raises KernelError when it is another one."""
    chosen = recipe.paths[path]
    irreps = (recipe.left[chosen.left].irrep, recipe.right[chosen.right].irrep, recipe.out[chosen.out].irrep)
    (theirs,) = cue.clebsch_gordan(*(cue.O3(irrep.l, irrep.p) for irrep in irreps))
    ours = np.zeros(theirs.shape)
    for place, value in clebsch_gordan(irreps[0].l, irreps[1].l, irreps[2].l).items():
        ours[place] = float(value)
    for sign in (1.0, -1.0):
        if np.allclose(theirs, sign * ours, atol=1e-6):
            return sign
    raise KernelError(f"bench: got another coupling of {irreps} from cuEquivariance; expected ours up to its sign")
