from __future__ import annotations

import pytest
import torch

from src.methods.parts.hadamard import (
    hadamard,
    hadamard_factors,
    has_hadamard,
    random_orthogonal,
    random_rotation,
    randomized_hadamard,
)
from src.methods.parts.paley import jacobsthal

# Widths, MLP widths, heads and head sizes of Whisper (tiny to large), Moonshine and the sandbox models.
SIZES = [1, 2, 4, 8, 12, 16, 20, 28, 32, 36, 48, 52, 60, 64, 80, 96, 100, 192, 288, 384, 416, 512]
SIZES += [768, 1024, 1152, 1280, 1536, 1664, 2048, 3072, 4096, 5120]
NONE = [0, 3, 6, 10, 18, 26, 27, 92]  # 92 exists, but neither Sylvester nor Paley knows it


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", SIZES)
def test_entries_are_signs_and_rows_orthogonal(n: int) -> None:
    H = hadamard(n).float()  # exact: all products are integers below 2^24
    assert has_hadamard(n)
    assert (H.abs() == 1).all()
    some = torch.randperm(n, generator=generator())[:256]  # rows against all rows: the largest sizes take seconds
    assert torch.equal(H[some] @ H.T, n * torch.eye(n)[some])


@pytest.mark.parametrize("n", NONE)
def test_a_size_that_cannot_be_constructed_is_named(n: int) -> None:
    assert not has_hadamard(n)
    with pytest.raises(ValueError, match=f"no Hadamard matrix of size {n} can be constructed"):
        hadamard(n)


@pytest.mark.parametrize("q", [3, 5, 7, 9, 25, 27, 49, 125])
def test_squares_of_a_field_are_half_of_it(q: int) -> None:
    J = jacobsthal(q)
    assert torch.equal(J @ J.T, q * torch.eye(q, dtype=J.dtype) - 1)
    assert not J.sum(0).any()


@pytest.mark.parametrize("q", [1, 2, 4, 15, 81])
def test_fields_that_are_not_built_are_refused(q: int) -> None:
    with pytest.raises(ValueError, match=str(q)):
        jacobsthal(q)


@pytest.mark.parametrize("n", [36, 64])
def test_a_randomised_one_is_orthogonal_and_follows_the_seed(n: int) -> None:
    first, again, other = (randomized_hadamard(n, generator(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first @ first.T, torch.eye(n, dtype=torch.float64))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.abs(), torch.full_like(first, n**-0.5))


@pytest.mark.parametrize("n", [18, 64])
def test_a_size_without_one_gets_a_random_orthogonal_matrix_and_a_note(n: int) -> None:
    R, note = random_rotation(n, generator())
    torch.testing.assert_close(R @ R.T, torch.eye(n, dtype=torch.float64))
    assert note == ("" if n == 64 else "no Hadamard matrix of size 18: a random orthogonal one is used")


@pytest.mark.parametrize("n", [*SIZES[:-4], 6, 54, 92])
def test_factors_multiply_to_an_orthogonal_matrix(n: int) -> None:
    factors = hadamard_factors(n, generator())
    Q = torch.kron(factors.left, factors.right)
    torch.testing.assert_close(Q @ Q.T, torch.eye(n, dtype=torch.float64))
    if has_hadamard(n):
        assert not factors.note
        torch.testing.assert_close(Q.abs(), torch.full_like(Q, n**-0.5))
    else:
        assert f"size {n}" in factors.note


@pytest.mark.parametrize(("n", "sides"), [(1536, {48, 32}), (1152, {36, 32}), (1664, {52, 32}), (5120, {80, 64})])
def test_factors_are_of_about_equal_size(n: int, sides: set[int]) -> None:
    factors = hadamard_factors(n, generator())
    assert {len(factors.left), len(factors.right)} == sides


def test_random_orthogonal_matrices_prefer_no_direction() -> None:
    draws = torch.stack([random_orthogonal(4, generator(seed)) for seed in range(300)])
    assert draws.mean(0).abs().max() < 0.12
