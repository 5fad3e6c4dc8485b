"""History: what each validation found, which was the best, and the table that is written of it."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from pathlib import Path
from typing import Any

Row = dict[str, float]


class History:
    """One row for each validation, and the best objective since the weights of the loss last changed."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.best, self.waited, self.stage = math.inf, 0, ""

    def see(self, row: Row, stage: str) -> bool:
        """Add a row, of this stage of the training; whether its objective is the best of the stage."""
        self.rows.append(row)
        if stage != self.stage:  # other weights of the loss: objectives cannot be compared
            self.best, self.waited, self.stage = math.inf, 0, stage
        if row["objective"] < self.best:
            self.best, self.waited = row["objective"], 0
            return True
        self.waited += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"rows": self.rows, "best": self.best, "waited": self.waited, "stage": self.stage}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.rows = [dict(row) for row in state["rows"]]
        self.best, self.waited, self.stage = state["best"], state["waited"], state["stage"]


def write_table(rows: list[Row], path: Path) -> None:
    """All rows as CSV; the file is replaced as a whole."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in rows)
    write_whole(path, text.getvalue())


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears as a whole."""
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, path)
