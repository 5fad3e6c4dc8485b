"""The text of a package: compared with what is emitted today, and its numbers read back."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Mapping
from difflib import unified_diff
from fractions import Fraction
from itertools import islice
from pathlib import Path

from irrepc.algebra.surd import Surd
from irrepc.emit.tables import rising
from irrepc.frontend.clebsch_gordan import w3j

DIFF_LINES = 40
FREE_FLOATS = (0.0, 1.0)
"""The float literals of emitted code that are no constants of a kernel."""

_CONSTANT = re.compile(r"\s*(C\d+) = (?:real\((\S+)\)|(\S+))  # (\S.*)")
_LITERAL = re.compile(r"\b(float|double) 0x([0-9A-F]{16})")
_REAL = re.compile(r"\s*const REAL (C\d+) = REAL\((\S+)\);")
_POINT = re.compile(r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+[eE][+-]?\d+)\w*")
_PART = re.compile(r"(?:^(-?)|\s*([+-])\s*)(\d+)?(?:√(\d+))?(?:/(\d+))?")


def read_files(package: Path) -> dict[str, str]:
    """Every file of a package by its relative path; caches and machine code made ahead are left out."""
    files = (p for p in sorted(package.rglob("*")) if p.is_file() and not {"__pycache__", "cubin"} & set(p.parts))
    return {p.relative_to(package).as_posix(): p.read_text(encoding="utf-8", errors="replace") for p in files}


def compare(found: Mapping[str, str], wanted: Mapping[str, str], where: Path) -> tuple[str, ...]:
    """Files that are missing, that should not be there, and the first difference of the others."""
    failures = [f"{where / path}: missing" for path in sorted(set(wanted) - set(found))]
    failures += [f"{where / path}: not emitted by these sources" for path in sorted(set(found) - set(wanted))]
    changed = [path for path in sorted(set(found) & set(wanted)) if found[path] != wanted[path]]
    for number, path in enumerate(changed):
        text = f"{where / path}: differs"
        if number == 0:
            before, after = found[path].split("\n"), wanted[path].split("\n")
            diff = unified_diff(before, after, f"{path} (here)", f"{path} (emitted)", lineterm="", n=2)
            text = "\n".join((text, *islice(diff, DIFF_LINES)))
        failures.append(text)
    return tuple(failures)


def check_literals(files: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
    """Read `C3 = 0.577...  # √3/3` in every module: the decimal is the double nearest to the exact value.

    LLVM and CUDA text are read likewise.  No other float literal than 0.0 and 1.0 may stand in a module of kernels.
    Returns how many constants were read, and the failures.
    """
    failures = []
    count = 0
    for path, text in files.items():
        if path.endswith(".ll"):
            read, wrong = _check_ir(path, text)
            count += read
            failures += wrong
        if path.endswith(".cu"):
            read, wrong = _check_cuda(path, text)
            count += read
            failures += wrong
        if not path.endswith(".py") or "/" not in path:
            continue
        constants = set()
        for number, line in enumerate(text.split("\n"), 1):
            match = _CONSTANT.fullmatch(line)
            if match is None:
                continue
            constants.add(number)
            count += 1
            try:
                exact = read_surd(match[4])
                if float(match[2] or match[3]) != float(exact):
                    failures.append(f"{path}:{number}: {match[1]} is {match[2] or match[3]}; expected {float(exact)!r}")
            except ValueError as error:
                failures.append(f"{path}:{number}: {error}")
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            failures.append(f"{path}:{error.lineno}: {error.msg}")
            continue
        floats = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float))
        for node in floats:
            if node.value not in FREE_FLOATS and node.lineno not in constants:
                failures.append(f"{path}:{node.lineno}: {node.value!r} stands without its exact value")
    return count, tuple(failures)


def _check_ir(path: str, text: str) -> tuple[int, list[str]]:
    """Read `fmul float 0x3FE279A740000000, %x.1  ; √3/3`: the bits are those of the exact value, rounded once."""
    failures = []
    count = 0
    for number, line in enumerate(text.split("\n"), 1):
        for match in _LITERAL.finditer(line):
            value = struct.unpack(">d", bytes.fromhex(match[2]))[0]
            if value in FREE_FLOATS:
                continue
            count += 1
            note = line.partition("  ; ")[2].partition("  ; ")[0]
            try:
                exact = float(read_surd(note))
            except ValueError as error:
                failures.append(f"{path}:{number}: {error}")
                continue
            if value != (struct.unpack("f", struct.pack("f", exact))[0] if match[1] == "float" else exact):
                failures.append(f"{path}:{number}: {match[0]} is {value!r}; expected {exact!r}, {note}")
    return count, failures


def _check_cuda(path: str, text: str) -> tuple[int, list[str]]:
    """Read `const REAL C3 = REAL(0.577...);  // √3/3`; no other literal with a point may stand outside of comments."""
    failures = []
    count = 0
    for number, line in enumerate(text.split("\n"), 1):
        code, _, note = line.partition("//")
        match = _REAL.fullmatch(code.rstrip())
        if match is None:
            failures += [f"{path}:{number}: {f} stands without its exact value" for f in _POINT.findall(code)]
            continue
        count += 1
        try:
            exact = float(read_surd(note.strip()))
        except ValueError as error:
            failures.append(f"{path}:{number}: {error}")
            continue
        if float(match[2]) != exact:
            failures.append(f"{path}:{number}: {match[1]} is {match[2]}; expected {exact!r}")
    return count, failures


def check_tables(text: str, lmax: int) -> tuple[int, tuple[str, ...]]:
    """Read the table of couplings: each entry against the exact coupling, sign·√(num/den), and its decimal.

    Returns how many entries were read, and the failures.
    """
    try:
        tree = ast.parse(text)
        values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "TABLE"]
        table = ast.literal_eval(values[0])
    except (SyntaxError, ValueError, IndexError) as error:
        return 0, (f"clebsch_gordan.py: no table can be read: {error}",)
    failures = []
    if list(table) != list(rising(lmax)):
        failures.append(f"clebsch_gordan.py: holds {len(table)} triples; expected {len(rising(lmax))}")
    count = 0
    for degrees in set(table) & set(rising(lmax)):
        exact = dict(w3j(*degrees))
        for i, j, k, sign, num, den, decimal in table[degrees]:
            count += 1
            value = Surd.root(Fraction(num, den)) * sign
            if value != exact.pop((i, j, k), None) or decimal != float(value):
                failures.append(f"clebsch_gordan.py: {degrees}[{i}, {j}, {k}] = {sign}·√({num}/{den}), {decimal}")
        failures += [f"clebsch_gordan.py: {degrees}{list(place)} is missing" for place in exact]
    return count, tuple(failures)


def read_surd(text: str) -> Surd:
    """The number that str(Surd) wrote: "√3/3", "2√5/7 - 1/2".

    Raises ValueError for another text.
    """
    total = Surd()
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match.end() == at or not (match[3] or match[4]):
            raise ValueError(f"got {text!r}; expected a sum of square roots such as 2√5/7 - 1/2")
        sign = -1 if "-" in (match[1], match[2]) else 1
        total += Surd.of(Fraction(sign * int(match[3] or 1), int(match[5] or 1)), int(match[4] or 1))
        at = match.end()
    return total
