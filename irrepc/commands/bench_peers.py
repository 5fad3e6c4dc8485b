"""Peers: the same harmonics and convolution by e3nn and sphericart, where they are installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ProductRecipe
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn

Restore = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that can be timed.

    run      inputs -> value
    orders   how many phases it has: 1 value, 2 with VJP, 3 with the VJP of that
    restore  for the value and each gradient, how to bring it into our order of components; () when it is
    """

    name: str
    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    orders: int
    restore: tuple[Restore, ...] = ()
    is_peer: bool = False


def harmonics_peers(lmax: int, r: Tensor) -> list[Contender]:
    """e3nn's spherical_harmonics and sphericart's SolidHarmonics at the same vectors."""
    peers = []
    if find_spec("e3nn") is not None:
        o3: Any = import_module("e3nn.o3")
        degrees = list(range(lmax + 1))

        def by_e3nn(r: Tensor) -> Tensor:
            value: Tensor = o3.spherical_harmonics(degrees, r, normalize=False, normalization="component")
            return value

        peers.append(Contender("e3nn", by_e3nn, (r,), 3, is_peer=True))
    if find_spec("sphericart") is not None and find_spec("sphericart.torch") is not None:
        solid: Any = import_module("sphericart.torch").SolidHarmonics(lmax)
        # sphericart's polar axis is z, and its harmonics have ∫ Y² = 1.
        scale = math.sqrt(4 * math.pi)
        peers.append(
            Contender(
                "sphericart",
                lambda turned: solid(turned),
                (r[:, [2, 0, 1]].contiguous(),),
                2,
                (lambda value: value * scale, lambda gradient: gradient[:, [1, 2, 0]] * scale),
                is_peer=True,
            )
        )
    return peers


def convolution_peers(
    recipe: ProductRecipe, inputs: tuple[Tensor, ...], senders: Tensor, receivers: Tensor, nodes: int, channels: int
) -> list[Contender]:
    """e3nn's TensorProduct between a gather and a scatter, its features in its own layout."""
    if find_spec("e3nn") is None:
        return []
    o3: Any = import_module("e3nn.o3")
    left = Irreps.of([(channels, b.irrep) for b in recipe.left])
    right = Irreps.of([(1, b.irrep) for b in recipe.right])
    out = Irreps.of([(channels, b.irrep) for b in recipe.out])
    product = o3.TensorProduct(
        *(o3.Irreps(str(side)) for side in (left, right, out)),
        [(p.left, p.right, p.out, "uvu", True) for p in recipe.paths],
        irrep_normalization="component",
        path_normalization="none",
        shared_weights=False,
        internal_weights=False,
    )
    x, y, w = inputs
    product.to(x)  # its couplings: device and dtype

    def run(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        messages: Tensor = product(x.index_select(0, senders), y, w)
        return messages.new_zeros(nodes, messages.shape[1]).index_add(0, receivers, messages)

    def same(t: Tensor) -> Tensor:
        return t

    restore = (lambda value: from_e3nn(value, out), lambda gradient: from_e3nn(gradient, left), same, same)
    return [Contender("e3nn", run, (to_e3nn(x, left), y, w), 3, restore, is_peer=True)]
