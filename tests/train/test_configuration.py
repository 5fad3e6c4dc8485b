"""The configuration file: what is read, what is refused and in which words, and the starter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from irrepc import cli
from irrepc.errors import InputError
from irrepc.train.configuration import read, read_settings, write_settings
from irrepc.train.networks import make_network
from irrepc.train.settings import Settings
from irrepc.train.starter import starter
from irrepc.train.statistics import Statistics

pytest.importorskip("yaml", reason="PyYAML, which reads configurations, is not installed")

LEAST: dict[str, Any] = {"data": {"train": "a.xyz"}}


def test_defaults_and_round_trip(tmp_path: Path) -> None:
    settings = read(Settings, LEAST, "")
    assert settings.data.train == ("a.xyz",) and settings.run.batch == 5
    changed = replace(settings, model=replace(settings.model, options={"features": (8, 8)}, frozen=("a*",)))
    write_settings(changed, tmp_path / "a.yaml")
    assert read_settings(tmp_path / "a.yaml") == replace(
        changed, model=replace(changed.model, options={"features": [8, 8]})
    )


def test_the_starter_says_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(starter())
    assert read_settings(tmp_path / "a.yaml") == read(Settings, {"data": {"train": "train.xyz"}}, "")
    assert max(map(len, starter().splitlines())) <= 120
    assert all("#" in line for line in starter().splitlines() if line.endswith(":"))


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {train: [a.xyz], energies: {1: -13, 8: -2.0e3}}\noptimizer: {rate: 1e-3}\n")
    settings = read_settings(tmp_path / "a.yaml")
    assert settings.optimizer.rate == 1e-3
    assert settings.data.energies == {1: -13.0, 8: -2000.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "got data.train = (); expected one file at least"),
        ([1], "got the file = [1]; expected keys and values"),
        ({"optimiser": {}}, "the key optimiser; expected one of data, model, loss, optimizer, run; did you mean opt"),
        ({"run": {"epoch": 3}}, "the key run.epoch; expected one of epochs, batch"),
        ({"run": {"epochs": 1.5}}, "got run.epochs = 1.5; expected an integer"),
        ({"run": {"epochs": True}}, "got run.epochs = True; expected an integer"),
        ({"run": {"epochs": 0}}, "got run.epochs = 0; expected an integer >= 1"),
        ({"run": {"patience": "long"}}, "got run.patience = 'long'; expected an integer or null"),
        ({"run": {"tensorboard": "yes"}}, "got run.tensorboard = 'yes'; expected true or false"),
        ({"run": {"device": "gpu"}}, "got run.device = 'gpu'; expected auto, cpu or cuda"),
        ({"optimizer": {"rate": "fast"}}, "got optimizer.rate = 'fast'; expected a number"),
        ({"optimizer": {"schedule": "step"}}, "got optimizer.schedule = 'step'; expected one of cosine"),
        ({"optimizer": {"average": 1}}, "got optimizer.average = 1.0; expected a number from 0 to below 1"),
        ({"loss": {"energy": 0, "forces": 0}}, "got loss.energy = 0.0; expected one weight > 0 at least"),
        ({"loss": {"late": 1}}, "got loss.late = 1.0; expected a part of 1"),
        ({"loss": {"form": "cubic"}}, "got loss.form = 'cubic'; expected one of square, huber, absolute"),
        ({"model": {"network": "schnet"}}, "got model.network = 'schnet'; expected one of nequip, mace, esen"),
        ({"model": {"start": "a.pt", "options": {"lmax": 1}}}, "got model.start = 'a.pt'; expected no options beside"),
        ({"model": {"frozen": [1]}}, "got model.frozen[0] = 1; expected a text"),
        ({"data": {"train": "a", "labels": {"energy_unit": "Ha"}}}, "labels: got energy_unit = 'Ha'; expected one of"),
        ({"data": {"train": "a", "energies": {"H": 1}}}, "got data.energies = {'H': 1}; expected a text or a mapping"),
        ({"data": {"train": "a", "validation": 0}}, "got data.validation = 0.0; expected a file, a part of 1"),
        ({"data": {"train": "a", "tests": ["b"]}}, "got data.tests = ['b']; expected a mapping of a text to a text"),
    ],
)
def test_errors_name_the_key_what_was_got_and_what_is_allowed(content: Any, message: str) -> None:
    whole = {**LEAST, **content} if isinstance(content, dict) and content else content
    with pytest.raises(InputError) as error:
        read(Settings, whole, "")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["nequip", "mace"])
def test_the_examples_are_configurations(name: str) -> None:
    settings = read_settings(Path(__file__).resolve().parents[2] / "examples" / "acac" / f"{name}.yaml")
    found = Statistics(450, (1, 6, 8), 9.7, 15.0, 1.05, (-13.6, -1026.9, -2037.8), -4.0, 0.01)
    model = make_network(replace(settings.model, backend="torch"), found, seed=0)
    assert model.species == (1, 6, 8) and set(settings.data.tests) == {"300 K", "600 K", "dihedral", "H transfer"}


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: [\n")
    with pytest.raises(InputError, match="which is no YAML"):
        read_settings(tmp_path / "a.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "b.yaml")


class TestCommandLine:
    def run(self, *arguments: str) -> Any:
        return CliRunner(env={"COLUMNS": "200"}).invoke(cli.main, ["train", *arguments])

    def test_init(self, tmp_path: Path) -> None:
        file = tmp_path / "new.yaml"
        done = self.run("--init", str(file))
        assert done.exit_code == 0 and "say where your frames are" in done.output
        assert file.read_text() == starter()
        again = self.run("--init", str(file))
        assert again.exit_code == 2 and "is there already" in again.output

    def test_refusals_are_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("data: {train: gone.xyz}\nrun: {epoch: 1}\n")
        done = self.run(str(tmp_path / "a.yaml"), "--out", str(tmp_path / "out"))
        assert done.exit_code == 2 and "the key run.epoch" in done.output and not (tmp_path / "out").exists()
        assert "expected CONFIG, --init or --resume" in self.run().output
        assert "expected --resume FOLDER alone" in self.run("a.yaml", "--resume", "b").output
