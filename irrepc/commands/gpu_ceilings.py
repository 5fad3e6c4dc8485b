"""Ceilings: what a CUDA device does at best, measured: bytes copied, rows gathered through its cache, multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from irrepc.commands.gpu_clock import Work, time_work
from irrepc.runtime.nvrtc import launcher

SOURCE = """
// Sums rows of a table at given places: what of it crosses from the second-level cache is all that costs.
extern "C" __global__ void gather(const float4* table, const long long* rows, float* sums, long long count,
                                  long long width) {
    const long long warps = (long long)gridDim.x * (blockDim.x / 32);
    const long long first = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float s = 0;
    for (long long i = first; i < count; i += warps) {
        const float4* row = table + rows[i] * width;
        #pragma unroll 4
        for (long long j = lane; j < width; j += 32) {
            const float4 v = row[j];
            s += v.x + v.y + v.z + v.w;
        }
    }
    sums[first * 32 + lane] = s;
}

// Eight independent chains of multiply-adds in each thread.
extern "C" __global__ void multiply_add(float* sums, long long turns) {
    float v[8];
    for (int i = 0; i < 8; i++) v[i] = threadIdx.x + i;
    for (long long t = 0; t < turns; t++)
        #pragma unroll
        for (int k = 0; k < 16; k++)
            #pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] * 0.999f + 0.001f;
    float s = 0;
    for (int i = 0; i < 8; i++) s += v[i];
    sums[(long long)blockIdx.x * blockDim.x + threadIdx.x] = s;
}

extern "C" __global__ void nothing() {}
"""
CHAINS, STEPS, TURNS = 8, 16, 512
THREADS = 256
COPIED = 2**30
TABLE_ROWS, TABLE_WIDTH, GATHERED = 10_000, 9 * 128, 500_000
"""The node features of the largest case, 46 MB: they fit the second-level cache."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one device does in a second, and the seconds that a launch from Python takes.

    copied           bytes read and written by a copy larger than the cache
    gathered         bytes of rows read at random from a table that fits the cache
    gathered_sorted  the same at rising rows
    flops            float32 multiply-adds, two each
    launch           of an empty kernel
    """

    device: str
    capability: tuple[int, int]
    copied: float
    gathered: float
    gathered_sorted: float
    flops: float
    launch: float


def measure_ceilings(device: torch.device, repeats: int) -> Ceilings:
    """Measure them all; needs about 2.5 GB.  Raises CudaError when kernels cannot be compiled or loaded."""
    properties = torch.cuda.get_device_properties(device)
    blocks = 16 * properties.multi_processor_count
    one, other = (torch.empty(COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    copied = 2 * COPIED / _seconds(lambda: other.copy_(one), repeats)
    table = torch.ones(TABLE_ROWS, TABLE_WIDTH, device=device)
    sums = torch.empty(blocks * THREADS, device=device)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(TABLE_ROWS, (GATHERED,), generator=generator)
    number = device.index or 0
    gather = launcher(SOURCE, "gather", (), number)

    def gathered(where: Tensor) -> float:
        where = where.to(device)
        size = 4 * GATHERED * TABLE_WIDTH
        return size / _seconds(
            lambda: gather(blocks, THREADS, table, where, sums, GATHERED, TABLE_WIDTH // 4), repeats
        )

    multiply_add, nothing = (launcher(SOURCE, name, (), number) for name in ("multiply_add", "nothing"))
    operations = 2 * CHAINS * STEPS * TURNS * blocks * THREADS
    flops = operations / _seconds(lambda: multiply_add(blocks, THREADS, sums, TURNS), repeats)
    launch = time_work([lambda: nothing(1, 32)], repeats).python / 1e3
    capability = (properties.major, properties.minor)
    by_chance, by_row = gathered(rows), gathered(rows.sort().values)
    return Ceilings(properties.name, capability, copied, by_chance, by_row, flops, launch)


def _seconds(work: Work, repeats: int) -> float:
    return time_work([work], repeats).best / 1e3
