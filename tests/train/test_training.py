"""irrepc train: it learns, resumes bit for bit after a kill, is the same on two processes, refuses what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from irrepc.errors import InputError, IrrepcError
from irrepc.models import NequIP, load_model
from irrepc.train.configuration import read, read_settings, write_settings
from irrepc.train.data import Frame, Frames, ethanol, save_frames
from irrepc.train.settings import Settings

pytest.importorskip("lightning", reason="lightning, on which training stands, is not installed")

from irrepc.train.keeper import Keeper, StoppedError
from irrepc.train.learner import Learner
from irrepc.train.losses import TrainingError
from irrepc.train.run import resume, train

ROOT = Path(__file__).resolve().parents[2]
QUIET = Console(quiet=True)
NETWORK = {"layers": 2, "lmax": 1, "parity": False, "features": [4, 4], "embedding": 4, "radial_width": 8}
# What one process needs, started as a user would start it; the folder and the settings are arguments.
PROGRAM = (
    "import sys; from pathlib import Path; from rich.console import Console; from irrepc.train.run import train; "
    "from irrepc.train.configuration import read_settings; "
    "train(read_settings(Path(sys.argv[1])), Path(sys.argv[2]), Console(quiet=True), base=Path(sys.argv[1]).parent)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of ethanol and, in run/, a training of three epochs on them that was never stopped."""
    made = tmp_path_factory.mktemp("training")
    every = ethanol("train")
    save_frames(made / "train.npz", every.select(range(0, 600, 25)))
    save_frames(made / "validation.npz", every.select(range(10, 600, 75)))
    save_frames(made / "lone.npz", ethanol("isolated_atoms"))
    train(settings(), made / "run", QUIET, base=made)
    return made


def settings(**changes: dict[str, Any]) -> Settings:
    files = {"train": ["train.npz"], "validation": "validation.npz", "isolated": "lone.npz", "energies": "isolated"}
    content: dict[str, dict[str, Any]] = {
        "data": files,
        "model": {"network": "nequip", "cutoff": 3.5, "backend": "torch", "options": NETWORK},
        "loss": {"late": 0.6},
        "optimizer": {"rate": 0.02, "average": 0.9},
        "run": {"epochs": 3, "batch": 5, "validate_every": 1, "threads": 1, "tensorboard": False},
    }
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    return read(Settings, content, "")


def state(run: Path) -> dict[str, Any]:
    """A checkpoint, read as plain tensors: nothing in it is code."""
    found: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
    return found


def assert_same_bits(run: Path, other: Path) -> None:
    """Weights, average, optimiser, history and errors, but for seconds."""
    first, second = state(run), state(other)
    assert first["global_step"] == second["global_step"]
    pairs = [(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"]]
    pairs += zip(first["irrepc"]["average"]["values"], second["irrepc"]["average"]["values"], strict=True)
    moments, others = (s["optimizer_states"][0]["state"] for s in (first, second))
    pairs += [(moments[k][name], others[k][name]) for k in moments for name in moments[k]]
    assert all(torch.equal(a, b) for a, b in pairs)
    rows, more = ([{**row, "seconds": 0} for row in s["irrepc"]["history"]["rows"]] for s in (first, second))
    assert rows == more
    assert (run / "errors.json").read_text() == (other / "errors.json").read_text()


class TestRun:
    def test_learns_and_leaves_everything(self, folder: Path) -> None:
        run = folder / "run"
        rows = state(run)["irrepc"]["history"]["rows"]
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        assert rows[-1]["validation_forces_rmse"] < rows[0]["validation_forces_rmse"]
        errors = json.loads((run / "errors.json").read_text())["validation"]
        assert errors["force_rmse"] == pytest.approx(rows[-1]["validation_forces_rmse"], rel=1e-5)
        assert set(errors["force_rmse_by_element"]) == {"H", "C", "O"}
        lines = (run / "metrics.csv").read_text().splitlines()
        assert len(lines) == 4 and lines[0].startswith("epoch,step,seconds,rate,train_energy_mae")
        page = (run / "report.html").read_text()
        assert page.count("<img") == 5 and "http://" not in page
        assert read_settings(run / "settings.yaml").run == settings().run
        model = load_model(run / "model.pt", "torch")
        assert isinstance(model, NequIP) and model.species == (1, 6, 8)

    def test_the_references_are_in_the_model(self, folder: Path) -> None:
        lone = {int(f.numbers[0]): f.energy for f in ethanol("isolated_atoms")}
        shifts = np.array(load_model(folder / "run" / "model.pt", "torch").config.shifts)
        rest = shifts - [lone[z] for z in (1, 6, 8)]
        assert np.ptp(rest) < 1e-9 and -6 < rest[0] < -3  # the mean binding energy of an atom, the same for all

    def test_refuses_a_folder_in_use(self, folder: Path) -> None:
        with pytest.raises(IrrepcError, match=r"not empty; expected a new folder; .*--resume"):
            train(settings(), folder / "run", QUIET, base=folder)
        with pytest.raises(IrrepcError, match=r"without settings.yaml"):
            resume(folder, QUIET)


class TestResume:
    def test_after_a_kill(self, folder: Path) -> None:
        run = folder / "killed"
        write_settings(settings(), folder / "killed.yaml")
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder / "killed.yaml", run], cwd=ROOT)
        for _ in range(1200):
            if (run / "last.ckpt").is_file() or process.poll() is not None:
                break
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert state(run)["global_step"] >= 5
        resume(run, QUIET)
        assert_same_bits(folder / "run", run)

    def test_after_an_interrupt_in_the_middle_of_an_epoch(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, begin = folder / "interrupted", Keeper.on_train_batch_start

        def interrupt(keeper: Keeper, trainer: Any, *arguments: Any) -> None:
            if trainer.global_step == 7:
                os.kill(os.getpid(), signal.SIGINT)
            begin(keeper, trainer, *arguments)

        monkeypatch.setattr(Keeper, "on_train_batch_start", interrupt)
        with pytest.raises(StoppedError, match=r"stopped after step 8; do: irrepc train --resume"):
            train(settings(), run, QUIET, base=folder)
        monkeypatch.undo()
        assert state(run)["global_step"] == 8
        load_model(run / "model.pt", "torch")  # usable: what the first epoch's validation found
        resume(run, QUIET)
        assert_same_bits(folder / "run", run)

    def test_a_finished_training_ends_at_once(self, folder: Path) -> None:
        before = state(folder / "run")["global_step"]
        assert resume(folder / "run", QUIET) == folder / "run" / "report.html"
        assert state(folder / "run")["global_step"] == before

    def test_another_programs_checkpoint(self, folder: Path) -> None:
        run = folder / "foreign"
        run.mkdir()
        for name in ("settings.yaml", "statistics.json"):
            (run / name).write_text((folder / "run" / name).read_text())
        content = state(folder / "run")
        content["irrepc"]["format"] = "else"
        torch.save(content, run / "last.ckpt")
        with pytest.raises(InputError, match="checkpoint: got format 'else'"):
            resume(run, QUIET)


def test_two_processes_are_one(folder: Path) -> None:
    """24 frames in batches of 5, so that parts are unequal: the global batch and its loss are the same."""
    source = (folder / "run" / "settings.yaml").read_text().replace("devices: 1", "devices: 2")
    (folder / "two.yaml").write_text(source)
    (folder / "program.py").write_text(PROGRAM.replace("; ", "\n"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(folder / "program.py"), str(folder / "two.yaml"), str(folder / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = state(folder / "run"), state(folder / "two")
    assert one["global_step"] == two["global_step"]
    for a, b in zip(one["irrepc"]["history"]["rows"], two["irrepc"]["history"]["rows"], strict=True):
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, rel=2e-3)


class TestRefusals:
    def test_a_loss_that_is_not_finite_names_the_frames(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        step = Learner.training_step

        def spoil(learner: Learner, batch: Any, index: int) -> Any:
            if learner.global_step == 2:
                with torch.no_grad():
                    learner.trained[0].fill_(torch.nan)
            return step(learner, batch, index)

        monkeypatch.setattr(Learner, "training_step", spoil)
        with pytest.raises(TrainingError, match=r"loss of nan in epoch 1, step 2, training frames \[\d+(, \d+)+\]"):
            train(settings(), folder / "nan", QUIET, base=folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"loss": {"stress": 1.0}}, "loss.stress: got a weight > 0, and no stress in data.train"),
            (
                {"model": {"options": {"chanels": 3}}},
                "the key model.options.chanels; expected, for nequip, one of cutoffs",
            ),
            ({"model": {"options": {"layers": "two"}}}, "model.options.layers = 'two'; expected an integer"),
            (
                {"model": {"frozen": ["radial*"]}},
                r"model.frozen: got 'radial\*', which fits no weight; exp",
            ),
            ({"model": {"frozen": ["*"]}}, "fits every weight"),
            ({"data": {"energies": {1: -1.0}}}, r"energies: got none of atomic numbers \[6, 8\]"),
            ({"data": {"validation": 24}}, "data.validation: got 24.0, 24 of 24 frames; expected some left"),
            ({"data": {"isolated": None}}, "data.energies: got isolated, but train.npz has no frame of a lone atom"),
            ({"data": {"train": ["gone.npz"]}}, "gone.npz, which is no file"),
        ],
    )
    def test_settings_that_do_not_fit(self, folder: Path, tmp_path: Path, changes: Any, message: str) -> None:
        with pytest.raises(IrrepcError, match=message):
            train(settings(**changes), tmp_path / "run", QUIET, base=folder)


class TestFineTuning:
    def test_moves_energies_and_keeps_frozen_weights(self, folder: Path) -> None:
        every = ethanol("train").select(range(0, 600, 60))
        moved = Frames(tuple(replace(f, energy=f.energy + 2.5 * len(f.numbers)) for f in every))
        save_frames(folder / "moved.npz", moved)
        changed = settings(
            data={"train": ["moved.npz"], "validation": 2, "energies": "fit", "isolated": None},
            model={"start": "run/model.pt", "options": {}, "frozen": ["embedding*", "layers.0.*"]},
            run={"epochs": 1},
        )
        train(changed, folder / "tuned", QUIET, base=folder)
        before, after = (load_model(folder / name / "model.pt", "torch") for name in ("run", "tuned"))
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
            assert torch.equal(old, new) == name.startswith(("embedding", "layers.0."))
        errors = json.loads((folder / "tuned" / "errors.json").read_text())["validation"]
        assert errors["energy_rmse"] < 500  # the labels moved by 2500 meV per atom

    def test_unknown_elements(self, folder: Path) -> None:
        gold = Frame.of([79, 79], [[0, 0, 0], [0, 0, 2.6]], -1.0, np.zeros((2, 3)))
        save_frames(folder / "gold.npz", Frames((gold, gold)))
        changed = settings(
            data={"train": ["gold.npz"], "validation": 1, "energies": "fit", "isolated": None},
            model={"start": "run/model.pt", "options": {}},
        )
        with pytest.raises(InputError, match=r"for atomic numbers \[1, 6, 8\]; expected \[79\] too"):
            train(changed, folder / "golden", QUIET, base=folder)
