"""Time `irrepc generate` in fresh processes, start of Python and proofs included: wall clock and processor seconds.

python benchmarks/time_generate.py [L ...]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 3
COMMAND = "from irrepc.cli import main; main(prog_name='irrepc')"


def measure(lmax: int) -> tuple[float, float]:
    """Median wall-clock seconds of some rounds, and the processor seconds of the last one."""
    walls = []
    used = 0.0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            before, start = os.times(), time.perf_counter()
            words = [sys.executable, "-c", COMMAND, "generate", "--lmax", str(lmax), "--out", folder]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            walls.append(time.perf_counter() - start)
            after = os.times()
            used = sum(after[2:4]) - sum(before[2:4])
    return statistics.median(walls), used


if __name__ == "__main__":
    print("| lmax | wall [s] | processor [s] |\n|---:|---:|---:|")
    for lmax in map(int, sys.argv[1:] or ("2", "4", "6", "8")):
        wall, used = measure(lmax)
        print(f"| {lmax} | {wall:.2f} | {used:.2f} |")
