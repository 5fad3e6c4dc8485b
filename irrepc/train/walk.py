"""Walk: the steps of a long job on the terminal, with a bar while each runs and a line when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Walk:
    """Shows steps on a console and remembers how many seconds each took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[float, str], None]]:
        """Show a bar while the block runs, moved by calling what is yielded with (part done, text), then one line."""
        columns = (BarColumn(24), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
        start, note = time.perf_counter(), ""
        silent = not self.console.is_terminal  # a file gets the lines, not the bars
        title_column = TextColumn("{task.description:26}")
        with Progress(title_column, *columns, console=self.console, transient=True, disable=silent) as bar:
            task = bar.add_task(title, total=1.0, note="")

            def move(part: float, text: str) -> None:
                nonlocal note
                note = text
                bar.update(task, completed=part, note=text)

            yield move
        self.seconds[title] = time.perf_counter() - start
        self.console.print(f"{title:26} {self.seconds[title]:6.1f} s  {note}".rstrip(), soft_wrap=True)
