"""Equivariance: rotate the input of harmonics, of Wigner matrices and of a convolution, and compare."""

import torch

from irrepc import Irreps
from irrepc.nn import Convolution, Index, SphericalHarmonics, WignerD

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
LMAX, CHANNELS, NODES, EDGES = 3, 8, 10, 60


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# A rotation is a unit quaternion. The block of degree 1 is the rotation matrix itself: (x, y, z) is the basis of l = 1.
quaternions = torch.nn.functional.normalize(torch.randn(2, 4), dim=1)
wigner = WignerD(LMAX)
blocks = [block[0] for block in wigner.blocks(quaternions[:1])]
rotation = blocks[1]
print(f"R is orthogonal to {largest(rotation @ rotation.T, torch.eye(3)):.1e}, det R = {float(rotation.det()):.15f}")

# Harmonics: Y_l(R r) = D_l(R) Y_l(r), degree by degree.
harmonics = SphericalHarmonics(LMAX)
vectors = torch.randn(EDGES, 3)
y, y_turned = harmonics(vectors), harmonics(vectors @ rotation.T)
for l, block in enumerate(blocks):
    own = slice(l * l, (l + 1) ** 2)
    print(f"l = {l}: Y(R r) - D(R) Y(r) is at most {largest(y_turned[:, own], y[:, own] @ block.T):.1e}")

# Two rotations one after the other are one rotation: D(p q) = D(p) D(q), with the product of quaternions.
(a, *u), (b, *v) = (q.tolist() for q in quaternions)
u, v = torch.tensor(u), torch.tensor(v)
composed = torch.cat([(a * b - u @ v).reshape(1), a * v + b * u + torch.linalg.cross(u, v)])
first, second, both = (wigner.blocks(q[None])[LMAX][0] for q in (*quaternions, composed))
print(f"D(p q) - D(p) D(q) at l = {LMAX} is at most {largest(both, first @ second):.1e}")


def turn(features: torch.Tensor, irreps: Irreps) -> torch.Tensor:
    """Rotate features: in each block (component, channel), channels fast, D acts on the components."""
    parts = []
    for block, place in zip(irreps, irreps.slices(), strict=True):
        x = features[:, place].unflatten(1, (block.irrep.dim, block.mul))
        parts.append((blocks[block.irrep.l] @ x).flatten(1))
    return torch.cat(parts, 1)


# A convolution over a random graph: rotating what goes in rotates what comes out.
irreps = Irreps.of(f"{CHANNELS}x0e+{CHANNELS}x1o+{CHANNELS}x2e")
convolution = Convolution(irreps, Irreps.spherical_harmonics(LMAX), f"{irreps}+{CHANNELS}x3o")
x, w = torch.randn(NODES, irreps.dim), torch.randn(EDGES, convolution.weight_numel)


def index(values: torch.Tensor) -> Index:
    order = torch.argsort(values, stable=True)
    return Index(values, order, torch.searchsorted(values[order], torch.arange(NODES + 1)))


senders, receivers = index(torch.randint(NODES, (EDGES,))), index(torch.randint(NODES, (EDGES,)))
out = convolution(x, y, w, senders, receivers)
out_turned = convolution(turn(x, irreps), y_turned, w, senders, receivers)
error = largest(out_turned, turn(out, convolution.irreps_out))
print(f"{len(convolution.paths)} paths, {EDGES} edges: convolution of the rotated is the rotated to {error:.1e}")
assert error < 1e-11
