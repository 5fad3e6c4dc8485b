"""Time Wigner-D matrices of all degrees against the J-matrix way, value and gradient, in alternated rounds.

MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=30000000000 MALLOC_TOP_PAD_=268435456 \\
python benchmarks/time_rotations.py [rows] [threads]

The J-matrix way, of eSCN and e3nn: D(α, β, γ) = Y(α) J Y(β) J Y(γ) in dense batched products, where Y turns about the
polar axis and the involution J exchanges it with x.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from irrepc.nn.harmonics import WignerD
from irrepc.nn.rotations import euler_to_quaternion

ROUNDS = 15
DEGREES = (2, 4, 6)


def polar(l: int, angle: Tensor) -> Tensor:
    """The rotations about the polar axis, (rows, 2l + 1, 2l + 1)."""
    m = torch.arange(l, -l - 1, -1, dtype=angle.dtype)
    turned = m * angle.unsqueeze(1)
    places = torch.arange(2 * l + 1)
    out = angle.new_zeros(angle.shape[0], 2 * l + 1, 2 * l + 1)
    out[:, places, places.flip(0)] = turned.sin()
    out[:, places, places] = turned.cos()
    return out


def by_j(exchanges: list[Tensor], alpha: Tensor, beta: Tensor, gamma: Tensor) -> list[Tensor]:
    """All D^l by five dense factors."""
    return [polar(l, alpha) @ j @ polar(l, beta) @ j @ polar(l, gamma) for l, j in enumerate(exchanges)]


def measure(contenders: list[Callable[[], object]]) -> list[tuple[float, float]]:
    """(least, median) milliseconds of each."""
    times: list[list[float]] = [[] for _ in contenders]
    for run in contenders:
        run()
    for _ in range(ROUNDS):
        for run, own in zip(contenders, times, strict=True):
            start = time.perf_counter()
            run()
            own.append(1e3 * (time.perf_counter() - start))
    return [(min(own), statistics.median(own)) for own in times]


def compare(lmax: int, rows: int, dtype: torch.dtype) -> None:
    """Print a line for the value and one for value and gradient."""
    generator = torch.Generator().manual_seed(0)
    angles = tuple(torch.rand(rows, generator=generator, dtype=dtype) * 3 for _ in range(3))
    layer = WignerD(lmax)
    half = torch.tensor([[0.0, 0.5**0.5, 0.5**0.5, 0.0]], dtype=torch.float64)
    exchanges = [block[0].to(dtype) for block in layer.blocks(half)]
    q = euler_to_quaternion(*angles)
    pairs = zip(layer.blocks(q), by_j(exchanges, *angles), strict=True)
    error = max(float((a - b).abs().max()) for a, b in pairs)
    assert error < (2e-5 if dtype == torch.float32 else 1e-12), error

    cotangent = torch.randn(layer(q).shape, generator=generator, dtype=dtype)
    blocks = [cotangent[:, s].unflatten(1, (2 * l + 1, 2 * l + 1)) for l, s in enumerate(layer.slices)]
    variable, variables = q.clone().requires_grad_(), [a.clone().requires_grad_() for a in angles]
    (ours, _), (theirs, _), (ours_vjp, _), (theirs_vjp, _) = measure(
        [
            lambda: layer(q),
            lambda: by_j(exchanges, *angles),
            lambda: torch.autograd.grad(layer(variable), variable, cotangent),
            # The block of degree 0 is the number 1 and has no gradient.
            lambda: torch.autograd.grad(by_j(exchanges, *variables)[1:], variables, blocks[1:]),
        ]
    )
    name = str(dtype).removeprefix("torch.")
    for what, a, b in (("value", ours, theirs), ("value, VJP", ours_vjp, theirs_vjp)):
        print(f"| {lmax} | {name} | {what} | {a:.3f} | {b:.2f} | {b / a:.0f}x |", flush=True)


if __name__ == "__main__":
    rows, threads = (int(a) for a in (*sys.argv[1:], *("10000", "1")[len(sys.argv) - 1 :]))
    torch.set_num_threads(threads)
    print(f"{rows} rows, {threads} threads, milliseconds (least of {ROUNDS} rounds)\n")
    print("| lmax | type | what | irrepc | J matrices | ratio |\n|---:|---|---|---:|---:|---:|")
    for lmax in DEGREES:
        for dtype in (torch.float32, torch.float64):
            compare(lmax, rows, dtype)
