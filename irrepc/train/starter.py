"""The starter configuration: every setting with its default and its meaning, ready to be edited."""

from __future__ import annotations

import textwrap
from dataclasses import fields, is_dataclass
from typing import Any

from irrepc.train.configuration import read
from irrepc.train.labels import Labels
from irrepc.train.settings import Settings

_HEAD = """\
# Settings of `irrepc train`. Every key but data.train may be left out; what is written here are the defaults.
# irrepc train THIS_FILE --out RUN        trains and leaves model, metrics and report in RUN
# irrepc train --resume RUN               goes on where it was stopped, bit for bit
"""
_LABELS = {
    "energy": "name of the energies",
    "forces": "of the forces; null: not read",
    "stress": "of the stress; null: not read",
    "energy_unit": "eV, meV, hartree, rydberg, kcal/mol or kJ/mol",
    "length_unit": "angstrom, bohr or nm; forces are in energy_unit / length_unit",
    "stress_unit": "eV/angstrom^3, GPa, kbar or bar",
    "stress_kind": "stress (positive under tension) or virial (eV)",
    "optional": "which of forces and stress frames may lack",
}


def starter() -> str:
    """The text of a configuration file for data in train.xyz."""
    settings = read(Settings, {"data": {"train": ["train.xyz"]}}, "")
    return _HEAD + "\n".join(_section(settings, ""))


def _section(settings: Any, indent: str) -> list[str]:
    lines = []
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        meaning = _LABELS[entry.name] if isinstance(settings, Labels) else entry.metadata.get("says", "")
        if is_dataclass(value):
            title = meaning or (type(value).__doc__ or "").rstrip(".")
            lines += [] if indent else [""]
            lines += [f"{indent}{entry.name}:  # {title}", *_section(value, indent + "  ")]
            continue
        text = f"{indent}{entry.name}: {_yaml(value)}"
        if len(text) + len(meaning) + 4 <= 120:
            lines.append(f"{text}  # {meaning}")
        else:
            lines += [*textwrap.wrap(meaning, 116, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), text]
    return [*lines, ""] if not indent else lines


def _yaml(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(_yaml, value))}]"
        case dict():
            return "{}"
        case _:
            return str(value)
