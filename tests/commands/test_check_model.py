"""Check of saved networks: what holds is said, what does not is found, and what is no potential is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from irrepc.cli import main
from irrepc.commands import check_model
from irrepc.models import ESEN, TFN, ESENConfig, NequIP, NequIPConfig, TFNConfig, save_model
from irrepc.models.checkpoint import Network, load_model

NEQUIP = NequIPConfig(species=(1, 6, 8), lmax=1, layers=2, features=(4, 4), embedding=4, cutoff=4.0)
SIZES: dict[str, Any] = {"layers": 1, "channels": 4, "hidden": 4, "edge_channels": 4, "lmax": 2, "basis_size": 4}


def run(model: Network, folder: Path) -> tuple[int, str]:
    """The exit status and what is printed."""
    save_model(model, folder / "model.pt")
    result = CliRunner().invoke(main, ["check", str(folder / "model.pt")])
    return result.exit_code, result.output


def test_an_equivariant_network_is_exact_to_rounding(tmp_path: Path) -> None:
    status, said = run(NequIP(NEQUIP, seed=1), tmp_path)
    assert status == 0
    assert re.search(r"rotation .*\(rounding\)\n", said)
    assert re.search(r"reflection .*\(rounding\)\n", said)
    assert "grid" not in said


def broken(path: Path, *rest: Any, **more: Any) -> Network:
    """A network whose energy depends on where x points."""
    model = load_model(path, *rest, **more)
    model.register_forward_hook(lambda _, graph, energies: energies + 0.01 * graph[0].positions[:, 0] ** 2)
    return model


def test_a_broken_symmetry_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_model, "load_model", broken)
    status, said = run(NequIP(NEQUIP, seed=1), tmp_path)
    assert status == 1
    assert "expected rounding" in said


def test_the_error_of_a_grid_is_printed_and_falls_with_finer_ones(tmp_path: Path) -> None:
    status, said = run(ESEN(ESENConfig((1, 6), cutoff=4.0, feed_forward="grid", mmax=2, **SIZES), seed=1), tmp_path)
    assert status == 0
    errors = [float(text) for text in re.findall(r"rings: (\S+)", said)]
    assert len(errors) == 3
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]
    own = re.search(r"rotation .*forces (\S+)", said)
    assert own is not None
    assert float(own[1]) > check_model.EXACT


def test_what_is_no_potential_is_refused(tmp_path: Path) -> None:
    model = TFN(TFNConfig(species=(1, 6)))
    status, said = run(model, tmp_path)
    assert status != 0
    assert "expected a potential" in said
    (tmp_path / "model.pt").write_bytes(b"no file of ours")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "model.pt")])
    assert result.exit_code != 0
    assert "a text; expected a file of irrepc" in result.output
