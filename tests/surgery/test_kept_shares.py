"""What becomes of dead channels: shares that add up, their causes, and the lines of code and layers that keep most."""

import dataclasses
import json
import re

import pytest
import torch
from hypothesis import given, reject, settings
from kernel_prices import blocks_of, made_up
from masking import THRESHOLD, BatchNorm
from networks import BETAS, RATES, RECIPES, Recipe, build, images
from test_properties import quickly
from torch import nn
from wiring import chain, norm, planes, slim, widths, wired

import slimnet
from slimnet.graph.reasons import Cause, Kind
from slimnet.planning.width_rounding import Rounding
from slimnet.surgery.kept_shares import rank_layers, rank_lines, ranking_lines
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import Kept

NUMBER = r"[\d,]+"


def numbers_in(text: str) -> tuple[int, int, list[int]]:
    """The numbers of the line of shares: dead, removed, and those of each share of what stays."""
    dead, removed, rest = re.fullmatch(
        rf"of ({NUMBER}) dead channels? (all|none|{NUMBER}) (?:is|are) removed(.*)", text
    ).groups()
    total = int(dead.replace(",", ""))
    named = {"all": total, "none": 0}
    shares = [
        int(number.replace(",", "")) for number in re.findall(rf"; ({NUMBER}) (?:is kept |are kept )?since", rest)
    ]
    return total, named[removed] if removed in named else int(removed.replace(",", "")), shares


def masks(model: nn.Module) -> dict[str, set[int]]:
    """The channels of each convolution whose own BatchNorm's γ is below the threshold, read from the weights."""
    found = {}
    for name, module in model.named_modules():
        conv, scale, *_ = [*(module if isinstance(module, nn.Sequential) else ()), None, None]
        if isinstance(conv, nn.modules.conv._ConvNd) and isinstance(scale, BatchNorm) and scale.weight is not None:
            found[f"{name}.0"] = set((scale.weight.abs() < THRESHOLD).nonzero().flatten().tolist())
    return found


def accounted(plan: SurgeryPlan, layer: str) -> set[int]:
    """The dead channels of a convolution of the plan: those that a cut of its weight leaves out, and the kept ones."""
    weight = f"{layer}.weight"
    left = next((set(group.outputs) for group in plan.groups if group.weight == weight), None)
    if left is None:
        left = next((set(cut.keep) for cut in plan.cuts if (cut.tensor, cut.axis) == (weight, 0)), None)
    dense = set(range(plan.shapes[weight][0]))
    kept = {channel for each in plan.kept if each.layer == layer for channel in each.channels}
    return (dense - left if left is not None else set()) | kept


def check_shares(recipe: Recipe, rate: float, beta: str) -> None:
    dense = build(recipe, rate, beta)
    slimmed = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=float("inf"))
    plan, text = slimmed.plan, str(slimmed.plan.shares)
    before, after = sum(widths(dense)), sum(widths(slimmed.model))
    if not text:
        assert (before, plan.kept) == (after, ())
        assert not any(masks(dense).values())
        return
    assert str(plan).splitlines()[-1].strip() == text
    total, removed, kept = numbers_in(text)
    assert removed == before - after
    assert sum(kept) == sum(len(each["channels"]) for each in json.loads(plan.to_json())["kept"])
    assert total == removed + sum(kept) == sum(layer.dead for layer in plan.layers)
    assert kept == sorted(kept, reverse=True)
    for layer, dead in masks(dense).items():
        if (
            any(each.name == layer and each.kind == "conv" for each in plan.layers)
            and "transposed" not in recipe.blocks
        ):
            assert dead <= accounted(plan, layer)


@settings(quickly, max_examples=25)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_the_shares_of_any_network_add_up_to_its_dead_channels(recipe, rate, beta):
    """Oracle: widths of the two networks for what is removed, masks of γ and the plan's JSON for the rest."""
    check_shares(recipe, rate, beta)


@pytest.mark.sweep
@settings(quickly, max_examples=1000)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_the_shares_of_every_drawn_network_add_up(recipe, rate, beta):
    check_shares(recipe, rate, beta)


@settings(quickly, max_examples=15)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_in_a_chain_the_dead_channels_are_those_with_small_scales(recipe, rate, beta):
    """Oracle: γ below the threshold, counted in the weights; where a layer dies as a whole others die with it."""
    recipe = dataclasses.replace(recipe, blocks=("plain",) * len(recipe.blocks), inputs=1, head="pooled")
    dense = build(recipe, rate, beta)
    dead = masks(dense)
    if any(len(channels) == plan_width(dense, layer) for layer, channels in dead.items()):
        reject()
    plan = slimnet.inspect(dense, images(recipe), THRESHOLD).plan
    assert plan.shares.dead == sum(map(len, dead.values()))


def plan_width(model: nn.Module, layer: str) -> int:
    return len(model.get_submodule(layer).weight)


# By hand


def split_in_code() -> nn.Module:
    """Two lines with numbers that are widths, and a layer whose dead channels carry constants into a padded one."""
    return wired(
        lambda m, x: m.end(
            m.third(
                m.second(
                    sum(
                        m.first(x).split((4, 4), 1),
                    )
                )[:, 1:5]
            )
        ),
        first=chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1, 5]), nn.ReLU()),
        second=chain(nn.Conv2d(4, 8, 1), norm(8, [2, 3, 7]), nn.ReLU()),
        third=chain(nn.Conv2d(4, 6, 1), norm(6, [0, 1, 2], 0.7), nn.ReLU()),
        end=nn.Conv2d(6, 3, 3, padding=1),
    )


def test_a_share_names_its_cause_and_its_lines():
    plan = slim(split_in_code(), planes()).plan
    kept = {share.cause: share for share in plan.shares.kept}
    in_code = kept[Cause.WIDTH]
    assert in_code.channels == sum(
        len(each.channels) for each in plan.kept if each.layer.startswith(("first", "second"))
    )
    assert len(in_code.lines) == 2
    assert all(re.fullmatch(r"test_kept_shares\.py:\d+", line) for line in in_code.lines)
    assert kept[Cause.CONSTANTS].channels == 1
    assert f"since a width is a number in the code ({', '.join(in_code.lines)})" in str(plan)
    assert "1 since it carries constants" in str(plan.shares)
    more = dataclasses.replace(in_code, lines=("a.py:1", "b.py:2", "c.py:3", "d.py:4"))
    assert str(more) == "since a width is a number in the code (a.py:1, b.py:2, 2 more lines)"


def test_lines_and_layers_are_ranked_by_what_they_keep():
    """Oracle: the plan's own list, summed here."""
    plan = slim(split_in_code(), planes()).plan
    lines, layers = rank_lines(plan), rank_layers(plan)
    assert [line.channels for line in lines] == sorted((line.channels for line in lines), reverse=True)
    for holder, field in [*((line, "line") for line in lines), *((layer, "layer") for layer in layers)]:
        assert holder.channels == sum(len(each.channels) for each in plan.kept if getattr(each, field) == holder.name)
    assert {line.name for line in lines} == {each.line for each in plan.kept} - {""}
    assert {layer.name for layer in layers} == {each.layer for each in plan.kept}
    (split,) = [line for line in lines if "split" in line.reason]
    assert split.reason == "split into parts of fixed sizes at split_with_sizes"
    assert split.help == "chunk, or sizes computed from x.shape[1]"
    text = ranking_lines(plan)
    assert text[0] == "lines of code that keep most dead channels"
    assert text[1] == f"  {lines[0].name}: {lines[0].channels}, {lines[0].reason}"
    shown = str(slimnet.inspect(split_in_code(), planes()))
    assert "layers that keep most dead channels" in shown
    assert shown.splitlines()[-1].startswith("  of ")


def test_all_or_none_or_one_may_be_removed():
    plain = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1, 2]), nn.ReLU(), nn.Conv2d(8, 3, 1))
    assert str(slim(plain, planes()).plan.shares) == "of 3 dead channels all are removed"
    one = chain(nn.Conv2d(2, 8, 3), norm(8, [0]), nn.ReLU(), nn.Conv2d(8, 3, 1))
    assert str(slim(one, planes()).plan.shares) == "of 1 dead channel 1 is removed"
    asked = slim(plain, planes(), keep="0").plan
    assert str(asked.shares) == "of 3 dead channels none is removed; 3 are kept since that was requested"
    alive = slim(chain(nn.Conv2d(2, 8, 3), norm(8), nn.Conv2d(8, 3, 1)), planes()).plan
    assert (alive.shares.dead, str(alive.shares)) == (0, "")
    assert "dead channels" not in str(alive)


def test_channels_that_stay_for_speed_are_a_share():
    """7 of 16 channels are alive, and 8 are as fast."""
    plain = chain(nn.Conv2d(2, 16, 3), norm(16, range(9)), nn.ReLU(), nn.Conv2d(16, 3, 1))
    plan = slim(plain, planes(), round_to=Rounding(prices=made_up(blocks_of(4)))).plan
    text = "of 9 dead channels 8 are removed; 1 is kept since its removal saves no time"
    assert (str(plan.shares), plan.kept_for_speed) == (text, 1)


def test_shares_are_derived_and_in_no_stored_plan():
    plan = slim(split_in_code(), planes()).plan
    stored = json.loads(plan.to_json())
    assert "shares" not in stored
    again = SurgeryPlan.from_data(stored | {"shares": plan.shares.to_data()})
    assert again == plan
    assert again.digest == plan.digest
    data = plan.shares.to_data()
    assert data["dead"] == data["removed"] + sum(share["channels"] for share in data["kept"])


def test_reasons_of_an_unknown_kind_are_a_share_too():
    plan = dataclasses.replace(
        slim(split_in_code(), planes()).plan,
        kept=(Kept("first", "stars", (0, 1), "stars"), Kept("second", "in words", (2,))),
    )
    assert [(share.cause, share.channels) for share in plan.shares.kept] == [(Cause.OTHER, 3)]
    assert rank_layers(plan)[0].reason == "stars"


def test_every_kind_of_reason_has_a_cause_in_words_of_its_own():
    assert {kind.cause for kind in Kind} == set(Cause) - {Cause.OTHER}
    assert len({cause.value for cause in Cause}) == len(Cause)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
