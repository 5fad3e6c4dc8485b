"""The file of a deployed network: a model file of kind "deployed", its program in the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irrepc.deploy.program import Call, Place, Product, Program, Step
from irrepc.deploy.text import read, written
from irrepc.errors import InputError
from irrepc.runtime.model_file import ModelFile, read_model_file, write_model_file

KIND, LAYOUT = "deployed", 1
"""LAYOUT counts what steps mean: a file of another one is refused."""


def write_program(path: str | Path, program: Program) -> None:
    """Write a program, whole or not at all; transposed weights are made again when it is read."""
    config = {
        "layout": LAYOUT,
        "steps": written(program.steps),
        "buffers": written(program.buffers),
        "cutoff": program.cutoff,
        "cutoffs": list(program.cutoffs) if len(set(program.cutoffs)) > 1 else [],
        "closest": program.closest,
    }
    content = ModelFile(
        kind=KIND,
        architecture=str(program.metadata.get("network", "")),
        config=config,
        dtype=program.dtype,
        species=program.species,
        tensors={name: array for name, array in program.constants.items() if not name.endswith(".T")},
        provenance=dict(program.metadata),
    )
    write_model_file(path, content)


def read_program(path: str | Path) -> Program:
    """Read and check a program.

    Raises FileNotFoundError, or InputError for a file that is cut short, altered, newer, or no deployed network.
    """
    content = read_model_file(path, KIND)
    config = content.config
    if config.get("layout") != LAYOUT:
        raise InputError(
            f"deployed file: got {path} of layout {config.get('layout')!r}; expected {LAYOUT}; deploy the network "
            "again with this irrepc"
        )
    steps: tuple[Step, ...] = read(config["steps"])
    constants = dict(content.tensors)
    for step in steps:
        if isinstance(step, Product) and step.weights.endswith(".T"):
            constants[step.weights] = np.ascontiguousarray(constants[step.weights.removesuffix(".T")].swapaxes(-1, -2))
    program = Program(
        steps,
        read(config["buffers"]),
        constants,
        content.dtype,
        content.species,
        float(config["cutoff"]),
        tuple(config["cutoffs"]) or (float(config["cutoff"]),) * len(content.species) ** 2,
        float(config["closest"]),
        content.provenance,
    )
    _check(path, program)
    return program


def _check(path: str | Path, program: Program) -> None:
    """Raise InputError where steps name columns that no buffer has: addresses forgive nothing."""
    widths = {b.name: b.width for b in program.buffers}
    for step in program.steps:
        for value in (getattr(step, name) for name in step.__dataclass_fields__):
            if isinstance(value, Place) and not 0 <= value.start <= value.stop <= widths.get(value.buffer, -1):
                raise InputError(f"deployed file: got {path} with a step at {value}; expected columns of a buffer")
        if isinstance(step, Call):
            for name in (*step.inputs, *step.outputs):
                if name and name.partition("+")[0] not in widths and name.partition("+")[0] not in program.constants:
                    raise InputError(f"deployed file: got {path} with a step on {name!r}; expected a buffer")
