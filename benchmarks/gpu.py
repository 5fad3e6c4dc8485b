"""Check and time the CUDA kernels on this computer's GPU, against their floors and the installed peers.

python benchmarks/gpu.py [--lmax L ...] [--channels C ...] [--size NODES EDGES ...] [--write]
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from irrepc.commands.gpu import CHANNELS, DEGREES, SIZES, gpu
from irrepc.errors import IrrepcError
from irrepc.runtime.nvrtc import CudaError

REPORT = Path(__file__).resolve().parent / "GPU.md"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmax", type=int, nargs="+", default=DEGREES, help="degrees of the kernels")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS, help="channels of the convolutions")
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("NODES", "EDGES"), help="of a graph")
    parser.add_argument("--repeats", type=int, default=9, help="rounds, of which the median is taken")
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name} beside this file")
    given = parser.parse_args()
    sizes = SIZES if given.size is None else tuple((nodes, edges) for nodes, edges in given.size)
    try:
        text = gpu(given.lmax, given.channels, sizes, given.repeats, REPORT.parents[1], Console())
    except (IrrepcError, CudaError) as error:
        sys.exit(str(error))
    if given.write:
        REPORT.write_text(text, encoding="utf-8")
