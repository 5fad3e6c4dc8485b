"""The README's Python runs as it stands, and the commands it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from irrepc.cli import main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_command_is_there() -> None:
    named = set(re.findall(r"`irrepc (\w+)", README))
    assert named == set(main.commands), "README and CLI name different commands"


@pytest.mark.parametrize("line", re.findall(r"^irrepc show (.*?)(?:  +#.*)?$", README, re.MULTILINE))
def test_show_commands_work(line: str) -> None:
    import shlex

    result = CliRunner().invoke(main, ["show", *shlex.split(line)])
    assert result.exit_code == 0, result.output
    assert result.output.strip()
