"""The tetris example learns its shapes in one orientation, knows them in all, and tells mirror images apart."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_tetris(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "08_tfn_tetris.py")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "100 random orientations of each shape: 100.0 % right" in done.stdout
    assert "mirrored: chiral, left -> chiral, right, chiral, right -> chiral, left, square -> square" in done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir()), "the example leaves files where it is run"
