"""The style: what a reader may count on in every file, each rule a small function that is shown to fail.

A rule takes a path (from the top of the checkout) and a text, and returns a list of complaints.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, TemplateSyntaxError, nodes

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[str, str], list[str]]

FOLDERS = (".ci", "irrepc", "templates", "generated", "tests", "examples", "benchmarks")
TEXT = (".py", ".pyi", ".jinja", ".md", ".toml", ".txt", ".json", ".yaml", ".cu", ".ll", ".h", "")
LIMIT, EXAMPLE_LIMIT = 400, 79
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}
# split, so that this file obeys its own rule
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATE = re.compile(rf"\b(?:19|20)\d\d[-/](?:0\d|1[0-2])[-/][0-3]\d\b|\b\d{{1,2}}\.? {MONTH} (?:19|20)\d\d\b")
HOST = re.compile(r"\blocal" r"host\b|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
OWNED = "(?:home|root|Users|work|tmp|mnt|media|srv|scratch|private)"
PLACE = re.compile(rf"(?<![\w.)\]}}>$~*/-])/{OWNED}/\w|\b[A-Z]:\\Users\b")
# exact until printed: below the printers a float is a mistake
EXACT_FLOORS = ("irrepc/algebra/", "irrepc/ir/", "irrepc/frontend/")
ROUNDING = ("irrepc/algebra/surd.py",)


# ── the rules ────────────────────────────────────────────────────────────────────────────────────


def length(path: str, text: str) -> list[str]:
    """A file is one idea: at most 400 lines, an example at most 79."""
    limit = EXAMPLE_LIMIT if path.startswith("examples/") else LIMIT
    lines = len(text.splitlines())
    return [f"{path}: {lines} lines; expected at most {limit}"] if lines > limit else []


def opening(path: str, text: str) -> list[str]:
    """A module opens with a docstring whose first line is a sentence."""
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree, clean=False)
    if docstring is None:
        return [f"{path}: no docstring; expected one sentence on the first line"]
    first = docstring.splitlines()[0]
    if tree.body[0].lineno != 1 or not first.strip().endswith("."):
        return [f"{path}: opens with {first!r}; expected a sentence with its full stop, on the first line"]
    return []


def file_name(path: str, text: str) -> list[str]:
    """No file or folder is named by a word that says nothing."""
    words = {word for part in Path(path).with_suffix("").parts for word in part.lower().split("_")}
    return [f"{path}: named {word!r}; expected a word of the field" for word in sorted(words & EMPTY_WORDS)]


def template_logic(path: str, text: str) -> list[str]:
    """A template is text, `for`, `if name`, `join`, `indent`, and `include` of a named file: it decides nothing."""
    try:
        tree = Environment(autoescape=False).parse(text)
    except TemplateSyntaxError as error:
        return [f"{path}:{error.lineno}: {error.message}"]
    return [f"{path}:{node.lineno}: {type(node).__name__} is logic; expected it in Python" for node in logic(tree)]


def logic(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the nodes of a parsed template that are more than arrangement."""
    match node:
        case nodes.Template() | nodes.Output() | nodes.TemplateData() | nodes.Name() | nodes.Getattr() | nodes.Const():
            arrangement = True
        case nodes.If(test=nodes.Name() | nodes.Getattr()) | nodes.Filter(name="join" | "indent"):
            arrangement = True
        case nodes.For(target=nodes.Name() | nodes.Tuple(), test=None, recursive=False):
            arrangement = True
        case nodes.Tuple(ctx="store") | nodes.Include(template=nodes.Const()) | nodes.Keyword(value=nodes.Const()):
            arrangement = True
        case _:
            arrangement = False
    if not arrangement:
        yield node
    for child in node.iter_child_nodes():
        yield from logic(child)


def exactness(path: str, text: str) -> list[str]:
    """Floors below the printers hold exact numbers: `float(` is for algebra/surd.py and emit/."""
    if not path.startswith(EXACT_FLOORS) or path in ROUNDING:
        return []
    return [
        f"{path}:{node.lineno}: float(…); expected the exact number, rounded once by the printer"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
    ]


def swallowed_errors(path: str, text: str) -> list[str]:
    """No bare `except`, none that does nothing, no `suppress` of everything."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ExceptHandler(type=None):
                found.append(f"{path}:{node.lineno}: bare except; expected the errors it is meant for")
            case ast.ExceptHandler(body=[ast.Pass() | ast.Expr(value=ast.Constant())]):
                found.append(f"{path}:{node.lineno}: except that does nothing; expected the error handled")
            case ast.Call(func=function, args=[ast.Name(id="Exception" | "BaseException"), *_]):
                if ast.unparse(function).endswith("suppress"):
                    found.append(f"{path}:{node.lineno}: suppress of everything; expected the errors it is meant for")
    return found


def unfinished(path: str, text: str) -> list[str]:
    """What is not done stands in no comment."""
    return _found(UNFINISHED, path, text, "unfinished work; expected it done or left out")


def dates(path: str, text: str) -> list[str]:
    """No date: it is stale the day after, and an emitted file must come out the same tomorrow."""
    return _found(DATE, path, text, "a date; expected none outside CHANGELOG.md and benchmarks/")


def hosts(path: str, text: str) -> list[str]:
    """No machine is named."""
    return _found(HOST, path, text, "a machine; expected none")


def places(path: str, text: str) -> list[str]:
    """No path of somebody's machine."""
    return _found(PLACE, path, text, "an absolute path; expected one relative to the checkout")


def ending(path: str, text: str) -> list[str]:
    """A file ends in one newline, lines in no blanks, and indents in no tabs (but those of a Makefile)."""
    found = []
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        found.append(f"{path}: expected one newline at the end")
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip() or "\r" in line or (line.startswith("\t") and path != "Makefile"):
            found.append(f"{path}:{number}: blanks at the end, a tab or a carriage return")
    return found


def _found(pattern: re.Pattern[str], path: str, text: str, what: str) -> list[str]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{path}:{number}: {match.group()!r} is {what}" for match in pattern.finditer(line)]
    return found


# ── the files ────────────────────────────────────────────────────────────────────────────────────


def files() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every text file of the checkout, emitted ones and those at the top included."""
    paths = [p for p in ROOT.iterdir() if p.is_file()]
    paths += [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()]
    hidden = {"__pycache__", "_templates", "_generated", ".git", ".coverage", "PKG-INFO"}
    for path in sorted(paths):
        inner = path.relative_to(ROOT)
        if path.suffix in TEXT and not hidden & set(inner.parts):
            yield inner.as_posix(), path.read_text(encoding="utf-8")


FILES = dict(files())


def written(*folders: str, suffix: str = "") -> list[str]:
    """The paths under these folders that end in `suffix`; with no folder, all of them."""
    return [p for p in FILES if p.endswith(suffix) and (not folders or p.split("/")[0] in folders)]


def in_dated(path: str) -> bool:
    return path == "CHANGELOG.md" or path.startswith("benchmarks/")


SCOPES: list[tuple[Rule, list[str]]] = [
    (length, [p for p in written("irrepc", "tests", "templates", "examples") if p.endswith((".py", ".jinja"))]),
    # an emitted file opens with its banner
    (opening, written("irrepc", "tests", "examples", "benchmarks", suffix=".py")),
    (file_name, written("irrepc", "tests", "templates", "examples", "benchmarks", "generated")),
    (template_logic, written("templates", suffix=".jinja")),
    (exactness, written("irrepc", suffix=".py")),
    (swallowed_errors, written("irrepc", "tests", "examples", "benchmarks", suffix=".py")),
    (unfinished, written()),
    (dates, [p for p in written() if not in_dated(p)]),
    (hosts, [p for p in written() if not in_dated(p)]),
    (places, [p for p in written() if not in_dated(p)]),
    (ending, written()),
]


@pytest.mark.parametrize(("rule", "paths"), [pytest.param(r, p, id=r.__name__) for r, p in SCOPES])
def test_rule_is_kept(rule: Rule, paths: list[str]) -> None:
    assert paths, f"{rule.__name__}: no file to look at"
    complaints = [complaint for path in paths for complaint in rule(path, FILES[path])]
    assert not complaints, "\n" + "\n".join(complaints)


# ── the rules can fail ───────────────────────────────────────────────────────────────────────────

BAD: list[tuple[Rule, str, str]] = [
    (length, "irrepc/ir/vjp.py", "x = 1\n" * 401),
    (length, "templates/torch/kernel.py.jinja", "x\n" * 401),
    (length, "examples/01_first.py", "x = 1\n" * 80),
    (opening, "irrepc/ir/vjp.py", "x = 1\n"),
    (opening, "irrepc/ir/vjp.py", '"""No full stop"""\n'),
    (opening, "irrepc/ir/vjp.py", '"""\nA sentence, but late.\n"""\n'),
    (opening, "irrepc/ir/vjp.py", '# a comment first\n"""A sentence."""\n'),
    (file_name, "irrepc/ir/utils.py", ""),
    (file_name, "irrepc/graph_helpers.py", ""),
    (file_name, "tests/common/test_x.py", ""),
    (template_logic, "t.jinja", "{% set offset = 1 %}"),
    (template_logic, "t.jinja", "{% macro f(x) %}{{ x }}{% endmacro %}"),
    (template_logic, "t.jinja", "{{ f(x) }}"),
    (template_logic, "t.jinja", "{{ x + 1 }}"),
    (template_logic, "t.jinja", "{{ -x }}"),
    (template_logic, "t.jinja", "{{ a ~ b }}"),
    (template_logic, "t.jinja", "{{ rows[0] }}"),
    (template_logic, "t.jinja", "{{ a if b else c }}"),
    (template_logic, "t.jinja", "{% if x == 1 %}{% endif %}"),
    (template_logic, "t.jinja", "{% if not x %}{% endif %}"),
    (template_logic, "t.jinja", "{% if x is defined %}{% endif %}"),
    (template_logic, "t.jinja", "{% for x in y if x %}{% endfor %}"),
    (template_logic, "t.jinja", "{{ x | upper }}"),
    (template_logic, "t.jinja", "{% import 'a.jinja' as a %}"),
    (template_logic, "t.jinja", "{% include name %}"),
    (template_logic, "t.jinja", "{% for x in %}"),
    (exactness, "irrepc/frontend/wigner.py", "x = float(y)\n"),
    (exactness, "irrepc/algebra/irreps.py", "def f(y):\n    return [float(z) for z in y]\n"),
    (swallowed_errors, "a.py", "try:\n    f()\nexcept:\n    g()\n"),
    (swallowed_errors, "a.py", "try:\n    f()\nexcept ValueError:\n    pass\n"),
    (swallowed_errors, "a.py", "try:\n    f()\nexcept ValueError:\n    ...\n"),
    (swallowed_errors, "a.py", "with contextlib.suppress(Exception):\n    f()\n"),
    (unfinished, "a.py", "# TO" "DO later\n"),
    (unfinished, "a.md", "FIX" "ME\n"),
    (dates, "a.md", "measured on 2031" "-02-28\n"),
    (dates, "a.md", "of 3 " "March 2031\n"),
    (hosts, "a.py", "# run on 192" ".168.0.7\n"),
    (hosts, "a.py", "http://local" "host:8000\n"),
    (places, "a.py", "open('/ho" "me/me/x')\n"),
    (places, "a.md", "see `/tm" "p/x`\n"),
    (places, "a.md", "see C" ":\\Users\\x\n"),
    (ending, "a.py", "x = 1"),
    (ending, "a.py", "x = 1\n\n"),
    (ending, "a.py", "x = 1 \n"),
    (ending, "a.py", "if x:\n\ty\n"),
    (ending, "a.py", "x\r\n"),
]

GOOD: list[tuple[Rule, str, str]] = [
    (length, "irrepc/ir/vjp.py", "x = 1\n" * 400),
    (length, "examples/01_first.py", "x = 1\n" * 79),
    (opening, "irrepc/ir/vjp.py", '"""A sentence.\n\nMore of it\n"""\n'),
    (file_name, "irrepc/algebra/irreps.py", ""),
    (file_name, "irrepc/ir/commonality.py", ""),
    (template_logic, "t.jinja", "{% for a, b in r %}{{ a }} {{ b | join(', ') | indent(4, first=true) }}{% endfor %}"),
    (template_logic, "t.jinja", "{% if doc %}{{ doc }}{% elif k.name %}x{% else %}y{% endif %}{% include 'b.jinja' %}"),
    (template_logic, "t.jinja", "{% for x in rows %}{{ x }}{% if loop.last %};{% endif %}{% endfor %}{# said #}"),
    (exactness, "irrepc/algebra/surd.py", "x = float(y)\n"),
    (exactness, "irrepc/emit/printer.py", "x = float(y)\n"),
    (exactness, "irrepc/ir/vjp.py", '"""Say float( in words."""\nx: float\n'),
    (swallowed_errors, "a.py", "try:\n    f()\nexcept ValueError as error:\n    raise KeyError from error\n"),
    (swallowed_errors, "a.py", "with suppress(FileNotFoundError):\n    f()\n"),
    (unfinished, "a.md", "to do, or todos\n"),
    (dates, "a.md", "Batzner 2022, arXiv 2101.03164; pages 2010-2012; version 2026.9.0\n"),
    (hosts, "a.py", "version 1.2.3 of https://doi.org/10.1038/s41467-022-29939-5; threading.local\n"),
    (places, "a.py", "'formula D:\\n'\n"),
    (places, "a.sh", "#!/usr/bin/env bash\n# ../shared/data and root/work and 1/tmp\n"),
    (ending, "Makefile", "a:\n\tb\n"),
    (ending, "py.typed", ""),
]


def named(cases: list[tuple[Rule, str, str]]) -> pytest.MarkDecorator:
    """Make a test of every case, called by its rule."""
    return pytest.mark.parametrize(("rule", "path", "text"), cases, ids=[rule.__name__ for rule, *_ in cases])


@named(BAD)
def test_rule_finds_the_bad(rule: Rule, path: str, text: str) -> None:
    assert rule(path, text)


@named(GOOD)
def test_rule_lets_the_good_through(rule: Rule, path: str, text: str) -> None:
    assert rule(path, text) == []


def test_every_rule_is_shown_to_fail_and_to_pass() -> None:
    rules = {rule for rule, _ in SCOPES}
    assert {rule for rule, *_ in BAD} == rules
    assert {rule for rule, *_ in GOOD} == rules


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "templates", "generated"])
def test_the_house_is_complete(name: str) -> None:
    assert (ROOT / name).exists(), f"{name} is missing at the top of the checkout"
