"""Conventions: one default, described in a line, and no value that is not known."""

import math
from dataclasses import fields

import pytest

from irrepc.algebra.conventions import DEFAULT, INTEGRAL_FACTOR, Conventions
from irrepc.errors import ConventionError


def test_the_default_is_what_is_computed_in() -> None:
    assert Conventions() == DEFAULT
    assert DEFAULT.kernel_normalization == "component"
    assert DEFAULT.post_factor == 1.0
    assert DEFAULT.describe() == (
        "real harmonics, polar axis y, l=1 is (x, y, z), component l²+l+m, no Condon-Shortley phase; "
        "component (the mean of Y² on the unit sphere is 1); couplings of unit norm with the signs of e3nn >= 0.5; "
        "layout ir_mul (component slow, channel fast)"
    )


def test_integral_is_component_times_one_number() -> None:
    integral = Conventions(normalization="integral")
    assert integral.kernel_normalization == "component"
    assert math.isclose(integral.post_factor, 1 / math.sqrt(4 * math.pi), rel_tol=2e-16)
    assert INTEGRAL_FACTOR**2 * 4 * math.pi == pytest.approx(1, abs=3e-16)
    assert Conventions(normalization="norm").post_factor == 1.0


@pytest.mark.parametrize("name", [f.name for f in fields(Conventions)])
def test_unknown_values_are_refused(name: str) -> None:
    with pytest.raises(ConventionError, match=f"{name}: got 'unheard'; expected one of"):
        Conventions(**{name: "unheard"})


def test_every_choice_is_described() -> None:
    texts = {
        Conventions(normalization=n, signs=s, layout=layout).describe()
        for n in ("component", "norm", "integral")
        for s in ("e3nn-0.5", "e3nn-0.4")
        for layout in ("ir_mul", "mul_ir")
    }
    assert len(texts) == 12
    assert all("\n" not in text for text in texts)
