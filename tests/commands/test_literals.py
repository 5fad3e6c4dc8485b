"""Constants read back from LLVM and CUDA text: a literal against the exact value written beside it."""

from __future__ import annotations

import pytest

from irrepc.commands.check_text import check_literals
from irrepc.emit.module import Entry, compose
from tests.kernels import RECIPES

COMPANIONS = dict(compose("A kernel.", (Entry("kernel", RECIPES["convolution"]),), "llvm", "a test").companions)
CUDA = dict(compose("A kernel.", (Entry("kernel", RECIPES["convolution"]),), "cuda", "a test").companions)[".cu"]


def test_every_literal_of_the_ir_is_read_and_right() -> None:
    for suffix, text in COMPANIONS.items():
        count, failures = check_literals({f"llvm/kernel{suffix}": text})
        assert count > 20
        assert not failures


def test_one_changed_bit_or_a_lost_note_is_seen() -> None:
    for suffix, digits in ((".float32.ll", "0x3FE279A740000000"), (".float64.ll", "0x3FE279A74590331C")):
        text = COMPANIONS[suffix]
        assert digits in text, "√3/3 belongs to 1o ⊗ 1o → 0e"
        changed = text.replace(digits, digits[:4] + "3" + digits[5:], 1)
        assert len(check_literals({f"llvm/kernel{suffix}": changed})[1]) == 1
        bare = text.replace("  ; √3/3", "", 1)
        assert len(check_literals({f"llvm/kernel{suffix}": bare})[1]) == 1


def test_every_constant_of_cuda_text_is_read_and_right() -> None:
    count, failures = check_literals({"cuda/kernel.cu": CUDA})
    assert count > 20
    assert not failures


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("REAL(0.5773502691896257)", "REAL(0.5773502691896258)"),
        ("  // √3/3\n", "\n"),
        (" = C1 * y1;", " = 0.5 * y1;"),
        (" = C1 * y1;", " = 2.f * y1;"),
    ],
)
def test_a_changed_constant_of_cuda_text_is_seen(before: str, after: str) -> None:
    assert before in CUDA
    assert len(check_literals({"cuda/kernel.cu": CUDA.replace(before, after, 1)})[1]) == 1
