"""A bundle goes to a hub and comes back through huggingface_hub's own client and HTTP, to a server in this process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
import slimnet_cli
import torch
import yaml
from bundles import FILES, MANIFEST, SHAPE, assert_same_state, basic_net, make, refusal, sign, small_net
from bundles import images as small_images
from hub_server import TOKEN, Hub, serving
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from torch import nn

import slimnet
from slimnet.bundle.model_card import model_card
from slimnet.errors import BundleError, ChangedBundleError, HubError, SlimnetError, UsageError

# The client's own: of how it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KNOWN = {*FILES, MANIFEST}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch) -> Hub:
    """An empty hub that the client uses, with an empty cache; in the environment of processes too."""
    for part in (server.repositories, server.objects, server.requests, server.sizes):
        part.clear()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The client's own protocol for large files is not one of HTTP alone.
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return server


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_comes_back_as_it_was(hub, basic):
    address = slimnet.push_to_hub(basic.folder, "owner/name", private=True)
    repository = hub.repositories["owner/name"]
    assert repository.private
    assert address == f"hf://owner/name@{repository.branches['main']}"
    sent = {name: content for name, content in repository.newest.items() if name != ".gitattributes"}
    assert sent.pop("README.md").decode() == model_card(basic.folder, "hf://owner/name")
    assert sent == files_of(basic.folder)
    for place in ("hf://owner/name", address):
        assert_same_state(slimnet.load(place).state_dict(), slimnet.load(basic.folder).state_dict())
    assert slimnet.verify_bundle("hf://owner/name").certified


def test_only_the_files_of_a_bundle_are_fetched(hub, basic, tmp_path):
    """Others may be pickles or code, and a folder may have the same names in it."""
    others = {"pytorch_model.bin": b"\x80", "modeling.py": b"1/0", "README.md": b"#", f"old/{MANIFEST}": b"{}"}
    hub.add("owner/name", files_of(basic.folder) | others)
    slimnet.load("hf://owner/name")
    assert hub.fetched() == KNOWN
    assert {path.name for path in tmp_path.glob("cache/models--*/snapshots/*/*")} == KNOWN


def test_what_was_fetched_is_not_fetched_again_and_needs_no_network(hub, basic, monkeypatch):
    hub.add("owner/name", files_of(basic.folder))
    first = slimnet.load("hf://owner/name")
    hub.requests.clear()
    slimnet.load("hf://owner/name")
    assert hub.fetched() == set()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert_same_state(slimnet.load("hf://owner/name").state_dict(), first.state_dict())


def test_a_slim_network_is_pushed_without_a_folder(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    slimmed = slimnet.slim(small_net(), small_images())
    slimnet.push_to_hub(slimmed, "hf://owner/name", license="mit")
    loaded = slimnet.load("hf://owner/name", small_net(seed=1))
    assert_same_state(loaded.state_dict(), slimmed.model.state_dict())
    assert not list(tmp_path.glob("tmp*"))


def test_a_branch_is_made_and_loaded_by_its_name(hub, basic, tmp_path):
    shrunk = make(basic_net(seed=1), torch.randn(3, *SHAPE), tmp_path / "shrunk", shrunk=True)
    slimnet.push_to_hub(basic.folder, "owner/name")
    slimnet.push_to_hub(shrunk.folder, "owner/name@shrunk", message="shrunk in training")
    repository = hub.repositories["owner/name"]
    assert set(repository.branches) == {"main", "shrunk"}
    assert repository.messages[-1] == "shrunk in training"
    assert "projections.json" in repository.tree("shrunk")
    assert "projections.json" not in repository.tree("main")
    assert_same_state(slimnet.load("hf://owner/name@shrunk").state_dict(), slimnet.load(shrunk.folder).state_dict())
    slimnet.push_to_hub(basic.folder, "owner/name@shrunk")
    assert "projections.json" not in repository.tree("shrunk")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_on_the_hub_is_refused(name, hub, basic):
    """By its hash, since its size is the same."""
    tree = files_of(basic.folder)
    tree[name] = bytes([tree[name][0] ^ 1]) + tree[name][1:]
    hub.add("owner/name", tree)
    assert name in refusal(ChangedBundleError, slimnet.load, "hf://owner/name")


def test_a_file_of_another_size_is_refused_before_it_is_fetched(hub, basic):
    hub.add("owner/name", files_of(basic.folder))
    hub.sizes["model.onnx"] = 10**12
    message = refusal(ChangedBundleError, slimnet.load, "hf://owner/name")
    assert "model.onnx has 1,000,000,000,000 bytes" in message
    assert hub.fetched() == {MANIFEST}


def test_a_file_that_is_missing_is_refused(hub, basic):
    tree = files_of(basic.folder)
    del tree["model.pt2"]
    hub.add("owner/name", tree)
    assert "has no model.pt2" in refusal(ChangedBundleError, slimnet.load, "hf://owner/name")


def test_a_bundle_that_does_not_hold_is_not_sent(hub, basic, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(basic.folder, copy)
    with open(copy / "model.onnx", "ab") as file:
        file.write(b"more")
    assert "model.onnx was changed" in refusal(ChangedBundleError, slimnet.push_to_hub, copy, "owner/name")
    assert not hub.repositories


def without_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


CASES = {
    "no such repository": ("hf://owner/none", UsageError, "hf://owner/none: there is no such repository"),
    "no such revision": ("hf://owner/name@v9", UsageError, "has no revision v9"),
    "no bundle": ("hf://owner/other", BundleError, "hf://owner/other is not a bundle: it has no manifest.json"),
    "no address": ("hf://name", UsageError, "hf://name names no repository"),
    "a path that leads out": ("hf://owner/name@../../x", UsageError, "names no repository"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_loaded_is_refused_in_one_line(case, hub, basic, capfd):
    place, kind, said = CASES[case]
    hub.add("owner/name", files_of(basic.folder))
    hub.add("owner/other", {"model.safetensors": b"", "config.json": b"{}"})
    for call in (slimnet.load, slimnet.verify_bundle):
        assert said in refusal(kind, call, place)
    assert slimnet_cli.run(["verify", place]) == 2
    assert slimnet_cli.run(["inspect", place]) == 2
    written = capfd.readouterr()
    assert written.out == ""
    assert [said in line and line.startswith("error: ") for line in written.err.splitlines()] == [True, True]


def test_a_hub_that_cannot_be_reached_is_a_failure_in_one_line(hub, monkeypatch, capfd, basic):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = "hf://owner/name: the hub cannot be reached, and this is not in the cache"
    assert said in refusal(HubError, slimnet.load, "hf://owner/name")
    assert "the hub cannot be reached" in refusal(HubError, slimnet.push_to_hub, basic.folder, "owner/name")
    assert slimnet_cli.run(["verify", "hf://owner/name"]) == 1
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert said in written.err


def test_offline_is_said_as_well(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    try:
        assert "the hub cannot be reached" in refusal(HubError, slimnet.load, "hf://owner/name")
    finally:
        close_session()


def test_credentials_that_may_not_write_are_refused(hub, basic, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    message = refusal(UsageError, slimnet.push_to_hub, basic.folder, "owner/name")
    assert "hf auth login" in message
    slimnet.push_to_hub(basic.folder, "owner/name", token=TOKEN)


def test_a_missing_package_is_named_with_its_extra(hub, basic, monkeypatch, capsys):
    without_package(monkeypatch)
    for call in (lambda: slimnet.load("hf://owner/name"), lambda: slimnet.push_to_hub(basic.folder, "owner/name")):
        assert "pip install '.[hub]' in a clone of slimnet" in refusal(UsageError, call)
    assert slimnet_cli.run(["push", str(basic.folder), "owner/name"]) == 2
    assert "pip install '.[hub]' in a clone of slimnet" in capsys.readouterr().err


def test_the_commands_work_on_addresses(hub, basic, tmp_path, capfd):
    """push, then verify, export and slim, as one types them."""
    assert slimnet_cli.run(["push", str(basic.folder), "owner/name", "--license", "mit"]) == 0
    assert "next: slimnet verify hf://owner/name" in capfd.readouterr().out
    onnx = tmp_path / "net.onnx"
    for line in (["verify", "hf://owner/name"], ["export", "hf://owner/name", "-o", str(onnx)]):
        assert slimnet_cli.run(line) == 0, capfd.readouterr().err
    assert onnxruntime.InferenceSession(onnx).get_inputs()[0].shape[1:] == list(SHAPE)
    capfd.readouterr()
    assert slimnet_cli.run(["push", str(basic.folder), "owner/name", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"address": f"hf://owner/name@{newest(hub)}"}


def newest(hub: Hub) -> str:
    return hub.repositories["owner/name"].branches["main"]


def test_a_process_of_its_own_takes_server_and_token_from_the_environment(hub, basic):
    """As a user has them, with nothing in the client replaced."""
    code = "import slimnet, sys; sys.stdout.write(slimnet.push_to_hub(sys.argv[1], 'owner/name'));"
    code += "slimnet.load('hf://owner/name')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(basic.folder)], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"hf://owner/name@{newest(hub)}"
    assert hub.fetched() == KNOWN


def test_a_dry_run_prints_the_card_and_sends_nothing(hub, basic, capsys):
    assert slimnet_cli.run(["push", str(basic.folder), "owner/name", "--dry-run", "--license", "mit"]) == 0
    assert capsys.readouterr().out == model_card(basic.folder, "hf://owner/name", license="mit")
    assert hub.requests == []


def test_a_card_of_ones_own_is_sent(hub, basic, tmp_path, capsys):
    (tmp_path / "card.md").write_text("# Mine\n")
    line = ["push", str(basic.folder), "owner/name", "--card", str(tmp_path / "card.md")]
    assert slimnet_cli.run(line) == 0
    assert hub.repositories["owner/name"].newest["README.md"] == b"# Mine\n"
    assert slimnet_cli.run([*line, "--license", "mit"]) == 2
    assert "leave --license out" in capsys.readouterr().err
    (tmp_path / "card.md").write_bytes(b"\xff")
    assert slimnet_cli.run(line) == 2
    assert "is not text in UTF-8" in capsys.readouterr().err


def test_the_card_states_what_was_measured(basic):
    """Oracle: certificate and plan; its metadata is YAML that a hub reads."""
    text = model_card(basic.folder, "hf://owner/name", license="mit")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "slimnet",
        "tags": ["slimnet", "pruning", "onnx"],
        "license": "mit",
    }
    assert "onnxruntime.InferenceSession" in body
    assert "the first axis is the batch." in body
    certificate, plan = basic.slimmed.certificate, basic.slimmed.plan
    assert f"| MACs for one example | {certificate.macs_before:,} | {certificate.macs_after:,} |" in body
    assert f"| Parameters | {certificate.params_before:,} | {certificate.params_after:,} |" in body
    assert f"{certificate.max_rel_difference:.1e}" in body
    assert f"{plan.removed_channels:,} of " in body
    assert 'slimnet.load("hf://owner/name")' in body
    assert f"torch {torch.__version__}".replace("_", r"\_") in body
    changed = [each for each in plan.layers if each.channels_after != each.channels_before]
    assert len([line for line in body.splitlines() if line.startswith("| features") or "classifier" in line]) == len(
        changed
    )


class Selecting(nn.Module):
    """How many cells it returns depends on data, so that it has no exported form."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.scores = nn.Conv2d(8, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.scores(self.features(images)).movedim(1, -1).flatten(0, -2)
        return scores[(scores[:, 0] > scores[:, 0].median()).nonzero().flatten()]


@pytest.fixture(scope="module")
def selecting(tmp_path_factory) -> Path:
    """A bundle without exported forms."""
    torch.manual_seed(0)
    net = Selecting().eval()
    net.features[1].weight.data[::2], net.features[1].bias.data[::2] = 0, -0.1
    return slimnet.save(slimnet.slim(net, torch.randn(1, *SHAPE)), tmp_path_factory.mktemp("selecting") / "slim")


def test_the_card_of_a_bundle_without_exports_shows_no_way_to_load_them(selecting):
    text = model_card(selecting, "hf://owner/name")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["slimnet", "pruning"]
    assert "InferenceSession" not in body
    assert "model.onnx" not in body
    assert "depends on data, so there is no exported program and no ONNX model" in body
    assert 'slimnet.load("hf://owner/name", model=YourNetwork())' in body
    assert "is the batch" not in body, "its inputs are taken as they are"


def test_files_of_an_earlier_bundle_go_with_a_push_over_it_and_those_of_others_stay(hub, basic, selecting):
    """Else the repository would have the ONNX model of another network."""
    slimnet.push_to_hub(basic.folder, "owner/name")
    hub.add("owner/name", hub.repositories["owner/name"].newest | {"notes.txt": b"mine"})
    slimnet.push_to_hub(selecting, "owner/name")
    left = set(hub.repositories["owner/name"].newest) - {".gitattributes"}
    assert left == {*files_of(selecting), "README.md", "notes.txt"}
    given = torch.randn(1, *SHAPE)
    with torch.no_grad():
        found, expected = (slimnet.load(place, Selecting()).eval()(given) for place in ("hf://owner/name", selecting))
    assert torch.equal(found, expected)


def test_names_in_a_card_are_text_and_no_markup(basic, tmp_path):
    """A manifest of somebody else may name anything as its source."""
    copy = tmp_path / "copy"
    shutil.copytree(basic.folder, copy)
    document = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(document | {"source": "<script>[x](http://y) | a"}))
    sign(copy)
    assert r"The dense network: \<script\>\[x\](http://y) \| a." in model_card(copy)


def test_a_network_that_was_trained_further_says_so_first(basic, tmp_path):
    model = slimnet.load(basic.folder)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    slimnet.save(model, tmp_path / "tuned", like=basic.folder)
    assert "**it is not certified to compute what the dense network does.**" in model_card(tmp_path / "tuned")


def test_the_card_of_a_network_of_other_code_says_that_it_is_needed(coded):
    text = model_card(coded.folder)
    assert 'slimnet.load("hf://owner/name", model=YourNetwork())' in text


def test_every_error_of_a_hub_is_one_of_slimnets():
    assert issubclass(HubError, SlimnetError)
    assert (HubError.exit_code, UsageError.exit_code) == (1, 2)
