"""Networks whose own outputs are infinite or NaN: certified where they compute numbers, and refused where nowhere."""

import math

import pytest
import torch
from bundles import images, lived_in
from torch import nn

import slimnet
from slimnet.errors import CertificateError
from slimnet.surgery.equivalence import distance, relative_difference

INF, NAN = math.inf, math.nan


class Masking(nn.Module):
    """A small network that puts a value in the place of some outputs, or of all."""

    def __init__(self, value: float, columns: int = 2) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.value, self.columns = value, columns

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.head(torch.relu(self.bn(self.conv(image))))
        return found.masked_fill(torch.arange(found.shape[3], device=found.device) < self.columns, self.value)


def masking(value: float, columns: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(Masking(value, columns)).eval()


@pytest.mark.parametrize(
    ("expected", "actual", "largest"),
    [
        ([INF, 1.0], [INF, 1.5], 0.5),
        ([-INF, 2.0], [-INF, 2.0], 0.0),
        ([NAN, 4.0], [NAN, 3.0], 1.0),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([INF, 1.0], [7.0, 1.0], INF),
        ([7.0, 1.0], [INF, 1.0], INF),
        ([NAN, 1.0], [7.0, 1.0], NAN),
        ([7.0, 1.0], [NAN, 1.0], NAN),
        ([INF, 1.0], [NAN, 1.0], NAN),
    ],
)
def test_equal_infinities_and_two_nans_are_equal_and_nothing_else_that_is_not_finite(expected, actual, largest):
    found = distance(torch.tensor(expected), torch.tensor(actual))
    assert found.largest == pytest.approx(largest, nan_ok=True)
    assert found.scale == max(abs(value) for value in expected if math.isfinite(value))
    assert (found.values, found.nans) == (2, sum(map(math.isnan, expected)))
    assert found.infinities == sum(map(math.isinf, expected))
    relative = relative_difference([torch.tensor(expected)], [torch.tensor(actual)])
    assert relative == (found.relative if math.isfinite(largest) else INF)


def test_complex_numbers_of_which_one_part_is_infinite_are_compared_by_the_other_part():
    expected = torch.tensor([complex(INF, 1.0), complex(3.0, 4.0)])
    actual = torch.tensor([complex(INF, 1.5), complex(3.0, 4.0)])
    assert (distance(expected, expected).largest, distance(expected, actual).largest) == (0.0, 0.5)
    assert distance(expected, actual).scale == 5.0


@pytest.mark.parametrize(("value", "said"), [(INF, "96 are infinite"), (-INF, "96 are infinite"), (NAN, "96 are NaN")])
def test_a_network_that_is_not_finite_somewhere_is_certified_elsewhere(value, said):
    """Oracle: 3 examples, 4 channels and planes of 4×4, of which 2 columns are masked."""
    slimmed = slimnet.slim(masking(value), images(), float64=True)
    found = slimmed.certificate
    assert found.holds
    assert 0 < found.max_rel_difference < 1e-4
    assert found.values == 3 * 4 * 4 * 4
    assert f"of 192 output values of the dense network itself, {said}" in str(found)
    assert slimnet.Certificate.from_json(found.to_json()) == found


def test_a_difference_beside_what_is_not_finite_still_counts():
    dense = masking(NAN)
    slimmed = slimnet.slim(dense, images())
    slimmed.model.head.bias.data += 1.0
    found = slimnet.certify(dense, slimmed.model, slimmed.plan, images())
    assert found.max_abs_difference == pytest.approx(1.0, abs=1e-5)
    assert not found.holds


@pytest.mark.parametrize(("value", "kind"), [(NAN, "NaN"), (-INF, "infinite")])
def test_a_network_that_is_finite_nowhere_is_refused_and_that_is_what_is_said(value, kind):
    message = rf"^the dense network's own output is {kind} on these inputs, in all of 192 values"
    with pytest.raises(CertificateError, match=message):
        slimnet.slim(masking(value, columns=4), images())


@pytest.mark.parametrize("value", [-INF, NAN])
def test_the_bundle_of_such_a_network_agrees_with_itself(value, tmp_path, operators_read_once):
    slimnet.save(slimnet.slim(masking(value), images()), tmp_path / "slim")
    found = slimnet.verify_bundle(tmp_path / "slim", Masking(value))
    assert max(found.differences.values()) < 1e-5
    assert found.certified
