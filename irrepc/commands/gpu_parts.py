"""GPU parts: a benchmark cut into pieces that each run alone, keep what they have found, and are put together at last.

A piece that fails leaves its error and what it had measured until then; the pieces after it run in processes of their
own, since an address that a kernel should not have touched makes a device useless to the process it happened in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from irrepc.runtime.store import write_atomically

LIMIT = 590
"""Seconds of a part."""
DONE, RUNNING, FAILED = "done", "running", "failed"
Result = tuple[str, str, str, float]
"""(case, phase, contender, milliseconds)"""


@dataclass(frozen=True, slots=True)
class Found:
    """What one step of a part has found: lines of Markdown, and times."""

    lines: tuple[str, ...]
    times: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a part."""

    part: str
    state: str
    seconds: float = 0.0
    error: str = ""
    lines: tuple[str, ...] = ()
    times: tuple[Result, ...] = ()


def run_part(name: str, steps: Callable[[], Iterable[Found]], folder: Path) -> Record:
    """Run the steps of a part; what they find is written after each, and an error where one stops."""
    start, record = time.monotonic(), Record(name, RUNNING)
    write_record(folder, record)
    try:
        for found in steps():
            spent = time.monotonic() - start
            record = replace(record, seconds=spent, lines=record.lines + found.lines, times=record.times + found.times)
            write_record(folder, record)
        record = replace(record, state=DONE, seconds=time.monotonic() - start)
    except Exception as error:  # whatever it is, it is written down, and shown at the end
        said = "".join(traceback.format_exception(error)[-3:]).strip()
        record = replace(record, state=FAILED, seconds=time.monotonic() - start, error=said)
    write_record(folder, record)
    return record


def run_apart(name: str, command: Sequence[str], folder: Path, root: Path, limit: float = LIMIT) -> Record:
    """Run a part by a command that writes its record; one that ends without a word or in no time has failed, too."""
    try:
        done = subprocess.run(command, cwd=root, timeout=limit, capture_output=True, text=True, check=False)
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        why = f"ended with {done.returncode}\n{last}"
    except subprocess.TimeoutExpired:
        why = f"took more than {limit:g} s"
    record = read_record(folder, name)
    if record is None or record.state == RUNNING:
        record = replace(record or Record(name, RUNNING), state=FAILED, error=why)
        write_record(folder, record)
    return record


def again(script: Path, name: str, options: Sequence[str]) -> tuple[str, ...]:
    """The command that runs one part by itself."""
    return (sys.executable, str(script), "--part", name, *options)


def write_record(folder: Path, record: Record) -> None:
    """Write it whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(folder, record.part), json.dumps(asdict(record), indent=1) + "\n")


def read_record(folder: Path, name: str) -> Record | None:
    """What is kept of a part, if anything is."""
    file = _file(folder, name)
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    times = tuple((case, phase, contender, float(ms)) for case, phase, contender, ms in kept["times"])
    return replace(Record(**kept), lines=tuple(kept["lines"]), times=times)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
