"""Conventions: the choices of basis, scale, sign and layout under which numbers are exchanged with other packages."""

from __future__ import annotations

from dataclasses import dataclass

from irrepc.errors import ConventionError

BASES = ("e3nn",)
NORMALIZATIONS = ("component", "norm", "integral")
SIGNS = ("e3nn-0.5", "e3nn-0.4")
LAYOUTS = ("ir_mul", "mul_ir")

# 1/√(4π), the nearest double; the one factor of the algebra that is no sum of square roots of rationals.
INTEGRAL_FACTOR = 0.28209479177387814

_BASIS_TEXT = {"e3nn": "real harmonics, polar axis y, l=1 is (x, y, z), component l²+l+m, no Condon-Shortley phase"}
_NORMALIZATION_TEXT = {
    "component": "component (the mean of Y² on the unit sphere is 1)",
    "norm": "norm (Σ_m Y_lm² = 1 on the unit sphere)",
    "integral": "integral (∫ Y² = 1 over the unit sphere)",
}
_SIGN_TEXT = {
    "e3nn-0.5": "couplings of unit norm with the signs of e3nn >= 0.5",
    "e3nn-0.4": "couplings of unit norm with the signs of e3nn 0.4",
}
_LAYOUT_TEXT = {
    "ir_mul": "layout ir_mul (component slow, channel fast)",
    "mul_ir": "layout mul_ir (channel slow, component fast)",
}


def check_convention(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ConventionError unless the value is one of the known ones."""
    if value not in known:
        raise ConventionError(f"{what}: got {value!r}; expected one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Conventions:
    """One choice of each; the default is what irrepc computes in, everything else is converted at the border.

    basis          the axes, order and phase of the real harmonics
    normalization  the scale of the harmonics
    signs          the sign of each coupling: e3nn 0.4 differs from later ones in 18 multisets of degrees up to 8
    layout         the order of component and channel within a block of irreps
    """

    basis: str = "e3nn"
    normalization: str = "component"
    signs: str = "e3nn-0.5"
    layout: str = "ir_mul"

    def __post_init__(self) -> None:
        check_convention("basis", self.basis, BASES)
        check_convention("normalization", self.normalization, NORMALIZATIONS)
        check_convention("signs", self.signs, SIGNS)
        check_convention("layout", self.layout, LAYOUTS)

    @property
    def kernel_normalization(self) -> str:
        """The exact normalization whose kernel serves this one."""
        return "component" if self.normalization == "integral" else self.normalization

    @property
    def post_factor(self) -> float:
        """What the harmonics of that kernel are still to be multiplied by: 1, or 1/√(4π) for integral."""
        return INTEGRAL_FACTOR if self.normalization == "integral" else 1.0

    def describe(self) -> str:
        """One line for banners and reports."""
        return "; ".join(
            (
                _BASIS_TEXT[self.basis],
                _NORMALIZATION_TEXT[self.normalization],
                _SIGN_TEXT[self.signs],
                _LAYOUT_TEXT[self.layout],
            )
        )


DEFAULT = Conventions()
