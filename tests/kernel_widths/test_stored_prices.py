"""Times of kernels on disk: measured once, and again wherever what is stored cannot be used."""

import json
import os
from pathlib import Path

import pytest
from kernel_prices import blocks_of, made_up

from slimnet.kernel_widths import measuring, stored_prices
from slimnet.kernel_widths.fast_widths import FastWidths
from slimnet.kernel_widths.stored_prices import FOLDER, cache_folder

MEASURED = made_up(blocks_of(4))


@pytest.fixture
def measured(monkeypatch, tmp_path) -> list[str]:
    """An empty cache folder; the runtimes whose kernels were measured since."""
    found: list[str] = []

    def measure(runtime, threads, progress):
        found.append(f"{runtime.name} {threads}")
        return MEASURED if runtime.name == "onnxruntime" else made_up(blocks_of(8), runtime.name)

    monkeypatch.setenv("SLIMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "measure_prices", measure)
    return found


@pytest.fixture
def warned() -> list[str]:
    return []


def the_file(folder: Path) -> Path:
    (found,) = (folder / "cache" / FOLDER).iterdir()
    return found


def test_kernels_are_measured_once_for_each_runtime_and_number_of_threads(measured, warned):
    widths = FastWidths(warn=warned.append)
    assert widths.prices() == widths.prices() == MEASURED
    assert measured == ["onnxruntime 1"]
    FastWidths("openvino").prices()
    FastWidths(threads=2).prices()
    assert measured == ["onnxruntime 1", "openvino 1", "onnxruntime 2"]
    assert FastWidths("openvino").prices().runtime == "openvino"
    assert len(measured) == 3
    assert warned == []


def test_variants_of_torch_have_the_kernels_of_torch(measured):
    assert FastWidths("torch.compile").prices().runtime == FastWidths("torch").prices().runtime == "torch"
    assert measured == ["torch 1"]


@pytest.mark.parametrize(("name", "value"), [("processor", lambda: "another CPU"), ("VERSION", 99)])
def test_another_processor_or_way_of_measuring_measures_anew(name, value, measured, warned, monkeypatch):
    FastWidths(warn=warned.append).prices()
    monkeypatch.setattr(stored_prices, name, value)
    FastWidths(warn=warned.append).prices()
    assert len(measured) == 2
    assert warned == []


def test_another_version_of_the_runtime_measures_anew(measured, warned, monkeypatch):
    widths = FastWidths(warn=warned.append)
    widths.prices()
    monkeypatch.setattr(type(widths.measured_on), "versions", lambda self: {"onnxruntime": "0.0.1"})
    widths.prices()
    assert len(measured) == 2
    assert warned == []


def changed(content: str, **fields: object) -> str:
    return json.dumps(json.loads(content) | fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace("1.5", "NaN", 1),
        lambda text: text.replace('"prices": [', '"prices": [-1.0,', 1),
        lambda text: changed(text, extra=1),
        lambda text: changed(text, key=json.loads(text)["key"] | {"processor": "another CPU"}),
        lambda text: changed(text, prices=json.loads(text)["prices"] | {"runtime": "torch"}),
    ],
)
def test_what_is_damaged_or_foreign_is_measured_again_with_a_warning(damage, measured, warned, tmp_path):
    widths = FastWidths(warn=warned.append)
    widths.prices()
    path = the_file(tmp_path)
    whole = path.read_text()
    path.write_text(damage(whole))
    assert widths.prices() == MEASURED
    assert len(measured) == 2
    assert len(warned) == 1
    assert str(path) in warned[0]
    assert warned[0].endswith("kernels are measured again")
    assert widths.prices() == MEASURED
    assert len(measured) == 2


def test_what_is_no_file_is_never_read_and_stays(measured, warned, tmp_path):
    """A named pipe would block for ever, and a folder is not replaced: nothing is stored then."""
    widths = FastWidths(warn=warned.append)
    widths.prices()
    path = the_file(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert widths.prices() == MEASURED
    path.unlink()
    path.mkdir()
    assert widths.prices() == MEASURED
    assert len(measured) == 3
    assert [words.partition(":")[0].startswith("what was measured") for words in warned] == [False, True] * 2
    assert path.is_dir()


@pytest.mark.parametrize("place", ["file/cache", "/proc/slimnet", "/dev/null/cache"])
def test_a_folder_that_cannot_be_written_is_no_failure(place, measured, warned, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLIMNET_CACHE", str(tmp_path / place))
    assert FastWidths(warn=warned.append).prices() == MEASURED
    assert measured == ["onnxruntime 1"]
    assert len(warned) == 1
    assert "\n" not in warned[0]


def test_where_it_is_stored(monkeypatch):
    monkeypatch.setenv("SLIMNET_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/own")
    monkeypatch.setenv("SLIMNET_CACHE", "")
    assert cache_folder() == Path("/shared/slimnet")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/slimnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("SLIMNET_CACHE")
    assert cache_folder() == Path("/home/me/.cache/slimnet")
