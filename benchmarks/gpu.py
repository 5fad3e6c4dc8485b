"""Check and time the CUDA kernels on this computer's GPU, against their floors and the installed peers.

python benchmarks/gpu.py [--part NAME ...] [--folder FOLDER] [--again] [--report] [--write]

Without --part all parts run, each in a process of its own and in less than ten minutes; what is done already is not
run again.  A part named alone runs here.  --report needs no GPU: it puts together what there is.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from irrepc.commands.gpu import CHANNELS, SIZES, Setting, parts, peers_folder, report, run_all
from irrepc.commands.gpu_parts import FAILED, run_part
from irrepc.errors import IrrepcError
from irrepc.runtime.nvrtc import CudaError

HERE = Path(__file__).resolve()
REPORT = HERE.parent / "GPU.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(parts()), help="run this part alone")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS, help="channels of the convolutions")
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("NODES", "EDGES"), help="of a graph")
    parser.add_argument("--repeats", type=int, default=9, help="rounds, of which the median is taken")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "gpu", help="where parts keep what they find")
    parser.add_argument("--wheels", type=Path, default=HERE.parent / "wheels", help="wheels of peers")
    parser.add_argument("--again", action="store_true", help="run what is done once more")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name} beside this file")
    given = parser.parse_args()
    sizes = SIZES if given.size is None else tuple((nodes, edges) for nodes, edges in given.size)
    folder, wheels = given.folder.resolve(), given.wheels.resolve()
    setting = Setting(tuple(given.channels), sizes, given.repeats, HERE.parents[1], folder, wheels)
    if given.part and len(given.part) == 1 and not given.report:
        sys.path.insert(0, str(peers_folder(folder)))
        record = run_part(given.part[0], lambda: parts()[given.part[0]](setting), folder)
        sys.stdout.write("\n".join((*record.lines, record.error)) + "\n")
        sys.exit(record.state == FAILED)
    if given.again:
        for name in given.part or parts():
            (folder / f"{name}.json").unlink(missing_ok=True)
    options = [f"--repeats={given.repeats}", f"--folder={folder}", f"--wheels={wheels}"]
    options += ["--channels", *map(str, given.channels)]
    options += [word for pair in sizes for word in ("--size", *map(str, pair))]
    try:
        text = (
            report(folder) if given.report else run_all(given.part or tuple(parts()), HERE, options, setting, Console())
        )
    except (IrrepcError, CudaError) as error:
        sys.exit(str(error))
    if given.write:
        REPORT.write_text(text, encoding="utf-8")
    elif given.report:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
