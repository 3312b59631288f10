"""Widths that are kept in attributes of modules change with the channels.

Oracle: the dense network in double precision on fresh inputs (`wiring.slim`), and the widths that the dead channels
leave, counted by hand.
"""

import copy
import json

import onnxruntime
import pytest
import torch
from sized_blocks import HALVES, Attention, Config, ConvNorm, Halves, Parts, Shortcut
from torch import nn
from wiring import chain, double, norm, planes, reasons, refused, slim, widths, wired

import slimnet
from slimnet.bundle.bundle import load, save
from slimnet.errors import PlanError
from slimnet.inspection import inspect
from slimnet.models import PadShortcut
from slimnet.surgery.plan import SurgeryPlan

EXACT = 1e-12


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def attributes(slimmed: slimnet.Slimmed) -> dict[str, tuple[int, int]]:
    return {cut.path: (cut.before, cut.after) for cut in slimmed.plan.attributes}


@pytest.mark.parametrize("way", HALVES)
def test_halves_of_a_width_in_an_attribute_become_narrower(way):
    slimmed = slim(double(Halves(way, [0, 3, 5, 8, 9, 14])), planes())
    assert widths(slimmed.model) == [10, 7, 3]
    assert slimmed.plan.shares.removed == 7
    half = slimmed.model.width // 2 if way == "split by half an attribute" else slimmed.model.c
    assert half == 5
    assert f"{next(iter(attributes(slimmed)))}: " in str(slimmed.plan)


@pytest.mark.parametrize("way", ["what remains", "slices", "slices from the end"])
def test_parts_need_not_be_equal_where_the_code_does_not_want_it(way):
    slimmed = slim(double(Halves(way, [0, 3, 5, 9])), planes())
    assert widths(slimmed.model) == [12, 7, 3]


def test_parts_stay_equal_where_one_number_is_the_size_of_both():
    slimmed = slim(double(Halves("split by two", [0, 3, 5, 9])), planes())
    assert widths(slimmed.model) == [14, 7, 3]
    assert "equal parts at split_with_sizes" in reasons(slimmed)


@pytest.mark.parametrize("way", ["list", "tuple", "dataclass"])
def test_sizes_in_lists_tuples_and_frozen_dataclasses_change(way):
    model = double(Parts(way))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [9, 2, 2, 2]
    if way == "dataclass":
        assert slimmed.model.config == Config(2, 3, (4, 1))
        assert model.config == Config(3, 5, (8, 1))
        assert attributes(slimmed)["config.others.0"] == (8, 4)
    else:
        assert list(slimmed.model.sizes) == [2, 3, 4]
        assert type(slimmed.model.sizes) is (list if way == "list" else tuple)
        assert list(model.sizes) == [3, 5, 8]


def test_modules_that_share_a_dataclass_follow_each_other():
    config = Config(8, 0, ())

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.config, self.stem = config, ConvNorm(4, 16, [0, 1, 9, 10])

        def forward(self, x):
            return torch.cat(self.stem(x).split(self.config.first, 1)[::-1], 1)

    model = double(nn.Sequential(nn.Conv2d(2, 4, 1), Half(), nn.Conv2d(16, 4, 1), Half(), nn.Conv2d(16, 3, 1)))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 12, 4, 12, 3]
    assert slimmed.model[1].config is slimmed.model[3].config
    assert (slimmed.model[1].config.first, config.first) == (6, 8)


@pytest.mark.parametrize("way", ["all", "infer"])
def test_heads_lose_equally_many_channels_of_query_key_and_value_each(way):
    model = double(Attention([[0], [3]], [[1, 2], [0, 5]], way))
    slimmed = slim(model, planes())
    assert (slimmed.model.heads, slimmed.model.key, slimmed.model.value) == (2, 3, 4)
    assert widths(slimmed.model) == [20, 8, 3]
    assert slimmed.model.scale == model.scale


def test_a_head_with_fewer_dead_channels_decides():
    slimmed = slim(double(Attention([[0, 1], [3]], [[1, 2], [5]])), planes())
    assert (slimmed.model.key, slimmed.model.value) == (3, 5)


@pytest.mark.parametrize("way", ["behind", "behind, by the width"])
def test_zero_channels_of_a_shortcut_are_counted_by_attributes(way):
    slimmed = slim(double(Shortcut(way)), planes())
    assert widths(slimmed.model) == [7, 11, 3]
    assert attributes(slimmed) == {"outputs": (16, 12 if way == "behind" else 11)}


def doubled(halves: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Two halves of which the second is another one, so that it must not get channels of the first."""
    return torch.cat([halves[0], 2 * halves[1]], 1)


def shared_width(dead: list[list[int]], use: str = "") -> nn.Module:
    """Two splits by one attribute."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = doubled(m.first(x).split(m.c, 1))
        y = doubled(m.second(y).split(m.c, 1))
        return m.head(y * (1 / m.c) if use == "a factor" else y)

    layers = {"first": ConvNorm(2, 16, dead[0]), "second": ConvNorm(16, 16, dead[1]), "head": nn.Conv2d(16, 3, 1)}
    model = wired(forward, **layers)
    model.c = 8
    return model


def test_splits_by_one_attribute_keep_equally_many_channels():
    slimmed = slim(shared_width([[0, 1, 2, 8, 9, 10], [4, 12]]), planes())
    assert widths(slimmed.model) == [14, 14, 3]
    assert slimmed.model.c == 7


def test_an_attribute_that_is_a_factor_as_well_stays_and_is_named():
    slimmed = slim(shared_width([[0, 8], [4, 12]], "a factor"), planes())
    assert widths(slimmed.model) == [16, 16, 3]
    assert slimmed.model.c == 8
    assert not slimmed.plan.attributes
    assert "takes a width from c that cannot change with it" in reasons(slimmed)


def test_of_two_attributes_that_could_both_be_meant_none_changes_and_both_are_named():
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.head(doubled(m.stem(x).split(m.groups * m.each, 1)))

    model = wired(forward, stem=ConvNorm(2, 16, [*range(4), *range(8, 12)]), head=nn.Conv2d(16, 3, 1))
    model.groups, model.each = 2, 4
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [16, 3]
    assert (slimmed.model.groups, slimmed.model.each) == (2, 4)
    assert "takes a width from each, groups and it is not clear which of them must change" in reasons(slimmed)


def test_an_attribute_that_only_happens_to_be_as_large_does_not_change():
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        first, second = m.stem(x).chunk(2, 1)
        return m.head(torch.cat([second, first], 1)).flatten(2).view(len(x), 3, m.side, m.side)

    model = wired(forward, stem=ConvNorm(2, 16, [0, 8]), head=nn.Conv2d(16, 3, 1))
    model.side, model.c = 8, 8
    slimmed = slim(model, planes(side=8))
    assert widths(slimmed.model) == [14, 3]
    assert not slimmed.plan.attributes
    assert (slimmed.model.side, slimmed.model.c) == (8, 8)


def test_a_number_in_the_code_keeps_its_channels_as_before():
    model = wired(
        lambda m, x: m.head(doubled(m.stem(x).split(8, 1))),
        stem=ConvNorm(2, 16, [0, 8]),
        head=nn.Conv2d(16, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [16, 3]
    assert "hard-codes a width" in reasons(slimmed)


def test_a_normalisation_without_tensors_counts_its_channels():
    slimmed = slim(chain(ConvNorm(2, 8, [1, 2]), nn.InstanceNorm2d(8), nn.Conv2d(8, 3, 1)), planes())
    assert slimmed.model[1].num_features == 6
    assert attributes(slimmed) == {"1.num_features": (8, 6)}


def plan_of(model: nn.Module) -> SurgeryPlan:
    return inspect(model, planes()).plan


def test_a_plan_with_attributes_is_written_read_and_applied():
    model = double(Attention([[0], [3]], [[1, 2], [0, 5]]))
    plan = plan_of(model)
    assert SurgeryPlan.from_json(plan.to_json()) == plan
    x = planes()
    with torch.no_grad():
        assert (slimnet.apply_plan(model, SurgeryPlan.from_json(plan.to_json()))(x) - model(x)).abs().max() < EXACT
    assert model.key == 4


def test_plans_with_attributes_compose():
    dense = double(Halves("split by half an attribute", [0, 8]))
    first = plan_of(dense)
    between = slimnet.apply_plan(dense, first)
    with torch.no_grad():
        between.stem[1].weight[[2, 10]] = 0
        between.stem[1].bias[[2, 10]] = 0
    second = plan_of(between)
    both = first.then(second)
    assert [(cut.attribute, cut.before, cut.after) for cut in both.attributes] == [("width", 16, 12)]
    x = planes()
    with torch.no_grad():
        expected = slimnet.apply_plan(between, second)(x)
        slim_at_once = slimnet.apply_plan(dense, both)
    assert slim_at_once.width == 12
    assert slim_at_once.stem[0].out_channels == 12
    assert expected.shape == slim_at_once(x).shape
    message = refused(PlanError, 2, lambda: first.then(first_again(second)))
    assert "the first leaves width at 14, the second expects 13" in message


def first_again(plan: SurgeryPlan) -> SurgeryPlan:
    """The plan with another value before."""
    data = json.loads(plan.to_json())
    data["attributes"][0]["before"] = 13
    return SurgeryPlan.from_data(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attribute": "nothing"}, "changes nothing, which the network does not have"),
        ({"module": "stem.9"}, "changes stem.9.width, which the network does not have"),
        ({"attribute": "way"}, "changes way, which is not an integer"),
        ({"attribute": "training"}, "changes training, which is not an integer"),
        ({"attribute": "__class__"}, "changes __class__, which the network does not have"),
        ({"attribute": "width.real"}, "changes width.real, which the network does not have"),
        ({"attribute": "_modules.stem"}, "changes _modules.stem, which the network does not have"),
        ({"attribute": ""}, "which the network does not have"),
        ({"before": 15}, "changes width from 15, but the network has 16"),
        ({"after": 17}, "makes width larger, from 16 to 17"),
        ({"after": -1}, "the plan"),
        ({"after": True}, "the plan"),
        ({"after": "8"}, "the plan"),
    ],
)
def test_an_attribute_that_is_not_there_or_no_width_is_refused(change, words):
    model = double(Halves("split by half an attribute", [0, 8]))
    data = json.loads(plan_of(model).to_json())
    data["attributes"][0].update(change)
    assert words in refused(PlanError, 2, lambda: slimnet.apply_plan(model, SurgeryPlan.from_data(data)))
    assert model.width == 16


def test_an_attribute_that_is_changed_twice_is_refused():
    model = double(Halves("split by half an attribute", [0, 8]))
    data = json.loads(plan_of(model).to_json())
    data["attributes"] *= 2
    assert "changes width 2 times" in refused(
        PlanError, 2, lambda: slimnet.apply_plan(model, SurgeryPlan.from_data(data))
    )


def test_a_bundle_rebuilds_the_attributes(tmp_path):
    model = double(Attention([[0], [3]], [[1, 2], [0, 5]])).float()
    slimmed = slimnet.slim(model, planes().float(), tolerance=1e-4)
    save(slimmed, tmp_path / "bundle")
    fresh = double(Attention([[], []], [[], []])).float()
    loaded = load(tmp_path / "bundle", fresh)
    assert (loaded.key, loaded.value, fresh.key) == (3, 4, 4)
    x = planes().float()
    with torch.no_grad():
        assert torch.equal(loaded(x), slimmed.model(x))
        expected = model(x).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert abs(found - expected).max() < 1e-4


def test_a_plan_of_an_earlier_version_pads_and_counts_by_fields_of_its_own():
    model = double(
        nn.Sequential(ConvNorm(2, 8, [1, 2, 6]), PadShortcut(1, 2, 4), nn.InstanceNorm2d(14), nn.Conv2d(14, 3, 1))
    )
    plan = plan_of(model)
    cuts = {cut.path: cut.after for cut in plan.attributes}
    assert cuts == {"1.before": 0, "1.after": 0, "2.num_features": 5}
    data = json.loads(plan.to_json())
    data["attributes"] = []
    data["paddings"] = [{"module": "1", "before": 0, "after": 0}]
    data["features"] = [{"module": "2", "channels": 5}]
    x = planes()
    with torch.no_grad():
        expected = slimnet.apply_plan(model, plan)
        found = slimnet.apply_plan(model, SurgeryPlan.from_data(data))
        assert torch.equal(found(x), expected(x))
    assert found[2].num_features == 5


def test_integers_of_a_network_are_plain_ones_afterwards():
    model = double(Halves("split by two", [0, 8]))
    slimmed = slim(model, planes())
    for each in (model, slimmed.model, copy.deepcopy(slimmed.model)):
        assert type(each.c) is int
        assert type(each.width) is int


class FixedBlur(nn.Module):
    """Blurs each channel by one kernel, in as many groups as an attribute says, or the input has channels."""

    def __init__(self, channels: int, groups_of: str, transposed: bool):
        super().__init__()
        self.channels, self.groups_of = channels, groups_of
        self.blur = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
        self.register_buffer("kernel", torch.full((channels, 1, 3, 3), 1 / 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = self.channels if self.groups_of == "attribute" else x.shape[1]
        return self.blur(x, self.kernel, stride=2, groups=groups)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups_of", ["attribute", "shape"])
def test_the_groups_of_a_depthwise_convolution_follow_an_attribute(groups_of, transposed):
    dead = norm(8, [0, 3, 5], -1.0)
    model = chain(nn.Conv2d(2, 8, 3), dead, nn.ReLU(), FixedBlur(8, groups_of, transposed), nn.Conv2d(8, 3, 1))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [5, 3]
    assert slimmed.model[3].kernel.shape[0] == 5
    assert slimmed.model[3].channels == (5 if groups_of == "attribute" else 8)


class Checked(nn.Module):
    """Checks the width of its input in one of these ways."""

    def __init__(self, channels: int, way: str):
        super().__init__()
        self.channels, self.way = channels, way
        self.last = nn.Conv2d(channels, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "assert":
            assert x.shape[1] == self.channels
        elif self.channels != x.size(1):
            raise ValueError(f"{x.size(1)} channels instead of {self.channels}")
        return self.last(x)


@pytest.mark.parametrize("way", ["assert", "raise"])
def test_an_attribute_that_a_width_is_compared_with_changes_too(way):
    model = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 3, 5], -1.0), nn.ReLU(), Checked(8, way))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [5, 3]
    assert slimmed.model[3].channels == 5


def test_padding_by_a_difference_of_widths_follows_them():
    """A shortcut without a convolution; oracle: the same with zeros that are joined on."""

    def forward(m, x):
        y = m.narrow(x)
        wide, short = m.wide(y), y[:, :, ::2, ::2]
        more = wide.shape[1] - short.shape[1]
        return m.last((wide + nn.functional.pad(short, (0, 0, 0, 0, 0, more))).relu())

    narrow = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), norm(8, range(4), -1.0), nn.ReLU())
    wide = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), norm(16, range(4), -1.0))
    model = wired(forward, narrow=narrow, wide=wide, last=nn.Conv2d(16, 3, 1))
    assert widths(slim(model, planes()).model) == [4, 12, 3]
