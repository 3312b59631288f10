"""What a network's images are is kept in its bundle, and by everything that is made from that."""

import json
import re
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from bundles import SHAPE, basic_net, forge, images, refusal, small_net

from slimnet.bundle.blueprint import Blueprint
from slimnet.bundle.bundle import load, read_blueprint, save, verify_bundle
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import BundleError, UsageError
from slimnet.pipeline import slim

pytestmark = pytest.mark.usefixtures("operators_read_once")

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
SPEC = ImageSpec((0.1307,), (0.3081,), SHAPE[1:], ("one", "two", "three"))


@pytest.fixture(scope="module")
def first(tmp_path_factory, operators_read_once) -> Path:
    """A bundle that knows its images."""
    slimmed = slim(basic_net(), torch.randn(2, *SHAPE))
    return save(slimmed, tmp_path_factory.mktemp("bundles") / "first", images=SPEC)


def metadata(folder: Path) -> dict[str, str]:
    return {each.key: each.value for each in onnx.load(folder / "model.onnx").metadata_props}


def test_it_is_in_the_plan_and_in_the_metadata_of_the_onnx_file(first):
    assert read_blueprint(first).images == SPEC
    assert json.loads((first / "plan.json").read_text())["images"]["classes"] == ["one", "two", "three"]
    found = metadata(first)
    assert (found["image_layout"], found["image_dtype"]) == ("NCHW", "float32")
    assert json.loads(found["image_mean"]) == [0.1307]
    assert json.loads(found["class_names"]) == ["one", "two", "three"]


def test_the_page_about_onnx_files_is_true(first, tmp_path, monkeypatch, capsys):
    """It lists every key, and its code gives the class of the network itself for the image that it makes."""
    page = PAGE.read_text(encoding="utf-8")
    assert metadata(first).keys() <= set(re.findall("`([a-z_]+)`", page))
    monkeypatch.chdir(tmp_path)
    shutil.copy(first / "model.onnx", "slim.onnx")
    code = page.split("```python\n")[1].split("```")[0]
    exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})
    with torch.no_grad():
        scores = load(first).eval()(torch.full((1, *SHAPE), -0.1307 / 0.3081))
    assert capsys.readouterr().out == f"{SPEC.classes[int(scores.argmax())]}\n"


def test_verification_shows_it(first):
    result = verify_bundle(first)
    assert result.images == SPEC
    assert str(result).endswith(
        "made for images of 1 × 8 × 8 in 0..1, minus mean 0.1307, divided by std 0.3081, 3 named classes"
    )


def test_a_network_that_is_slimmed_again_or_trained_further_keeps_it(first, tmp_path):
    """Also without a word about it, and where the bundle itself is no longer there."""
    shutil.copytree(first, tmp_path / "copy")
    loaded = load(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    again = save(slim(loaded, torch.randn(2, *SHAPE)), tmp_path / "again")
    assert read_blueprint(again).images == SPEC
    assert metadata(again)["image_std"] == metadata(first)["image_std"]
    assert read_blueprint(save(load(first), tmp_path / "tuned", like=first)).images == SPEC


def test_like_gives_it_to_a_network_that_does_not_have_it(first, tmp_path):
    model = slim(basic_net(), torch.randn(2, *SHAPE)).model
    assert read_blueprint(save(model, tmp_path / "tuned", like=first)).images == SPEC


def test_a_bundle_written_before_has_none_and_loads(first, tmp_path):
    folder = Path(shutil.copytree(first, tmp_path / "old"))
    forge(folder, "plan.json", lambda plan: plan.pop("images") and None)
    assert Blueprint.read(folder / "plan.json").images is None
    assert load(folder)(torch.randn(2, *SHAPE)).shape == (2, 3)
    assert verify_bundle(folder).images is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0.0]}, "images.std[0] is 0.0"),
        ({"mean": [0.0, 0.0]}, "plan.json: images is {"),
        ({"layout": "HWC"}, "images.layout is 'HWC'"),
        ({"classes": ["a\u202eb"]}, "a name that cannot be printed"),
        ({"image_size": [10**30, 1]}, "images.image_size[0] is"),
    ],
)
def test_a_damaged_record_is_one_line(first, tmp_path, change, message):
    folder = Path(shutil.copytree(first, tmp_path / "slim"))
    forge(folder, "plan.json", lambda plan: plan["images"].update(change))
    assert message in refusal(BundleError, verify_bundle, folder)


def test_a_size_of_which_forms_would_take_gigabytes_is_refused_before_it_is_made(first, tmp_path):
    """The recorded size is within the limit, and the other one, of twice as many pixels, is not."""
    folder = Path(shutil.copytree(first, tmp_path / "slim"))

    def enlarge(plan: dict) -> None:
        plan["inputs"]["args"]["tuple"][0]["tensor"]["shape"] = [1, 1, 32, 400_000]

    forge(folder, "plan.json", enlarge)
    forge(folder, "plan.json", lambda plan: plan.update(dynamic_size=True))
    message = refusal(BundleError, verify_bundle, folder)
    assert "is to be checked on inputs with which one tensor has" in message


def test_a_dynamic_size_of_a_file_must_be_true_or_false(first, tmp_path):
    folder = Path(shutil.copytree(first, tmp_path / "slim"))
    forge(folder, "plan.json", lambda plan: plan.update(dynamic_size=1))
    assert "dynamic_size is 1; it must be true or false" in refusal(BundleError, verify_bundle, folder)


def test_a_dynamic_size_of_inputs_that_are_no_images_is_refused(nameless, tmp_path):
    """In a bundle that somebody changed."""
    folder = Path(shutil.copytree(nameless.folder, tmp_path / "slim"))

    def flatten(plan: dict) -> None:
        plan["inputs"]["args"]["tuple"][0]["tensor"]["shape"] = [3, 2]
        plan["dynamic_size"] = True

    forge(folder, "plan.json", flatten)
    assert "a dynamic size is for a network that takes one tensor" in refusal(BundleError, verify_bundle, folder)


def test_images_of_another_network_are_refused_and_nothing_is_written(tmp_path):
    slimmed = slim(small_net(), images())
    message = refusal(UsageError, save, slimmed, tmp_path / "slim", images=SPEC)
    assert "images have 1 channels (mean and std), but the network takes 2" in message
    assert not list(tmp_path.iterdir())
