"""The wheel built from the source archive, and the editable install, work from an empty folder.

Nothing is downloaded: each goes without its dependencies into a fresh environment that sees those of this one.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

from irrepc import __version__

ROOT = Path(__file__).resolve().parents[1]
CARRIED = {"templates": "_templates", "generated": "_generated"}

pytestmark = pytest.mark.slow


class Install(NamedTuple):
    """irrepc in an environment of its own: its `bin`, its site-packages, and an empty folder to run from."""

    bin: Path
    packages: Path
    empty: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment from the empty folder; return what it prints, fail if it fails."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        own |= {"HOME": str(self.empty.parent), "IRREPC_CACHE": str(self.empty.parent / "cache")}
        return run([str(self.bin / program), *arguments], cwd=self.empty, env=own)


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install(wheel: Path, folder: Path) -> Install:
    """Make an environment in `folder` and install the one wheel into it."""
    run([sys.executable, "-m", "venv", str(folder / "env")], cwd=folder)
    (folder / "empty").mkdir()
    python = folder / "env" / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=folder)
    where = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder)
    packages = Path(where.strip())
    # Only now, lest pip should take the irrepc of this environment for an older one. A folder named in a .pth file
    # is searched, but the .pth files inside it are not read: an editable irrepc there stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Install(python.parent, packages, folder / "empty")


def build_wheel(folder: Path) -> Path:
    """Build the source archive, and from it alone the wheel."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], cwd=folder)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return next(folder.glob("*.whl"))


def build_editable(folder: Path) -> Path:
    """Build the wheel that `pip install -e` builds."""
    code = f"import hatchling.build; hatchling.build.build_editable({str(folder)!r})"
    run([sys.executable, "-c", code], cwd=ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Install:
    return install(build_wheel(tmp_path_factory.mktemp("dist")), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Install:
    return install(build_editable(tmp_path_factory.mktemp("dist")), tmp_path_factory.mktemp("editable"))


@pytest.fixture(params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest) -> Install:
    either: Install = request.getfixturevalue(request.param)
    return either


def carried(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {path: text for path, text in found.items() if "__pycache__" not in path}


PLACES = "import irrepc, irrepc.emit.templates as t; print(irrepc.__file__); print(t.template_root())"


def test_the_wheel_finds_its_own_copies(wheel: Install) -> None:
    package = wheel.packages / "irrepc"
    assert wheel.run("python", "-c", PLACES).split() == [str(package / "__init__.py"), str(package / "_templates")]


def test_the_editable_install_finds_the_checkout(editable: Install) -> None:
    places = [str(ROOT / "irrepc" / "__init__.py"), str(ROOT / "templates")]
    assert editable.run("python", "-c", PLACES).split() == places


def test_the_command_says_its_version(installed: Install) -> None:
    assert __version__ in installed.run("irrepc", "--version")


def test_a_package_is_generated_in_an_empty_folder(installed: Install) -> None:
    installed.run("irrepc", "generate", "--lmax", "1", "--out", "emitted")
    assert list((installed.empty / "emitted").rglob("*.py"))


def test_the_shelf_is_found(installed: Install) -> None:
    assert "lmax2" in installed.run("irrepc", "list")


@pytest.mark.parametrize("folder", CARRIED)
def test_the_wheel_carries_every_file(wheel: Install, folder: str) -> None:
    source, copy = carried(ROOT / folder), carried(wheel.packages / "irrepc" / CARRIED[folder])
    assert source, f"{folder}/ is empty"
    assert copy == source


def test_the_wheel_carries_the_package_and_nothing_beside_it(wheel: Install) -> None:
    packages = wheel.packages
    source, copy = carried(ROOT / "irrepc"), carried(packages / "irrepc")
    assert {path for path in copy if not path.startswith(tuple(CARRIED.values()))} == set(source)
    assert not [name for name in (*CARRIED, "tests", "examples", "benchmarks") if (packages / name).exists()]
