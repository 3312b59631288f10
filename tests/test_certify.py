"""How two networks' outputs are compared: in double precision, piece by piece."""

import pytest
import torch

from slimnet.certify import PIECE, Difference


def compared(expected: torch.Tensor, actual: torch.Tensor) -> Difference:
    """The difference of one output of two networks."""
    difference = Difference()
    difference.add([expected], [actual])
    return difference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, 2 * PIECE + 1])
def test_the_largest_difference_is_found_wherever_it_is(size, dtype):
    generator = torch.Generator().manual_seed(size)
    expected, actual = torch.randn(2, 1, size, generator=generator).to(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    left, right = expected.to(wide), actual.to(wide)
    found = compared(expected, actual)
    assert found.largest == pytest.approx((left - right).abs().max().item(), rel=1e-15)
    assert found.scale == pytest.approx(left.abs().max().item(), rel=1e-15)


def test_a_difference_in_the_last_of_many_outputs_counts():
    expected = torch.zeros(3, PIECE)
    actual = expected.clone()
    actual[-1, -1] = 0.5
    assert compared(expected, actual).largest == 0.5


@pytest.mark.parametrize("place", [0, PIECE, 3 * PIECE - 1])
def test_a_value_that_is_no_number_is_the_largest_difference_of_all(place):
    expected, actual = torch.ones(2, 3, PIECE)
    actual.view(-1)[place] = float("nan")
    found = compared(expected, actual)
    assert found.largest != found.largest


def test_outputs_of_whole_numbers_and_of_truths_are_compared_too():
    assert compared(torch.tensor([[3, 7]]), torch.tensor([[3, 9]])).largest == 2
    assert compared(torch.tensor([[True, False]]), torch.tensor([[True, True]])).largest == 1
    assert compared(torch.zeros(0, 4), torch.zeros(0, 4)).largest == 0
