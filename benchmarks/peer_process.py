"""Peer: an authors' package in a process of its own, idle while irrepc is timed."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "30000000000", "MALLOC_TOP_PAD_": "268435456"}
"""Keeps freed memory."""


class Peer:
    """A process that builds its model, says what it found, and times itself when asked.

    program  the script beside this file, run by `python` with `arguments`
    """

    def __init__(self, python: str, program: str, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).parent / program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def time(self, *words: object) -> list[float]:
        """Seconds of what the words ask for."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        found: list[float] = self._answer()
        return found

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:
                continue  # packages print to stdout as they please
        raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")
