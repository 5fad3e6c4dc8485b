"""Model libraries against the Python engine: results, threads, ghosts, errors, a program in C, another processor."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irrepc.deploy.deployed import Deployed
from irrepc.deploy.native import HEADER, library_texts, write_library
from irrepc.deploy.program import Program
from irrepc.errors import BackendError
from irrepc.runtime.object_code import Processor
from tests.deploy import networks
from tests.deploy.library import CELLS, FORWARD, REVERSE, Library, Pairs, RefusedError, listed, nequip, structure
from tests.deploy.networks import NAMES

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler cc")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def program() -> Program:
    return nequip()


@pytest.fixture(scope="module")
def path(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(program, tmp_path_factory.mktemp("native") / "model.so")[0]


@pytest.fixture
def library(path: Path) -> Iterator[Library]:
    opened = Library(path)
    yield opened
    opened.close()


def compare(program: Program, library: Library, name: str, bound: float) -> None:
    """Energies, forces and stress are those of the Python engine."""
    cell, positions, kinds = structure(name)
    numbers = np.array(program.species)[kinds]
    meant = Deployed(program, 1).evaluate(numbers, positions, cell, True)
    got = library.evaluate(listed(kinds, positions, cell, program.cutoff))
    assert meant.stress is not None
    assert np.abs(meant.forces).max() > 1e-3 or name == "single"
    for ours, theirs in (
        (got.energies, meant.energies),
        (got.forces, meant.forces),
        (got.virial / abs(np.linalg.det(cell)), meant.stress),
    ):
        assert np.abs(ours - theirs).max() < bound * max(1.0, np.abs(theirs).max())
    halves = got.virials.sum(0)[[[0, 3, 4], [3, 1, 5], [4, 5, 2]]]
    assert np.allclose(halves, got.virial, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_equal_to_the_python_engine(program: Program, library: Library, name: str) -> None:
    compare(program, library, name, 1e-12)


def test_one_library_after_another_structure(program: Program, library: Library) -> None:
    """Memory grows and is used again."""
    for name in ("single", "wide", "thin", "wide"):
        compare(program, library, name, 1e-12)


def test_any_number_of_threads_gives_the_same_bits(program: Program, path: Path) -> None:
    cell, positions, kinds = structure("wide")
    pairs = listed(kinds, positions, cell, program.cutoff)
    libraries = [Library(path, threads) for threads in (1, 2, 3)]
    for _ in range(5):
        alone, *others = (library.evaluate(pairs) for library in libraries)
        for other in others:
            assert all(np.array_equal(a, b) for a, b in zip(alone, other, strict=True))
    libraries[1].check(libraries[1].c.irrepc_model_set_threads(libraries[1].model, 4))
    assert np.array_equal(libraries[1].evaluate(pairs).forces, alone.forces)
    for library in libraries:
        library.close()


def ghosts(kinds: np.ndarray, positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[Pairs, np.ndarray]:
    """The same structure with images as atoms of their own, and the owner of each atom."""
    pairs = listed(kinds, positions, cell, cutoff)
    count = len(kinds)
    images: dict[tuple[int, bytes], int] = {}
    senders, owners, places = [], [*range(count)], [*positions]
    for j, shift in zip(pairs.neighbours, np.round(pairs.shifts, 9), strict=True):
        key = (int(j), (shift + 0.0).tobytes())
        if not shift.any():
            senders.append(int(j))
            continue
        if key not in images:
            images[key] = len(owners)
            owners.append(int(j))
            places.append(positions[j] + shift)
        senders.append(images[key])
    owner = np.array(owners)
    atoms = np.ascontiguousarray(kinds[owner], np.int32)
    listed_ = Pairs(atoms, np.array(places), pairs.first, np.array(senders, np.int32), np.zeros((len(senders), 3)))
    return listed_, owner


def compare_with_ghosts(program: Program, library: Library, name: str) -> list[tuple[int, int]]:
    """The same structure with images as ghost atoms: features fetched forwards, derivatives brought back.

    Returns the directions and widths of what was exchanged.
    """
    cell, positions, kinds = structure(name)
    meant = library.evaluate(listed(kinds, positions, cell, program.cutoff))
    pairs, owner = ghosts(kinds, positions, cell, program.cutoff)
    local, total = len(kinds), len(owner)
    asked = []

    def exchange(_: int, features: int, number_bytes: int, width: int, direction: int, row: int) -> int:
        assert number_bytes == 8
        asked.append((direction, width))
        rows = np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_int64)), (total,))
        flat = ctypes.cast(features, ctypes.POINTER(ctypes.c_double))
        matrix = np.ctypeslib.as_array(flat, (total, width))
        if direction == FORWARD:
            matrix[rows[local:]] = matrix[rows[owner[local:]]]
        else:
            np.add.at(matrix, rows[owner[local:]], matrix[rows[local:]])
        return 0

    library.set_exchange(exchange)
    got = library.evaluate(pairs, shifts=False)
    library.set_exchange(None)
    forces = np.zeros((local, 3))
    np.add.at(forces, owner, got.forces)
    bound = 1e-12 * max(1.0, np.abs(meant.forces).max())
    assert np.abs(got.energies - meant.energies).max() < 1e-12 * max(1.0, np.abs(meant.energies).max())
    assert np.abs(forces - meant.forces).max() < bound
    assert np.abs(got.virial - meant.virial).max() < bound * max(1.0, np.abs(meant.virial).max())
    return asked


@pytest.mark.parametrize("name", ["thin", "skewed"])
def test_ghosts_are_exchanged_between_layers(program: Program, library: Library, name: str) -> None:
    """What a halo exchange does; the first layer needs none, for what is sent there is known from the species."""
    asked = compare_with_ghosts(program, library, name)
    reach = library.c.irrepc_model_reach()
    assert reach == 3
    assert [d for d, _ in asked] == [FORWARD] * (reach - 1) + [REVERSE] * (reach - 1)
    assert max(w for _, w in asked) == library.c.irrepc_model_exchange_width()
    cell, positions, kinds = structure(name)
    library.set_exchange(lambda *_: 1)
    with pytest.raises(RefusedError, match="caller's function"):
        library.evaluate(ghosts(kinds, positions, cell, program.cutoff)[0], shifts=False)


def test_ghosts_without_an_exchange_are_refused(program: Program, library: Library) -> None:
    cell, positions, kinds = structure("thin")
    pairs, _ = ghosts(kinds, positions, cell, program.cutoff)
    with pytest.raises(RefusedError, match=r"\(6, 'exchange: got \d+ ghost atoms and no function"):
        library.evaluate(pairs, shifts=False)


def test_atoms_without_neighbours_and_no_atoms(program: Program, library: Library) -> None:
    """Three atoms far apart have their own energies and no forces; nothing is nothing."""
    far = np.array([[0.0, 0, 0], [50, 0, 0], [0, 50, 0]])
    got = library.evaluate(listed(np.array([1, 0, 1]), far, None, program.cutoff))
    assert got.energies[0] == got.energies[2] != got.energies[1]
    assert not got.forces.any() and not got.virial.any()
    empty = library.evaluate(listed(np.zeros(0), np.zeros((0, 3)), None, program.cutoff))
    assert empty.energies.shape == (0,) and not empty.virial.any()


def test_forces_are_minus_the_gradient(program: Program, library: Library) -> None:
    cell, positions, kinds = structure("thin")
    forces = library.evaluate(listed(kinds, positions, cell, program.cutoff)).forces
    step = 1e-4
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        moved = [positions.copy(), positions.copy()]
        moved[0][atom, axis] += step
        moved[1][atom, axis] -= step
        up, down = (library.evaluate(listed(kinds, p, cell, program.cutoff)).energies.sum() for p in moved)
        assert abs((down - up) / (2 * step) - forces[atom, axis]) < 1e-7


def test_bad_input_is_said(program: Program, library: Library) -> None:
    cell, positions, kinds = structure("skewed")
    good = listed(kinds, positions, cell, program.cutoff)

    def refused(match: str, **changed: np.ndarray) -> None:
        with pytest.raises(RefusedError, match=match):
            library.evaluate(good._replace(**changed))

    refused(r"\(3, 'species: got 2 for atom 4; expected 0 to 1", species=_with(good.species, 4, 2))
    refused(r"\(4, 'positions: got nan for atom 1;", positions=_with(good.positions, (1, 2), np.nan))
    refused(r"\(4, 'positions: got -?inf for atom 1;", positions=_with(good.positions, (1, 2), np.inf))
    refused(r"\(5, 'positions: got atoms \d+ and \d+ at 0\.1", positions=_with(good.positions, 0, positions[1] + 0.1))
    refused(r"\(2, 'neighbours: got 99 for atom 0", neighbours=_with(good.neighbours, 3, 99))
    refused(r"\(2, 'first: got a number below", first=_with(good.first, 3, 0))
    code = library.c.irrepc_model_evaluate(library.model, 5, 5, *[None] * 9)
    assert code == 2 and b"null pointer" in library.c.irrepc_model_message(library.model)
    assert library.c.irrepc_model_set_threads(library.model, 0) == 2
    assert np.isfinite(library.evaluate(good).energies).all(), "a model goes on after an error"


def _with(array: np.ndarray, place: object, value: object) -> np.ndarray:
    changed = array.copy()
    changed[place] = value  # type: ignore[index]
    return changed


def test_a_program_in_c(program: Program, path: Path, tmp_path: Path) -> None:
    """The header is C11 and C++, and a program that knows nothing else gets the numbers of the Python engine."""
    where = ["-I", str(path.parent)]
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wno-sign-conversion", "-Werror"]
    shutil.copy(path, tmp_path / "libmodel.so")
    link = ["-o", "evaluate", str(HERE / "evaluate.c"), "-L.", "-lmodel", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["cc", *strict, *where, *link], cwd=tmp_path, check=True)
    (tmp_path / "header.cpp").write_text(f'#include "{HEADER}"\n')
    subprocess.run(["cc", "-xc++", "-std=c++17", "-fsyntax-only", *where, "header.cpp"], cwd=tmp_path, check=True)
    cell, positions, kinds = structure("skewed")
    pairs = listed(kinds, positions, cell, program.cutoff)
    counts = [str(len(kinds)), str(len(pairs.neighbours))]
    given = " ".join([*counts, *(repr(v) for array in pairs for v in array.ravel().tolist())])
    done = subprocess.run([tmp_path / "evaluate"], input=given, capture_output=True, text=True, check=True)
    printed = np.array(done.stdout.split(), float)
    meant = Deployed(program, 1).evaluate(np.array(program.species)[kinds], positions, cell, True)
    assert meant.stress is not None
    virial = meant.stress * abs(np.linalg.det(cell))
    expected = np.concatenate([meant.energies, meant.forces.ravel(), virial.ravel()])
    assert np.abs(printed - expected).max() < 1e-12 * max(1.0, np.abs(expected).max())


def test_what_is_known_of_the_model(program: Program, tmp_path: Path) -> None:
    """Any text arrives as it is, and none ends a comment or a literal."""
    odd = 'quote " backslash \\ comment */ ?? µ 7'
    told = replace(program, metadata={"origin": odd, "force_bound": 1e-6})
    text = library_texts(told, Processor.native())[0]
    literal = text.split("static const char about[] =")[1].split(";\n")[0]
    source = f"#include <stdio.h>\nint main(void) {{ puts({literal}); return 0; }}\n"
    (tmp_path / "about.c").write_text(source)
    subprocess.run(["cc", "-o", "about", "about.c"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "about"], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:3] == ["numbers: float64", f"origin: {odd.replace('*/', '* /')}", "force_bound: 1e-06"]
    assert text.count("/*") == text.count("*/")


def test_the_text_compiles_without_a_warning(program: Program, path: Path, tmp_path: Path) -> None:
    (tmp_path / "model.c").write_text(library_texts(program, Processor.native())[0])
    command = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Wno-sign-compare", "-Wno-unused-parameter", "-Werror"]
    subprocess.run([*command, "-I", str(path.parent), "-c", "model.c"], cwd=tmp_path, check=True)


def test_the_library_needs_the_c_library_alone(path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    said = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split("]")[0] for line in said.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0"}
    names = subprocess.run(["readelf", "-W", "--dyn-syms", path], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in names.splitlines() if " GLOBAL DEFAULT " in line and " UND " not in line]
    assert all(line[-1].startswith("irrepc_model_") for line in lines) and len(lines) >= 12


def test_single_precision(tmp_path: Path) -> None:
    program = nequip("float32", layers=2)
    library = Library(write_library(program, tmp_path / "model.so")[0])
    assert library.c.irrepc_model_number_bytes() == 4
    for name in CELLS:
        compare(program, library, name, 3e-6)
    library.close()


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=() if name == "mace" else pytest.mark.slow) for name in NAMES]
)
def test_networks_for_another_processor(network: str, tmp_path: Path) -> None:
    """Built for x86-64-v3: registers of 256 bits, other tiles."""
    if "+avx2" not in Processor.native().features:
        pytest.skip("this processor has no AVX2")
    deployed = networks.program(network)
    library = Library(write_library(deployed, tmp_path / "model.so", cpu="x86-64-v3")[0])
    for name in ("skewed", "thin"):
        compare(deployed, library, name, 1e-12)
        asked = compare_with_ghosts(deployed, library, name)
        assert len(asked) == 2 * (library.c.irrepc_model_reach() - 1) > 0
    library.close()


def test_what_is_missing_is_named(program: Program, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no C compiler 'no-such-compiler'"):
        write_library(program, tmp_path / "model.so", compiler="no-such-compiler")
    with pytest.raises(BackendError, match="processor: got 'no-such-processor'; expected native, x86-64-v2"):
        write_library(program, tmp_path / "model.so", cpu="no-such-processor")
    assert not list(tmp_path.iterdir())


def test_text_is_the_same_each_time(program: Program) -> None:
    processor = Processor("x86-64-v3")
    assert library_texts(program, processor) == library_texts(program, processor)
