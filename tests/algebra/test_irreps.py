"""Irreps and recipes: reading, products, order, and what is refused."""

from __future__ import annotations

import e3nn.o3 as o3
import pytest

from irrepc.algebra.irreps import Block, Irrep, Irreps, check_degree
from irrepc.algebra.recipe import (
    HarmonicsRecipe,
    Label,
    Path,
    ProductRecipe,
    digest,
    labels,
    read_product,
    uvu_paths,
)
from irrepc.errors import IrrepsError, RecipeError


@pytest.mark.parametrize("text", ["16x0e+8x1o", " 3 x 2e + 1o", "0x1e+4x0o", ""])
def test_reading_agrees_with_e3nn(text: str) -> None:
    ours = Irreps.of(text)
    theirs = o3.Irreps(text.replace(" ", ""))
    assert str(ours) == str(theirs)
    assert (ours.dim, ours.num_irreps) == (theirs.dim, theirs.num_irreps)
    assert list(ours.slices()) == theirs.slices()
    assert str(ours.sort()[0].simplify()) == str(theirs.sort().irreps.simplify())


@pytest.mark.parametrize("text", ["1x", "2x1p", "x1o", "-1x0e", "1.5x0e", "0e,1o", "1o+", "1o 2e"])
def test_malformed_irreps_are_named(text: str) -> None:
    with pytest.raises(IrrepsError, match="expected blocks such as 16x0e"):
        Irreps.of(text)


def test_text_goes_through_of() -> None:
    with pytest.raises(IrrepsError, match=r"do: Irreps\.of\('16x0e'\)"):
        Irreps("16x0e")  # type: ignore[arg-type]


@pytest.mark.parametrize("degree", [-1, 1.5, "2", None, True])
def test_a_degree_is_an_integer_from_zero(degree: object) -> None:
    with pytest.raises(IrrepsError, match="expected an integer >= 0"):
        check_degree(degree)
    with pytest.raises(IrrepsError, match="expected an integer >= 0"):
        HarmonicsRecipe(degree)  # type: ignore[arg-type]


def test_products_and_sums() -> None:
    assert Irrep(1, -1) * Irrep(2, 1) == (Irrep(1, -1), Irrep(2, -1), Irrep(3, -1))
    assert str(Irreps.spherical_harmonics(3)) == "1x0e+1x1o+1x2e+1x3o"
    assert str(Irreps.spherical_harmonics(2, 1)) == "1x0e+1x1e+1x2e"
    both = Irreps.of("2x1o+1x0e") + Irreps.of("3x1o")
    assert both.count("1o") == 5
    assert "0e" in both
    assert "2e" not in both
    assert both.lmax == 1
    assert str(Irreps.of("1o+1o+0x2e").simplify()) == "2x1o"
    assert Irreps.of([(2, "1o")]) == Irreps((Block(2, Irrep(1, -1)),))
    with pytest.raises(IrrepsError, match="expected an integer >= 0"):
        Irreps.of([(1.5, "1o")])  # type: ignore[list-item]
    with pytest.raises(IrrepsError, match="empty sum"):
        _ = Irreps().lmax


def test_axes_are_named_by_multiplicity() -> None:
    named, extents = labels(Irreps.of("16x0e+8x1o+16x2e"), "u")
    assert [x.axes for x in named] == [("u",), ("u1",), ("u",)]
    assert extents == {"u": 16, "u1": 8}
    assert labels(Irreps.of("1x0e+1x1o"), "v", scalar_ones=True)[0][1].axes == ()


def test_paths_are_enumerated_left_right_degree() -> None:
    left, _ = labels(Irreps.of("4x0e+4x1o"), "u")
    right, _ = labels(Irreps.spherical_harmonics(1), "v", scalar_ones=True)
    out, paths = uvu_paths(left, right)
    assert [str(x) for x in out] == ["u*0e", "u*1o", "u*1o", "u*0e", "u*1e", "u*2e"]
    assert [str(p) for p in paths] == ["0.0.0w", "0.1.1w", "1.0.2w", "1.1.3w", "1.1.4w", "1.1.5w"]
    assert len(uvu_paths(left, right, Irreps.of("1x0e"))[1]) == 2


def test_recipes_refuse_what_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"output 3o is not in 1o ⊗ 1o = 0e\+1e\+2e"):
        read_product("1o x 1o -> 3o")
    with pytest.raises(RecipeError, match="as in '1o x 1o -> 1e'"):
        read_product("1o 1o 1e")
    with pytest.raises(RecipeError, match="expected one of"):
        HarmonicsRecipe(1, "unit")
    one = (Label((), Irrep(0, 1)),)
    with pytest.raises(RecipeError, match="names right block 3"):
        ProductRecipe(one, one, one, (Path(0, 3, 0),), weights="row")
    with pytest.raises(RecipeError, match="the recipe has no weights"):
        ProductRecipe(one, one, one, (Path(0, 0, 0),))
    with pytest.raises(RecipeError, match="gives channels"):
        ProductRecipe(one, one, (Label(("u",), Irrep(0, 1)),), (Path(0, 0, 0, False),))
    with pytest.raises(RecipeError, match="expected one of row, pair, shared, none, basis, spline"):
        ProductRecipe(one, one, one, (), weights="some")


def test_a_digest_identifies_a_recipe() -> None:
    a, b = read_product("1o x 1o -> 1e"), read_product("1o x 1o -> 2e")
    assert digest(a) == digest(read_product("1o ⊗ 1o -> 1e"))
    assert digest(a) != digest(b)
    assert HarmonicsRecipe(2) == HarmonicsRecipe(2, "component")
