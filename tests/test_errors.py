"""The errors: what they can be caught as, and how `require` tells a missing package from a broken one."""

from pathlib import Path

import pytest

from irrepc import errors
from irrepc.errors import IrrepcError, IrrepsError, MissingExtraError, RecipeError, SizeError, require


def test_every_error_has_the_one_root() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert len(kinds) >= 9
    assert all(issubclass(kind, IrrepcError) for kind in kinds)


@pytest.mark.parametrize(
    ("kind", "also"),
    [(IrrepsError, ValueError), (RecipeError, ValueError), (SizeError, ValueError), (MissingExtraError, ImportError)],
)
def test_errors_are_also_what_a_stranger_would_catch(kind: type, also: type) -> None:
    assert issubclass(kind, also)


def test_require_returns_the_module_asked_for() -> None:
    assert require("xml.dom", "test").__name__ == "xml.dom"


def test_a_missing_package_is_named_with_its_extra_and_the_command() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_package.io", "ase")
    assert caught.value.name == "no_such_package"
    assert str(caught.value) == (
        "no_such_package.io: got no installed package 'no_such_package'; expected the one that the extra irrepc[ase] "
        'brings; do: pip install "irrepc[ase]"'
    )


def test_a_broken_package_keeps_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import something_it_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_lacks") as caught:
        require("broken_package", "ase")
    assert not isinstance(caught.value, IrrepcError)
