"""The verbs that take structures: eval, relax and md give what ASE gives, and refuse what has no meaning first."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner, Result

from irrepc.cli import main
from irrepc.interop.ase_calculator import IrrepcCalculator
from irrepc.models import NequIP, NequIPConfig, save_model

CONFIG = NequIPConfig(
    species=(1, 8, 14),
    cutoff=3.0,
    layers=1,
    lmax=1,
    features=(4, 4),
    embedding=4,
    bessels=4,
    radial_depth=1,
    radial_width=6,
    scales=(0.3, 0.3, 0.3),
    shifts=(-1.0, -2.0, -3.0),
    repulsion=True,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "small.irrepc"
    save_model(NequIP(CONFIG, "torch", dtype=torch.float64, seed=2), file)
    return file


def solid() -> Atoms:
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def water() -> Atoms:
    return Atoms("OHH", positions=[[0, 0, 0.12], [0, 0.77, -0.48], [0.03, -0.75, -0.47]])


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    write(tmp_path / "in.extxyz", [solid(), water()])
    return tmp_path / "in.extxyz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


# ── eval ─────────────────────────────────────────────────────────────────────────────────────────


def test_eval_writes_what_the_calculator_says(structures: Path, model: Path, tmp_path: Path) -> None:
    output = succeed("eval", structures, "--model", model, "-o", tmp_path / "out.extxyz")
    assert "no labels" in output
    calculator = IrrepcCalculator(model)
    for before, after in zip(read(structures, ":"), read(tmp_path / "out.extxyz", ":"), strict=True):
        before.calc = calculator
        assert after.get_potential_energy() == pytest.approx(before.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(after.get_forces(), before.get_forces(), atol=1e-7)  # the file has 8 decimals
        if before.pbc.all():
            np.testing.assert_allclose(after.get_stress(), before.get_stress(), atol=1e-12)
        else:
            assert "stress" not in after.calc.results


def test_eval_measures_the_distance_to_labels(model: Path, tmp_path: Path) -> None:
    atoms = solid()
    atoms.calc = IrrepcCalculator(model)
    label = {"energy": atoms.get_potential_energy() + 8 * 0.5, "forces": atoms.get_forces() + 0.25}
    label["stress"] = atoms.get_stress() - 0.125
    named = atoms.copy()
    named.info["REF_energy"], named.arrays["REF_forces"] = label["energy"], label["forces"]
    named.info["REF_stress"] = label["stress"]
    atoms.calc = SinglePointCalculator(atoms, **label)
    write(tmp_path / "a.extxyz", atoms)
    write(tmp_path / "b.extxyz", named)
    for file, prefix in (("a.extxyz", ""), ("b.extxyz", "REF_")):
        plot = tmp_path / f"{file}.png"
        output = succeed("eval", tmp_path / file, "--model", model, "--labels", prefix, "--plot", plot)
        rows = {line.split()[0]: line.split() for line in output.splitlines() if "MAE" in line}
        for name, wanted in (("energy", 0.5), ("forces", 0.25), ("stress", 0.125)):
            assert [float(rows[name][k]) for k in (2, 4, 6)] == pytest.approx([wanted] * 3, rel=1e-3)
        assert plot.read_bytes().startswith(b"\x89PNG")


# ── relax ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_relax_goes_to_where_forces_vanish(model: Path, tmp_path: Path, optimizer: str) -> None:
    write(tmp_path / "in.extxyz", solid())
    options = ("--optimizer", optimizer, "--fmax", 0.02, "--steps", 400, "--trajectory", tmp_path / "t.extxyz")
    succeed("relax", tmp_path / "in.extxyz", "--model", model, "-o", tmp_path / "out.extxyz", *options)
    path = read(tmp_path / "t.extxyz", ":")
    assert len(path) > 2
    assert path[-1].get_potential_energy() < path[0].get_potential_energy()
    assert np.linalg.norm(read(tmp_path / "out.extxyz").get_forces(), axis=1).max() < 0.02


def test_relax_says_when_it_has_not_converged(structures: Path, model: Path, tmp_path: Path) -> None:
    options = ("--fmax", 1e-9, "--steps", 2)
    result = run("relax", structures, "--model", model, "-o", tmp_path / "out.extxyz", *options)
    assert result.exit_code == 1
    assert "not converged" in result.output
    assert len(read(tmp_path / "out.extxyz", ":")) == 2


def test_relax_of_the_cell_lowers_the_stress(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.extxyz", solid())
    options = ("--cell", "--fmax", 0.05, "--steps", 300, "--optimizer", "lbfgs")
    run("relax", tmp_path / "in.extxyz", "--model", model, "-o", tmp_path / "out.extxyz", *options)
    before, after = solid(), read(tmp_path / "out.extxyz")
    before.calc = after.calc = IrrepcCalculator(model)
    assert not np.allclose(before.cell.array, after.cell.array)
    assert np.abs(after.get_stress()).max() < 0.5 * np.abs(before.get_stress()).max()


# ── md ───────────────────────────────────────────────────────────────────────────────────────────


def start(model: Path, folder: Path, name: str, *options: object) -> str:
    write(folder / "in.extxyz", solid())
    base = ("--model", model, "-o", folder / name, "--every", 5, "--save-every", 8)
    return succeed("md", folder / "in.extxyz", *base, *options)


def log(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(model: Path, tmp_path: Path, ensemble: str) -> None:
    options = ("--ensemble", ensemble, "--temperature", 300, "--seed", 4)
    start(model, tmp_path, "whole", *options, "--steps", 40)
    start(model, tmp_path, "parts", *options, "--steps", 17)
    with open(tmp_path / "parts.csv", "a") as file:
        file.write("written after the save")
    succeed("md", "--restart", tmp_path / "parts.restart.npz", "--steps", 40)
    for end in ("csv", "extxyz"):
        assert (tmp_path / f"whole.{end}").read_text() == (tmp_path / f"parts.{end}").read_text()
    assert [int(row["step"]) for row in log(tmp_path, "whole")] == list(range(0, 41, 5))
    assert (tmp_path / "whole.png").read_bytes().startswith(b"\x89PNG")


def test_energy_is_kept_at_constant_energy_and_temperature_by_the_bath(model: Path, tmp_path: Path) -> None:
    start(model, tmp_path, "nve", "--steps", 200, "--temperature", 100, "--timestep", 1.0)
    energies = np.array([float(row["total_eV"]) for row in log(tmp_path, "nve")])
    potential = np.array([float(row["potential_eV"]) for row in log(tmp_path, "nve")])
    assert np.ptp(potential) > 1e-2
    assert np.ptp(energies) < 0.02 * np.ptp(potential)
    options = ("--ensemble", "nvt", "--friction", 0.1, "--temperature", 600)
    start(model, tmp_path, "nvt", "--steps", 200, "--timestep", 1.0, *options)
    kelvin = np.array([float(row["temperature_K"]) for row in log(tmp_path, "nvt")])
    assert 250 < kelvin[20:].mean() < 1100
    assert np.ptp([float(row["total_eV"]) for row in log(tmp_path, "nvt")]) > 10 * np.ptp(energies)


def test_velocities_of_the_file_are_taken_without_a_temperature(model: Path, tmp_path: Path) -> None:
    atoms = solid()
    atoms.set_velocities(np.full((8, 3), 0.01))
    write(tmp_path / "in.extxyz", atoms)
    succeed("md", tmp_path / "in.extxyz", "--model", model, "-o", tmp_path / "run", "--steps", 1, "--every", 1)
    kinetic = float(log(tmp_path, "run")[0]["kinetic_eV"])
    assert kinetic == pytest.approx(atoms.get_kinetic_energy(), rel=1e-6)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def moved(**change: object) -> Atoms:
    return Atoms("OHH", **{"positions": water().positions, **change})


BAD = {
    "unknown element": (Atoms("Fe"), r"atomic numbers \[26\]"),
    "not finite": (moved(positions=[[0, 0, np.inf], [0, 1, 0], [1, 0, 0]]), "expected finite numbers"),
    "degenerate cell": (moved(cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True), "independent vectors"),
    "atoms at one place": (moved(positions=[[0, 0, 0], [0, 0, 0], [1, 0, 0]]), "remove the double"),
    "another unit": (moved(positions=0.1 * water().positions), "give positions and cell in Å"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("verb", ["eval", "relax", "md"])
def test_structures_without_meaning_are_refused_before_any_number(
    model: Path, tmp_path: Path, verb: str, kind: str
) -> None:
    atoms, says = BAD[kind]
    write(tmp_path / "in.traj", [atoms] if verb == "md" else [water(), atoms])
    result = run(verb, tmp_path / "in.traj", "--model", model, "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert f"structure {0 if verb == 'md' else 1}: " in result.output
    assert re.search(says, result.output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.traj"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "{absent}", "--model", "{model}"), "which is not there"),
        (("eval", "{text}", "--model", "{model}"), "which ASE cannot read"),
        (("eval", "{in}", "--model", "{text}"), "a text; expected a file of irrepc"),
        (("eval", "{in}", "--model", "{broken}"), "cut short or altered"),
        (("eval", "{in}", "--model", "{model}", "-o", "{absent}/x"), "whose folder is not there"),
        (("eval", "{in}", "--model", "{model}", "--plot", "{absent}.png"), "without labels"),
        (("relax", "{in}", "--model", "{model}", "-o", "{absent}", "--cell"), "three periodic directions"),
        (("relax", "{in}", "--model", "{model}", "-o", "{absent}", "--fmax", "nan"), "a finite number > 0"),
        (("md", "{in}", "--model", "{model}", "-o", "{absent}", "--ensemble", "nvt"), "--temperature 300"),
        (("md", "{in}", "--model", "{model}", "-o", "{absent}", "--timestep", "-1"), "timestep = -1.0"),
        (("md", "{in}", "--model", "{model}"), "expected STRUCTURE, --model and --out"),
        (("md", "{in}", "--restart", "{in}"), "expected --restart with --steps alone"),
        (("md", "--restart", "{text}"), "NAME.restart.npz"),
    ],
)
def test_bad_arguments_say_what_to_do(
    structures: Path, model: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "text").write_text("words, words")
    (tmp_path / "broken").write_bytes(model.read_bytes()[:-9])
    places = {"in": structures, "model": model} | {n: tmp_path / n for n in ("absent", "text", "broken")}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert says in result.output


def test_a_saved_run_wants_its_model_back(tmp_path: Path, model: Path) -> None:
    own = tmp_path / "own.irrepc"
    own.write_bytes(model.read_bytes())
    start(own, tmp_path, "run", "--steps", 8, "--temperature", 300)
    restart = tmp_path / "run.restart.npz"
    assert "expected more" in run("md", "--restart", restart, "--steps", 8).output
    with pytest.raises(AssertionError, match="there already"):
        start(own, tmp_path, "run", "--steps", 8)
    save_model(NequIP(CONFIG, "torch", dtype=torch.float64, seed=9), own)
    assert "has changed since" in run("md", "--restart", restart, "--steps", 20).output
    restart.write_bytes(restart.read_bytes()[:-200])
    assert "which is no saved run" in run("md", "--restart", restart, "--steps", 20).output
