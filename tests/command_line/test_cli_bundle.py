"""The commands around a bundle: slim -o, verify, export and benchmark; what they write, say and leave behind."""

import json
import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest
import slimnet_cli
import torch
from bundles import ARGS, FILES, MANIFEST, SHAPE, basic_net, everything, lived_in
from slimnet_cli.output import phases

from slimnet.bundle import bundle
from slimnet.errors import ExportError
from slimnet.export import onnx as export
from slimnet.models import build
from slimnet.pipeline import CERTIFYING, SEARCHING

pytestmark = pytest.mark.usefixtures("operators_read_once")

ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(ARGS))
INPUT = ("--input-shape", ",".join(map(str, SHAPE)))
CODED = ("--arch", "bundles:small_factory", "--arch-args", '{"width": 5}')


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    torch.save(basic_net().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def slimmed(checkpoint, tmp_path_factory, operators_read_once) -> Path:
    """A bundle that the command line wrote."""
    folder = tmp_path_factory.mktemp("bundle") / "slim"
    assert slimnet_cli.run(["slim", str(checkpoint), *ARCH, *INPUT, "-o", str(folder)]) == 0
    return folder


def refused(arguments: list[str], code: int, capsys) -> str:
    """What the command line says when it refuses: one line on stderr."""
    capsys.readouterr()
    assert slimnet_cli.run(arguments) == code
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: ")
    assert written.err.count("\n") == 1
    return written.err


def document(arguments: list[str], capsys) -> dict:
    """The JSON a command writes to stdout, with nothing on stderr."""
    capsys.readouterr()
    assert slimnet_cli.run([*arguments, "--json"]) == 0
    written = capsys.readouterr()
    assert written.err == ""
    return json.loads(written.out)


def test_slim_writes_a_bundle_that_loads(slimmed, checkpoint):
    """Oracle: the dense network itself, on inputs that nothing has seen."""
    assert set(everything(slimmed.parent)) == {"slim", *(f"slim/{name}" for name in (*FILES, MANIFEST))}
    assert json.loads((slimmed / MANIFEST).read_text())["source"] == checkpoint.name
    x = torch.randn(5, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(bundle.load(slimmed)(x), basic_net()(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in bundle.load(slimmed).parameters()) < sum(p.numel() for p in basic_net().parameters())


def test_slim_tells_people_and_machines_what_it_did(checkpoint, tmp_path, capsys, monkeypatch, slimmed):
    """The forms are copied from a bundle of the same network, to save time."""

    def write(_, staging: Path, *__) -> None:
        for name in ("model.pt2", "model.onnx"):
            shutil.copy(slimmed / name, staging)

    monkeypatch.setattr(bundle, "write_exports", write)
    command = ["slim", str(checkpoint), *ARCH, *INPUT]
    with monkeypatch.context() as patience:
        patience.setattr(phases, "FIRST_LINE", 0.0)
        assert slimnet_cli.run([*command, "-o", str(tmp_path / "people")]) == 0
    said, printed = capsys.readouterr()
    lines = [line.rpartition(", ")[2] for line in printed.splitlines() if line.startswith("Slimming: ")]
    assert list(dict.fromkeys(lines)) == ["reading", SEARCHING, CERTIFYING, *bundle.SAVING]
    assert "certificate holds" in said
    assert f"written to {tmp_path / 'people'}\n" in said
    found = document([*command, "-o", str(tmp_path / "machines")], capsys)
    assert found["bundle"] == str(tmp_path / "machines")
    assert found["certificate"]["holds"] is True
    assert found["parameters"]["after"] == sum(p.numel() for p in bundle.load(slimmed).parameters())
    assert found["plan_digest"] == json.loads((slimmed / MANIFEST).read_text())["plan_digest"]


@pytest.mark.parametrize("tolerance", ["nan", "-1", "inf"])
def test_a_tolerance_that_is_none_is_misuse(tolerance, checkpoint, tmp_path, capsys):
    command = ["slim", str(checkpoint), *ARCH, *INPUT, "-o", str(tmp_path / "slim"), "--tolerance", tolerance]
    assert "tolerance" in refused(command, 2, capsys)
    assert everything(tmp_path) == {}


def test_a_certificate_that_does_not_hold_is_no_bundle(checkpoint, tmp_path, capsys):
    """A threshold at which living channels count as dead."""
    command = ["slim", str(checkpoint), *ARCH, *INPUT, "-o", str(tmp_path / "slim"), "--threshold", "0.9"]
    assert "does NOT hold" in refused(command, 1, capsys)
    assert everything(tmp_path) == {}


def test_a_failed_export_is_no_bundle(checkpoint, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise ExportError("no operator")

    monkeypatch.setattr(bundle, "write_exports", fails)
    command = ["slim", str(checkpoint), *ARCH, *INPUT, "-o", str(tmp_path / "slim")]
    assert "no operator" in refused(command, 1, capsys)
    assert everything(tmp_path) == {}


def test_where_no_bundle_can_go_is_said_before_the_work(tmp_path, capsys):
    """There is not even a checkpoint."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = everything(tmp_path)
    for place in ("file", "full", "missing/slim", "file/slim"):
        said = refused(["slim", "nothing.pt", *ARCH, "-o", str(tmp_path / place)], 2, capsys)
        assert f"cannot write {tmp_path / place}: " in said
    assert everything(tmp_path) == before


def test_verify_says_that_a_bundle_is_sound(slimmed, capsys):
    capsys.readouterr()
    assert slimnet_cli.run(["verify", str(slimmed)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{slimmed}: every file is as it was written\n")
    assert "model.onnx agrees with model.safetensors" in said
    found = document(["verify", str(slimmed)], capsys)
    assert found["certificate"] == json.loads((slimmed / "certificate.json").read_text())
    assert set(found["differences"]) == {"model.pt2", "model.onnx"}
    assert found["measured"] is None


def test_verify_measures_again_where_it_is_given_the_checkpoint(slimmed, checkpoint, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patience:
        patience.setattr(phases, "FIRST_LINE", 0.0)
        assert slimnet_cli.run(["verify", str(slimmed), "--dense", str(checkpoint), "--json"]) == 0
    said, shown = capsys.readouterr()
    lines = [line.rpartition(", ")[2] for line in shown.splitlines() if line.startswith("Verifying: ")]
    assert list(dict.fromkeys(lines)) == list(bundle.VERIFYING)
    found = json.loads(said)
    assert found["measured"]["holds"] is True
    other = tmp_path / "other.pt"
    torch.save(basic_net(seed=1).state_dict(), other)
    said = refused(["verify", str(slimmed), "--dense", str(other)], 1, capsys)
    assert "does not compute what the dense network does" in said
    torch.save(lived_in(build("basicnet", {**ARGS, "hidden": 9})).state_dict(), other)
    refused(["verify", str(slimmed), "--dense", str(other)], 2, capsys)


def test_verify_needs_an_architecture_only_to_rebuild(coded, nameless, capsys):
    for made in (coded, nameless):
        assert document(["verify", str(made.folder)], capsys)["reference"] == "model.pt2"
    assert document(["verify", str(coded.folder), *CODED], capsys)["reference"] == "model.safetensors"
    assert "another network" in refused(["verify", str(coded.folder), *ARCH], 2, capsys)


def test_verify_compares_data_only_with_a_dense_network(slimmed, capsys):
    assert "--dense" in refused(["verify", str(slimmed), "--data", "digits"], 2, capsys)


def test_export_writes_a_model_that_computes_the_same(slimmed, tmp_path, capsys):
    """Oracle: onnxruntime and the network of the bundle."""
    path = tmp_path / "net.onnx"
    found = document(["export", str(slimmed), "-o", str(path), "--opset", "18"], capsys)
    assert (found["path"], found["opset"], found["size_bytes"]) == (str(path), 18, path.stat().st_size)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [each.version for each in model.opset_import if each.domain == ""] == [18]
    digest = json.loads((slimmed / MANIFEST).read_text())["plan_digest"]
    assert ("plan_digest", digest) in [(each.key, each.value) for each in model.metadata_props]
    session, x = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), torch.randn(7, *SHAPE)
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(actual), bundle.load(slimmed)(x))


def test_export_replaces_a_file_and_says_what_it_wrote(coded, tmp_path, capsys):
    path = tmp_path / "net.onnx"
    path.write_text("old")
    capsys.readouterr()
    assert slimnet_cli.run(["export", str(coded.folder), "-o", str(path), "--force", *CODED]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: ONNX opset ")
    assert set(everything(tmp_path)) == {"net.onnx"}
    onnx.checker.check_model(onnx.load(path))


def test_what_export_refuses_leaves_the_earlier_file(slimmed, coded, nameless, tmp_path, capsys, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_text("old")
    before = everything(tmp_path)
    to = ["-o", str(path), "--force"]
    assert "opset is 3" in refused(["export", str(slimmed), *to, "--opset", "3"], 2, capsys)
    assert "--arch" in refused(["export", str(nameless.folder), *to], 2, capsys)
    assert "not run unasked" in refused(["export", str(coded.folder), *to], 2, capsys)
    assert "another network" in refused(["export", str(coded.folder), *to, *ARCH], 2, capsys)
    assert "is a folder" in refused(["export", str(slimmed), "-o", str(tmp_path)], 2, capsys)
    monkeypatch.setattr(export, "SIZE_LIMIT", 100)
    assert "GB" in refused(["export", str(slimmed), *to], 1, capsys)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("command", ["verify", "export", "benchmark"])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_bundle_that_was_changed_is_used_for_nothing(command, name, slimmed, tmp_path, capsys):
    folder = Path(shutil.copytree(slimmed, tmp_path / "slim"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    before = everything(tmp_path)
    more = {
        "verify": [],
        "export": ["-o", str(tmp_path / "net.onnx")],
        "benchmark": [str(folder), "--seconds", "0.01", "--batch", "1"],
    }[command]
    assert str(folder / name) in refused([command, str(folder), *more], 1, capsys)
    assert everything(tmp_path) == before


def test_benchmark_compares_a_checkpoint_with_its_bundle(slimmed, checkpoint, capsys):
    """Oracle: the number of parameters of both networks. No time is looked at."""
    options = ["--batch", "1", "--seconds", "0.05", "--threads", "1", *ARCH, *INPUT]
    found = document(["benchmark", str(checkpoint), str(slimmed), *options], capsys)
    parameters = [sum(p.numel() for p in model.parameters()) for model in (basic_net(), bundle.load(slimmed))]
    assert [each["params"] for each in found["counts"]] == parameters
    assert {each["runtime"] for each in found["latencies"]} == {"torch", "onnxruntime", "openvino"}


def test_benchmark_shows_people_a_table(slimmed, capsys):
    command = ["benchmark", str(slimmed), str(slimmed), "--batch", "1", "--seconds", "0.05", "--threads", "1"]
    assert slimnet_cli.run(command) == 0
    lines = capsys.readouterr().out.splitlines()
    count = f"{sum(p.numel() for p in bundle.load(slimmed).parameters()):,}"
    assert lines[1].split() == ["parameters", count, count, "unchanged"]
    assert sum(line.startswith(("torch, batch 1 ", "onnxruntime, batch 1 ")) for line in lines) == 2


def test_benchmark_compares_bundles_that_cannot_be_built_again(coded, nameless, capsys):
    """By their ONNX models alone."""
    command = ["benchmark", str(nameless.folder), str(coded.folder), "--batch", "1", "--seconds", "0.05"]
    found = document([*command, "--threads", "1"], capsys)
    assert {each["runtime"] for each in found["latencies"]} == {"onnxruntime", "openvino"}


def test_benchmark_writes_a_report_of_the_bundle(slimmed, checkpoint, tmp_path, capsys):
    """Oracle: the plan that the bundle holds, and γ of the checkpoint."""
    page = tmp_path / "report.html"
    options = ["--batch", "1", "--seconds", "0.02", "--threads", "1", "--runtime", "torch", *ARCH, *INPUT]
    document(["benchmark", str(checkpoint), str(slimmed), *options, "--report", str(page)], capsys)
    text = page.read_text(encoding="utf-8")
    plan = bundle.read_blueprint(slimmed).plan
    assert plan.digest[:16] in text
    assert "torch, batch 1" in text
    assert "Which channels are dead" in text


def test_benchmark_refuses_a_bundle_without_weights(slimmed, tmp_path, capsys):
    folder = Path(shutil.copytree(slimmed, tmp_path / "slim"))
    (folder / "model.safetensors").unlink()
    printed = refused(["benchmark", str(slimmed), str(folder), "--seconds", "0.01", "--batch", "1"], 1, capsys)
    assert "model.safetensors" in printed


def test_benchmark_refuses_networks_for_other_inputs(slimmed, capsys):
    """The bundle takes grey images."""
    command = ["benchmark", str(slimmed), str(slimmed), "--seconds", "0.01", "--batch", "1", "--input-shape", "3,9,9"]
    assert "/".join(slimmed.parts[-2:]) in refused(command, 2, capsys)
