"""Every example runs as a reader would run it, ends well, and says what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# name -> (arguments that make it short, a piece of what it prints)
EXAMPLES: dict[str, tuple[tuple[str, ...], str]] = {
    "01_first_kernel.py": ((), "their squares sum to exactly 1"),
    "02_read_the_code.py": ((), "def tensor_product_vjp("),
    "03_equivariance.py": ((), "convolution of the rotated is the rotated to"),
    "04_train_nequip.py": (("5",), "the forces are the same to the last digit: True"),
    "05_one_model_two_backends.py": ((), "llvm: first call"),
    "06_md_forces.py": (("3",), "ps at constant energy"),
    "07_kernels_without_torch.py": ((), "torch was never imported"),
    "09_train_mace.py": (("8",), "written back as ScaleShiftMACE of 16x0e+16x1o"),
}
# needs the labelling extra and minutes; its output is tested in tests/train/test_data.py
NOT_RUN = {"make_ethanol_dataset.py", "08_tfn_tetris.py"}
"""One needs tblite for minutes, the other has a test of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    arguments, says = EXAMPLES[name]
    command = [sys.executable, "-W", "error::DeprecationWarning:irrepc", str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert not list(tmp_path.iterdir()), "an example leaves files where it is run"


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, *NOT_RUN}
