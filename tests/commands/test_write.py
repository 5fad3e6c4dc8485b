"""Writing a package: whole or not at all, one process at a time, never over something else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from irrepc.commands import write as module
from irrepc.commands.check_text import read_files
from irrepc.commands.write import OutputError, check_target, write_package
from irrepc.emit.manifest import NAME

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = json.dumps({"irrepc": "0", "sha256": {}})
OLD = {NAME: MANIFEST, "a.py": "old", "sub/b.py": "old"}
NEW = {NAME: MANIFEST, "a.py": "new", "c.py": "new"}


class Broken(Mapping[str, str]):
    """Files of which the second cannot be had."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, path: str) -> str:
        if path != NAME:
            raise self.error
        return MANIFEST

    def __iter__(self) -> Iterator[str]:
        return iter((NAME, "a.py"))

    def __len__(self) -> int:
        return 2


def left_over(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if p != target)


def test_a_package_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "lmax1"
    for files in (OLD, NEW, NEW):
        write_package(files, target)
        assert read_files(target) == files
        assert left_over(target) == []
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("no text")])
def test_an_interrupted_write_leaves_the_old_package(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "lmax1"
    write_package(OLD, target)
    with pytest.raises((OutputError, KeyboardInterrupt, ValueError)):
        write_package(Broken(error), target)
    assert read_files(target) == OLD
    assert left_over(target) == []


def test_a_failure_between_the_two_renames_brings_the_old_package_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lmax1"
    write_package(OLD, target)
    rename = os.replace

    def broken(source: Path, destination: Path) -> None:
        if destination == target and ".new-" in str(source):
            raise OSError("no space")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OutputError, match=r"got no space; expected to write .*lmax1; do: choose another --out"):
        write_package(NEW, target)
    assert read_files(target) == OLD
    assert left_over(target) == []


WRITER = """
import sys, time
from pathlib import Path
from irrepc.commands.write import write_package

class Slow(dict):
    def items(self):
        for path, text in super().items():
            yield path, text
            print("half", flush=True)
            time.sleep(float(sys.argv[2]))

_, target, _, text, manifest = sys.argv
write_package(Slow({"manifest.json": manifest, "a.py": text, "d.py": text}), Path(target))
print("done")
"""


def writer(target: Path, seconds: float, text: str) -> subprocess.Popen[str]:
    """A process that writes a package slowly, and is half way when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), str(seconds), text, MANIFEST],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def test_a_killed_process_leaves_the_old_package_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    target = tmp_path / "lmax1"
    write_package(OLD, target)
    process = writer(target, 60, "new")
    wait_for(process, "half")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_files(target) == OLD
    assert left_over(target), "a killed process cannot tidy up"
    write_package(NEW, target)
    assert read_files(target) == NEW
    assert left_over(target) == []


def test_a_process_killed_between_the_renames_costs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "lmax1"
    write_package(OLD, target)
    target.rename(tmp_path / ".lmax1.old")
    with pytest.raises(OutputError):
        write_package(Broken(OSError("disk full")), target)
    assert read_files(target) == OLD


def test_two_processes_wait_for_each_other(tmp_path: Path) -> None:
    target = tmp_path / "lmax1"
    first = writer(target, 0.3, "first")
    wait_for(first, "half")
    second = writer(target, 0.0, "second")
    wait_for(second, f"waiting for another process that writes {target}")
    for process in (first, second):
        out, _ = process.communicate(timeout=60)
        assert out.split("\n")[-2] == "done"
    assert read_files(target) == {NAME: MANIFEST, "a.py": "second", "d.py": "second"}
    assert left_over(target) == []


def test_a_process_that_never_finishes_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lmax1"
    process = writer(target, 60, "first")
    wait_for(process, "half")
    monkeypatch.setattr(module, "WAIT", 0.1)
    said: list[str] = []
    with pytest.raises(OutputError, match="got no turn at"):
        write_package(NEW, target, said.append)
    assert said == [f"waiting for another process that writes {target}"]
    process.kill()
    process.communicate()


def foreign_folder(folder: Path) -> Path:
    (folder / "lmax1").mkdir()
    (folder / "lmax1" / "thesis.tex").write_text("years of work")
    return folder / "lmax1"


def foreign_manifest(folder: Path) -> Path:
    (folder / "lmax1").mkdir()
    (folder / "lmax1" / NAME).write_text('{"name": "a web page"}')
    return folder / "lmax1"


def broken_manifest(folder: Path) -> Path:
    (folder / "lmax1").mkdir()
    (folder / "lmax1" / NAME).write_text("{")
    return folder / "lmax1"


def a_file(folder: Path) -> Path:
    (folder / "lmax1").write_text("a file")
    return folder / "lmax1"


def under_a_file(folder: Path) -> Path:
    return a_file(folder) / "deep" / "lmax1"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign_folder, "holds files but no manifest.json of irrepc"),
        (foreign_manifest, "holds files but no manifest.json of irrepc"),
        (broken_manifest, "holds files but no manifest.json of irrepc"),
        (a_file, "a file; expected a folder or nothing"),
        (under_a_file, "expected a folder that can be written"),
    ],
)
def test_what_is_not_a_package_is_left_alone(make: object, says: str, tmp_path: Path) -> None:
    target = make(tmp_path)  # type: ignore[operator]
    before = read_files(tmp_path)
    with pytest.raises(OutputError, match=says):
        check_target(target)
    with pytest.raises(OutputError, match=says):
        write_package(NEW, target)
    assert read_files(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "lmax1").mkdir()
    write_package(NEW, tmp_path / "lmax1")
    assert read_files(tmp_path / "lmax1") == NEW
