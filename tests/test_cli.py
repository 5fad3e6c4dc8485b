"""The verbs of the command line, their errors, and what `check` finds in a package that was changed."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from irrepc import __version__, cli
from irrepc.commands import shelf as shelf_module
from irrepc.commands.check_text import read_files, read_surd
from irrepc.commands.show import show
from irrepc.emit.manifest import NAME
from irrepc.emit.module import BACKENDS
from irrepc.emit.plan import LIMIT
from irrepc.emit.tables import rising
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.runtime import store

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> Result:
    """Run the command in this process, on a wide terminal."""
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(cli.main, arguments, catch_exceptions=False, prog_name="irrepc")


def fresh(*arguments: str) -> tuple[str, set[str]]:
    """Run the command in a fresh interpreter; what it prints and the top-level modules it left loaded."""
    code = (
        "import json, sys\nfrom irrepc.cli import main\n"
        f"main({list(arguments)!r}, prog_name='irrepc', standalone_mode=False)\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return "\n".join(lines), set(json.loads(modules))


# ── the frame ────────────────────────────────────────────────────────────────────────────────────


def test_the_verbs_are_those_of_the_design() -> None:
    assert list(cli.main.commands) == [
        "generate",
        "show",
        "list",
        "check",
        "build",
        "bench",
        "convert",
        "deploy",
        "lammps",
        "eval",
        "relax",
        "md",
        "demo",
        "train",
    ]


def test_what_the_command_line_repeats_is_true() -> None:
    """cli.py names backends and the limit itself, so that --help imports nothing."""
    assert cli.BACKENDS == BACKENDS
    assert cli.DEFAULT_LIMIT == LIMIT


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("generate", "--help"), ("check", "--help")])
def test_help_loads_neither_torch_nor_sympy_nor_numba(arguments: tuple[str, ...]) -> None:
    out, modules = fresh(*arguments)
    assert not {"torch", "sympy", "numba", "numpy", "jinja2"} & modules
    assert (__version__ if arguments == ("--version",) else "Usage: irrepc") in out


def test_generate_loads_neither_torch_nor_sympy(tmp_path: Path) -> None:
    _, modules = fresh("generate", "--lmax", "0", "--out", str(tmp_path))
    assert not {"torch", "sympy", "numba", "numpy"} & modules


# ── generate ─────────────────────────────────────────────────────────────────────────────────────


def test_generate_writes_a_package_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    order = ("generate", "--lmax", "1", "--irreps", "2x0e+2x1o", "--out", "deep/here")
    result = run(*order, "--backend", "torch", "numba")
    assert result.exit_code == 0, result.output
    assert "✓ harmonicity" in result.output
    assert re.search(r"convolution +\d+ \+ \d+·u", result.output)
    assert result.output.splitlines()[-1] == "from deep.here.lmax1.layers import Convolution, Linear, Gate"
    before = read_files(tmp_path)
    assert "deep/here/lmax1/torch/convolution.py" in before
    assert run(*order).exit_code == 0
    assert read_files(tmp_path) == before, "a second run gives the same bytes"


def test_generate_says_what_it_leaves_out(tmp_path: Path) -> None:
    result = run("generate", "--lmax", "2", "--limit", "1000", "--out", str(tmp_path), "--backend", "torch")
    assert result.exit_code == 0
    assert "left out convolution: about 1,079 terms, more than 1,000 in one module; ask for it with --limit 1079" in (
        result.output
    )


def test_generate_in_several_processes_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("generate", "--lmax", "1", "--out", str(tmp_path / "one"))
    monkeypatch.setattr(importlib.import_module("irrepc.commands.produce"), "PARALLEL", 0)
    run("generate", "--lmax", "1", "--out", str(tmp_path / "two"))
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two")


def test_the_shelf_is_written_from_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = "[lmax1]\nlmax = 1\nbackends = ['torch']\n[lmax0]\nlmax = 0\nwhole = false\n"
    (tmp_path / "recipes.toml").write_text(recipes)
    monkeypatch.setattr(shelf_module, "shelf_folder", lambda: tmp_path)
    assert run("generate", "--shelf").exit_code == 0
    found = read_files(tmp_path)
    assert {path for path in found if path.startswith("lmax0/")} == {f"lmax0/{NAME}"}
    assert "lmax1/torch/convolution.py" in found
    assert "| [lmax0](lmax0) | `irrepc generate --lmax 0` | 24 |" in found["README.md"]
    assert run("check", str(tmp_path)).exit_code == 0
    (tmp_path / "README.md").write_text("# mine")
    result = run("check", str(tmp_path))
    assert result.exit_code == 1
    assert "README.md: differs" in result.output


# ── bad input: one line, exit status 2, no traceback ─────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate",), "expected either --lmax or --shelf"),
        (("generate", "--lmax", "1", "--shelf"), "expected either --lmax or --shelf"),
        (("generate", "--lmax", "two"), "'two' is not a valid integer"),
        (("generate", "--lmax", "-1"), "degree: got -1; expected an integer >= 0"),
        (("generate", "--lmax", "1", "torch"), "got unexpected argument 'torch'"),
        (("generate", "--lmax", "1", "--backend", "fortran"), "backend: got 'fortran'; expected one of torch"),
        (("generate", "--lmax", "1", "--backend", "torch", "torch"), "expected each of"),
        (("generate", "--lmax", "1", "--irreps", "16x0g"), "irreps: got '16x0g'"),
        (("generate", "--lmax", "99"), "got spherical_harmonics of about 260,000 terms; expected at most 40,000"),
        (("generate", "--lmax", "8", "--irreps", "4x7o+4x8e+4x6e"), "got convolution of about"),
        (("generate", "--lmax", "1", "--out", "{file}"), "expected a folder that can be written"),
        (("generate", "--lmax", "1", "--out", "{foreign}"), "holds files but no manifest.json of irrepc"),
        (("show", "nonsense"), "show: got 'nonsense'; expected for instance"),
        (("show", ""), "expected for instance"),
        (("show", "1o x 1o -> 3e"), "output 3e is not in 1o ⊗ 1o = 0e+1e+2e"),
        (("show", "1o x 1g -> 1e"), "expected two irreps"),
        (("show", "Y -1"), "degree: got -1"),
        (("show", "Y 2 3"), "expected -l <= m <= l"),
        (("show", "Y 1 2 3"), "expected"),
        (("show", "CG 1 1 3"), "output 3e is not in 1o ⊗ 1o"),
        (("show", "convolution 16x0q"), "irreps: got '16x0q'"),
        (("show", "gate 4x0e -> 4x1o"), "expected '->' with linear only"),
        (("show", "gate 4x0e", "--as", "formula"), "got formula for 'gate 4x0e'"),
        (("show", "Y 1", "--as", "ir", "--latex"), "expected it with formulas only"),
        (("show", "Y 1", "--as", "poem"), "'poem' is not one of"),
        (("show", "Y 1", "--order", "3"), "3 is not in the range"),
        (("check", "{empty}"), "which holds no manifest.json"),
        (("check", "{file}"), "an empty file; expected a file of irrepc"),
        (("check", "{empty}/none"), "expected the folder of a package"),
        (("bench", "--edges", "0"), "0 is not in the range"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "lmax1").mkdir(parents=True)
    (tmp_path / "foreign" / "lmax1" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    places = {name: str(tmp_path / name) for name in ("empty", "foreign", "file")}
    result = run(*(a.format(**places) for a in arguments))
    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output
    assert result.output.count("Error: ") == 1
    assert not list(tmp_path.rglob("*.py"))


# ── show ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Y 2",), "Y 2 -1 = √15·x·y"),
        (("Y 2 0",), "Y 2 0 = √5·(-x² + 2·y² - z²)/2"),
        (("Y 2", "--latex"), r"Y_{2,-2} = \sqrt{15} x z"),
        (("D 1",), "D 1 (0,0)   = w² - x² + y² - z²"),
        (("CG 1 1 0",), "√3·a[0]·b[0]/3"),
        (("1o x 1o -> 1e",), "w3j 1 1 1 m=0  = -√6·a[-1]·b[+1]/6 + √6·a[+1]·b[-1]/6"),
        (("1o ⊗ 1o -> 1e", "--as", "ir"), "o[0] = √6/6·x[1]·y[2] + -√6/6·x[2]·y[1]"),
        (("1o x 1o -> 1e", "--as", "ir", "--order", "1"), "kernel tensor_product_vjp\n"),
        (("CG 1 1 1", "--as", "ir"), "√2/2·x[1]·y[2]"),
        (("w3j 1 1 1", "--as", "ir"), "√6/6·x[1]·y[2]"),
        (("D 1", "--as", "ir"), "kernel wigner_d\n"),
        (("convolution 4x0e+4x1o",), "kernel convolution\n"),
        (("convolution 4x0e+4x1o", "--as", "passes", "--order", "2"), "share "),
        (("linear 16x0e+8x1o -> 4x0e",), "o[0] = 1·w[0]·x[0]"),
        (("gate 4x0e+4x1o",), "o[1] = 1·s[1]·x[1]"),
        (("norm 4x1o",), "o[0] = 1·x[0]·x[0]"),
        (("1o x 1o -> 1e", "--as", "torch", "--order", "0"), "C0 = 0.408248290463863  # √6/6\n\ndef tensor_product("),
        (("1o x 1o -> 1e", "--as", "torch"), "def tensor_product_vjp_vjp("),
        (("1o x 1o -> 1e", "--as", "numba", "--order", "1"), "def _tensor_product_vjp_d_x_d_y("),
        (("1o x 1o -> 1e", "--as", "llvm", "--order", "0"), "define void @_tensor_product_o("),
        (("1o x 1o -> 1e", "--as", "cuda", "--order", "0"), "__global__ void BOUNDS tensor_product_o("),
    ],
)
def test_show(arguments: tuple[str, ...], says: str) -> None:
    result = run("show", *arguments)
    assert result.exit_code == 0, result.output
    assert says in result.output
    if "--order" in arguments and arguments[-3] in BACKENDS and arguments[-1] != "2":
        assert "_vjp_vjp(" not in result.output


def test_emitted_functions_of_one_order_are_python() -> None:
    for backend in ("torch", "numba"):
        for order in range(3):
            compile(show("linear 2x0e+3x1o", backend, order), backend, "exec")


def test_passes_lower_the_cost_of_a_channel() -> None:
    lines = show("convolution 16x0e+16x1o+16x2e", "passes", 1).splitlines()
    per_channel = [int(re.findall(r"(\d+)·u", line)[0]) for line in lines[2:]]
    assert [line.split()[0] for line in lines[2:]] == ["derived", "merge", "hoist", "factor", "share"]
    assert per_channel == sorted(per_channel, reverse=True)
    assert per_channel[-1] < per_channel[0] / 2


# ── list ─────────────────────────────────────────────────────────────────────────────────────────


def test_list_shows_shelf_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(store, "_on_shelf", lambda recipe, backend: None)
    store.load_module.cache_clear()
    recipe, _ = importlib.import_module("irrepc.commands.show").read_request("linear 5x0e+7x1o")
    module, _ = store.load_module(recipe, "torch")
    del sys.modules[module.__name__]
    store.load_module.cache_clear()
    out = run("list").output
    assert "lmax2  irrepc generate --lmax 2" in out
    assert "lmax4  irrepc generate --lmax 4  (hashes only" in out
    assert re.search(r"linear\(u\*0e\+u1\*1o -> v\*0e\+v1\*1o\) +torch +1·u·v \+ 3·u1·v1", out)


# ── check ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checked")
    assert run("generate", "--lmax", "1", "--irreps", "3x0e+3x1o", "--out", str(folder)).exit_code == 0
    return folder / "lmax1"


def edit(path: str, before: str, after: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert before in text
        (folder / path).write_text(text.replace(before, after, 1), encoding="utf-8")

    change.__name__ = f"{path}: {before} to {after}"
    return change


def remove(folder: Path) -> None:
    (folder / "torch" / "gate.py").unlink()


def add(folder: Path) -> None:
    (folder / "torch" / "mine.py").write_text("x = 1\n")


def manifest_of_nothing(folder: Path) -> None:
    (folder / NAME).write_text('{"irrepc": "0", "sha256": {}}')


def no_manifest(folder: Path) -> None:
    (folder / NAME).write_text("{")


def another_degree(folder: Path) -> None:
    content = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps({**content, "lmax": 0}))


def test_a_sound_package_passes_every_check(package: Path) -> None:
    result = run("check", str(package))
    assert result.exit_code == 0, result.output
    for name in ("text", "literals", "couplings", "modules", "values", "equivariance", "derivatives"):
        assert f"✓ {name} " in result.output
    functions = 2 * (1 + 1 + 5 + 1 + 2 + 1 + 1)
    assert f"{3 * functions} functions equal their kernels" in result.output
    assert not list(package.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit("REPORT.md", "lmax1", "lmax9"), ["REPORT.md: differs", "-# lmax9", "+# lmax1"]),
        (edit("torch/spherical_harmonics.py", "1.7320508075688772", "1.7320508075688774"), ["literals", "is 1.732"]),
        (edit("numba/spherical_harmonics.py", "1.7320508075688772", "1.75"), ["✗ values", "✗ literals"]),
        (edit("torch/spherical_harmonics.py", "# √3", "# √2"), ["✗ literals", "expected 1.4142135623730951"]),
        (edit("torch/spherical_harmonics.py", "# √3", "# root"), ["✗ literals", "expected a sum of square roots"]),
        (edit("torch/gate.py", "o0 = s0 * x0", "o0 = 0.5 * s0"), ["0.5 stands without its exact value", "✗ values"]),
        (edit("torch/gate.py", "o0 = s0 * x0", "o0 = s0 * x1"), ["✗ values", "torch gate: "]),
        (edit("torch/gate.py", "o1 = s1 * x1", "o1 = s0 * x1"), ["✗ equivariance", "✗ derivatives"]),
        (edit("torch/norm.py", "def squared_norm(", "def squared_norm(("), ["SyntaxError", "✗ modules"]),
        (edit("torch/norm.py", "import torch\n", "import nothing\n"), ["ModuleNotFoundError", "✗ modules"]),
        (edit("clebsch_gordan.py", "-1, 1, 6,", "+1, 1, 6,"), ["✗ couplings"]),
        (edit("clebsch_gordan.py", "0.408248290463863)", "0.408248290463864)"), ["✗ couplings"]),
        (edit("clebsch_gordan.py", "TABLE = {", "TABLE = {{"), ["no table can be read"]),
        (remove, ["gate.py: missing", "✗ modules"]),
        (add, ["mine.py: not emitted by these sources"]),
        (another_degree, ["✗ text"]),
        (manifest_of_nothing, ["✗ manifest", "KeyError: 'lmax'"]),
        (no_manifest, ["✗ manifest", "JSONDecodeError"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_changed_is_found(
    change: Callable[[Path], None], says: list[str], package: Path, tmp_path: Path
) -> None:
    for path, text in read_files(package).items():
        (tmp_path / "lmax1" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lmax1" / path).write_text(text, encoding="utf-8")
    change(tmp_path / "lmax1")
    result = run("check", str(tmp_path / "lmax1"))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    for text in says:
        assert text in result.output


@pytest.mark.parametrize("degrees", rising(4))
def test_exact_values_are_read_back(degrees: tuple[int, int, int]) -> None:
    for value in w3j(*degrees).values():
        assert read_surd(str(value)) == value


@pytest.mark.parametrize("text", ["1", "-1/2", "√3", "2√5/7 - 1/2", "-√2 + √6/3 + 5"])
def test_sums_of_surds_are_read_back(text: str) -> None:
    assert str(read_surd(str(read_surd(text)))) == str(read_surd(text))
    total = eval(re.sub(r"(\d*)√(\d+)", lambda m: f"{m[1] or 1}*{m[2]}**0.5", text))
    assert float(read_surd(text)) == pytest.approx(total, abs=1e-15)


@pytest.mark.parametrize("text", ["root", "√", "1 2", "1/", "1 + ", "√3 x"])
def test_other_texts_are_no_surds(text: str) -> None:
    with pytest.raises(ValueError, match="expected a sum of square roots"):
        read_surd(text)


# ── bench ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_bench_compares_and_times() -> None:
    result = run("bench", "--lmax", "1", "--edges", "40", "--channels", "4", "--threads", "1", "--repeats", "3")
    assert result.exit_code == 0, result.output
    assert "harmonics to degree 1" in " ".join(result.output.split())
    assert "over the floor" in " ".join(result.output.split())
