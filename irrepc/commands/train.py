"""The verb train: a starter configuration, a training, or one that goes on."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from irrepc.errors import InputError, require


def write_starter(path: Path, console: Console) -> None:
    """Write the commented configuration; raises InputError where `path` is there already."""
    from irrepc.train.starter import starter

    if path.exists():
        raise InputError(f"train --init: got {path}, which is there already; expected a new file; choose another name")
    path.write_text(starter(), encoding="utf-8")
    console.print(f"{path}: say where your frames are (data.train), then: irrepc train {path}", soft_wrap=True)


def start_training(config: Path | None, folder: Path, console: Console) -> None:
    """Train as `config` says, into `folder`; without it, go on with what lies there."""
    for package, extra in (("lightning", "train"), ("yaml", "train"), ("vesin", "ase"), ("matplotlib", "plot")):
        require(package, extra)  # now, and not after hours of work
    from irrepc.train.configuration import read_settings
    from irrepc.train.keeper import StoppedError
    from irrepc.train.run import is_first, resume, train

    try:
        if config is None:
            report = resume(folder, console)
        else:
            report = train(read_settings(config), folder, console, base=config.parent)
    except StoppedError as stop:
        console.print(str(stop), soft_wrap=True, markup=False)
        return
    if is_first():  # of several processes only one writes the report
        console.print(str(report), soft_wrap=True, markup=False)
