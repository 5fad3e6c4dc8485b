"""The main job in its quick form: every part of the report is there, and the folder appears whole or not at all."""

import json
import re
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from irrepc.emit.package import package
from irrepc.errors import IrrepcError
from irrepc.models import load_model
from irrepc.train import demo
from irrepc.train.data import ethanol
from irrepc.train.evaluate import evaluate
from irrepc.train.findings import cost_rows
from irrepc.train.folder import whole_folder
from irrepc.train.report import MARKER

PICTURES = ("coupling_sparsity", "energy_drift", "learning_curve", "parity_energies", "parity_forces")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one quick walk."""
    return demo.run(tmp_path_factory.mktemp("demo") / "report", quick=True)


class Page(HTMLParser):
    """The text of a page, what it loads from elsewhere, and the elements that were opened and not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class TestReport:
    def test_files(self, report: Path) -> None:
        folder = report.parent
        assert report == folder / "report.html"
        assert {path.name for path in folder.iterdir()} == {
            *(f"{name}.png" for name in PICTURES),
            *("report.html", "demo.json", "model.pt", "lmax1"),
        }
        assert not [path for path in folder.parent.iterdir() if path != folder], "something was left beside the report"

    @pytest.mark.parametrize("name", PICTURES)
    def test_pictures(self, report: Path, name: str) -> None:
        png = (report.parent / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
        assert min(width, height) > 400

    def test_page_stands_alone(self, report: Path) -> None:
        page = Page(report.read_text(encoding="utf-8"))
        assert page.open == []
        assert len(page.sources) == len(PICTURES)
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)

    def test_page_says_everything(self, report: Path) -> None:
        words = " ".join(Page(report.read_text(encoding="utf-8")).words)
        for what in (
            "GFN2-xTB",
            "irrepc generate --lmax 1",
            "coupling invariance",
            "convolution",
            "spherical_harmonics",
        ):
            assert what in words
        for what in ("test_300K", "test_500K", "before training", "after training", "float64", "seed", "torch"):
            assert what in words
        assert re.search(r"MAE [\d.]+ meV/Å, [\d.]+% of the labels' mean \|force\| \d+ meV/Å", words)
        assert re.search(r"Drift: [+-][\d.]+ meV per atom and ps", words)

    def test_numbers(self, report: Path) -> None:
        numbers = json.loads((report.parent / MARKER).read_text(encoding="utf-8"))
        assert [entry["number"] for entry in numbers["epochs"]] == list(range(1, demo.QUICK.epochs + 1))
        assert numbers["epochs"][-1]["validation"]["force_mae"] < numbers["epochs"][0]["validation"]["force_mae"]
        for group in ("test_300K", "test_500K"):
            labels = numbers["force_labels"][group]["mean_absolute"]
            assert numbers["errors"][group]["force_mae"] < 1e3 * labels
        limits = {"float32": 1e-3, "float64": 1e-11}
        assert [(entry["when"], entry["dtype"]) for entry in numbers["rotations"]] == [
            (when, dtype) for when in ("before training", "after training") for dtype in limits
        ]
        assert all(0 < entry["forces"] < limits[entry["dtype"]] for entry in numbers["rotations"])

    def test_model_is_the_one_that_was_tested(self, report: Path) -> None:
        numbers = json.loads((report.parent / MARKER).read_text(encoding="utf-8"))
        model = load_model(report.parent / "model.pt", "torch")
        errors = evaluate(model, ethanol("test_300K").select(range(demo.QUICK.tests))).errors
        assert errors.force_mae == pytest.approx(numbers["errors"]["test_300K"]["force_mae"], rel=1e-4)

    def test_package_is_the_one_of_generate(self, report: Path) -> None:
        folder = report.parent / "lmax1"
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        expected = package(1)
        assert files == set(expected)
        assert all((folder / name).read_text(encoding="utf-8") == text for name, text in expected.items())
        location = spec_from_file_location("made_by_the_demo", folder / "clebsch_gordan.py")
        assert location is not None
        assert location.loader is not None
        location.loader.exec_module(module_from_spec(location))


class TestWalk:
    def test_what_is_not_a_report_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(IrrepcError, match=r"holds something else; expected a new or empty folder"):
            demo.run(tmp_path, quick=True)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(demo, "warm_up", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.run(tmp_path / "report", quick=True)
        assert list(tmp_path.iterdir()) == []


def test_costs_are_polynomials_in_the_channels() -> None:
    columns = ["function", "order", "outputs", "channel axes", "mul", "add", "load", "store"]
    single = [["gate", 0, "o", "", 3, 0, 0, 0], ["gate", 0, "o", "u, v", 1200, 7, 0, 0]]
    products = [[f"tensor_product_{i}", 0, "o", "u", i, 0, 0, 0] for i in (1, 2)]
    kernels = [{"function": rows[0][0], "cost": {"numba": rows}} for rows in (single, products[:1], products[1:])]
    assert cost_rows({"cost_columns": columns, "kernels": kernels}, "numba") == [
        ("gate", "0", "3 + 1,200·u·v", "7·u·v"),
        ("2 tensor products, together", "0", "3·u", "0"),
    ]


class TestFolder:
    def test_appears_when_it_is_done(self, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "report"
        with whole_folder(target, "mark") as folder:
            (folder / "mark").write_text("one")
            assert not target.exists()
        assert (target / "mark").read_text() == "one"
        assert [path.name for path in target.parent.iterdir()] == ["report"]

    def test_replaces_its_kind(self, tmp_path: Path) -> None:
        for text in ("one", "two"):
            with whole_folder(tmp_path / "report", "mark") as folder:
                (folder / "mark").write_text(text)
                (folder / text).touch()
        assert {path.name for path in (tmp_path / "report").iterdir()} == {"mark", "two"}
        assert [path.name for path in tmp_path.iterdir()] == ["report"]

    def test_takes_an_empty_folder(self, tmp_path: Path) -> None:
        with whole_folder(tmp_path, "mark") as folder:
            (folder / "mark").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["mark"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_error_leaves_the_old_one(self, tmp_path: Path, error: type[BaseException]) -> None:
        target = tmp_path / "report"
        target.mkdir()
        (target / "mark").write_text("old")
        with pytest.raises(error), whole_folder(target, "mark") as folder:
            (folder / "mark").write_text("new")
            raise error
        assert (target / "mark").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["report"]

    def test_a_folder_that_filled_up_in_the_meantime(self, tmp_path: Path) -> None:
        target = tmp_path / "report"
        with pytest.raises(IrrepcError, match="holds something else"), whole_folder(target, "mark") as folder:
            (folder / "mark").touch()
            target.mkdir()
            (target / "letter").touch()
        assert [path.name for path in target.iterdir()] == ["letter"]

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "report").touch()
        with pytest.raises(IrrepcError, match="holds something else"), whole_folder(tmp_path / "report", "mark"):
            pytest.fail("the block ran")

    def test_a_place_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(IrrepcError, match="cannot be made"), whole_folder(tmp_path / "file" / "report", "mark"):
            pytest.fail("the block ran")
