"""Edge frames: for each edge the rotation that turns the polar axis ŷ into its direction, smooth but for one switch.

No continuous choice of frame exists over the whole sphere. Two charts meet at the equator: for n_y >= 0 the shortest
arc from ŷ to n; for n_y < 0 a half turn about x (ŷ to -ŷ), then the shortest arc from -ŷ to n. Both are far from their
singular points, so values and gradients are finite everywhere, ± ŷ included. The jump at the equator is a turn about n
itself; whatever is built from the frame must not depend on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irrepc.errors import InputError


def frame_quaternions(n: Tensor) -> Tensor:
    """Unit vectors n (E, 3) -> unit quaternions (E, 4), (w, x, y, z), with R ŷ = n; differentiable in n."""
    x, y, z = n.unbind(-1)
    upper = y >= 0
    zero = torch.zeros_like(x)
    # 1 + |y| >= 1: the denominator cannot vanish, so neither branch of the `where`s can make a NaN
    w = torch.where(upper, 1 + y, 1 - y)
    scale = (2 * w).rsqrt()
    return torch.stack(
        (
            torch.where(upper, w, z) * scale,
            torch.where(upper, z, w) * scale,
            torch.where(upper, zero, x) * scale,
            torch.where(upper, -x, zero) * scale,
        ),
        -1,
    )


def directions(r: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Edge vectors r (E, 3) Å -> (unit vectors (E, 3), lengths (E,) Å).

    mask  (E,) bool, False for edges that do not count (padding, an atom with itself): they get ŷ, length 0 and no
          gradient, whatever their vector. Without a mask every edge counts, and one of length zero raises InputError
          (in compiled code, where values cannot be looked at, it makes NaN).
    """
    if mask is None:
        if not torch.compiler.is_compiling() and bool((r == 0).all(-1).any()):
            raise InputError(
                "directions: got an edge of length 0; expected > 0, a point has no direction; drop it or give a mask"
            )
        length = r.norm(dim=-1)
        return r / length.unsqueeze(-1), length
    polar = torch.zeros_like(r) + r.new_tensor([0.0, 1.0, 0.0])
    vectors = torch.where(mask.unsqueeze(-1), r, polar)
    length = vectors.norm(dim=-1)
    return vectors / length.unsqueeze(-1), torch.where(mask, length, torch.zeros_like(length))


def edge_frames(r: Tensor, mask: Tensor | None = None) -> Tensor:
    """Quaternions (E, 4) of the frames of edge vectors r (E, 3) Å; masked as in `directions`."""
    return frame_quaternions(directions(r, mask)[0])
