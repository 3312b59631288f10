"""slimnet slim F.onnx: a file in, a file out, the plan and the certificate; misuse is one line."""

import json

import pytest
import slimnet_cli
from onnx_graphs import difference, plain_model, saved, stored_shapes


@pytest.fixture
def dense(tmp_path):
    return saved(plain_model(), tmp_path)


def said(capsys, *arguments: object) -> tuple[int, str, str]:
    code = slimnet_cli.run(["slim", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_file_is_slimmed_and_the_certificate_says_on_what(dense, tmp_path, capsys):
    target = tmp_path / "slim.onnx"
    code, out, _ = said(capsys, dense, "-o", target, "--round", "none")
    assert code == 0
    assert "certificate holds" in out
    assert "measured under onnxruntime on x (4, 3, 8, 8) of seed 0; x (1, 3, 8, 8) of seed 1" in out
    assert f"written to {target}" in out
    assert out.splitlines()[-1].startswith("next: onnxruntime.InferenceSession(")
    assert stored_shapes(target)["first.weight"] == (6, 3, 3, 3)
    assert difference(dense, target, (2, 3, 8, 8)) < 1e-5


def test_json_has_the_certificate_and_the_layers(dense, tmp_path, capsys):
    code, out, _ = said(capsys, dense, "-o", tmp_path / "slim.onnx", "--round", "none", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["certificate"]["holds"] is True
    assert found["channels"] == {"before": 19, "after": 17}
    assert [layer["name"] for layer in found["layers"]] == ["first", "second", "fc"]
    assert found["bytes"]["after"] == (tmp_path / "slim.onnx").stat().st_size


def test_a_dry_run_shows_the_plan_and_writes_nothing(dense, tmp_path, capsys):
    code, out, _ = said(capsys, dense, "--dry-run", "--round", "none")
    assert code == 0
    assert "first" in out
    assert "next: the same command with -o and without --dry-run" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]
    code, out, _ = said(capsys, dense, "--dry-run", "--round", "none", "--json")
    assert json.loads(out)["layers"][0]["channels_after"] == 6


def test_a_file_that_exists_is_replaced_with_force_alone(dense, tmp_path, capsys):
    target = tmp_path / "slim.onnx"
    target.write_bytes(b"mine")
    code, _, err = said(capsys, dense, "-o", target, "--round", "none")
    assert code == 2
    assert "exists; name another file, or replace it with --force" in err
    assert target.read_bytes() == b"mine"
    assert said(capsys, dense, "-o", target, "--round", "none", "--force")[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--arch", "resnet56"],
        ["--data", "digits"],
        ["--target-macs", "0.5"],
        ["--normalise", "imagenet"],
        ["--criterion", "activation"],
        ["--dynamic-size"],
        ["--weights", "ema"],
        ["--trust"],
        ["--device", "cpu"],
    ],
)
def test_options_that_need_code_or_labels_are_refused(dense, tmp_path, capsys, options):
    code, _, err = said(capsys, dense, "-o", tmp_path / "slim.onnx", *options)
    assert code == 2
    assert f"{options[0]} does not apply to" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "slim.onnx").exists()


def test_misuse_is_one_line(dense, tmp_path, capsys):
    for arguments, words in (
        ([dense], "give the bundle's folder with -o DIR"),
        ([dense, "-o", tmp_path / "folder"], "name it with -o SLIM.onnx"),
        ([dense, "-o", tmp_path / "none" / "slim.onnx"], "there is no folder"),
        ([dense, "-o", tmp_path / "slim.onnx", "--round", "auto"], "--round auto measures whole networks"),
        ([dense, "-o", tmp_path / "slim.onnx", "--input-shape", "3,9,9"], "(3, 9, 9) does not fit"),
        ([tmp_path / "none.onnx", "-o", tmp_path / "slim.onnx"], "does not exist"),
    ):
        code, _, err = said(capsys, *arguments)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_a_checkpoint_does_not_become_an_onnx_file(tmp_path, capsys):
    (tmp_path / "net.pt").write_bytes(b"")
    code, _, err = said(capsys, tmp_path / "net.pt", "--arch", "resnet56", "-o", tmp_path / "slim.onnx")
    assert code == 2
    assert "slimnet export writes the bundle as an ONNX file" in err


def test_work_that_fails_ends_with_one(tmp_path, capsys):
    code, _, err = said(capsys, saved(plain_model(dead=()), tmp_path), "-o", tmp_path / "slim.onnx", "--round", "none")
    assert code == 1
    assert "has no dead channel; nothing was written" in err
