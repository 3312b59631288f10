"""Programs that mean harm: whatever a model.pt2 says, `verify` runs operators on tensors, or refuses it in one line."""

import contextlib
import io
import json
import random
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slimnet_cli
import torch
from bundles import images, refusal, sign
from pt2_changes import (
    CODE,
    CONSTANTS,
    MODEL,
    PAYLOADS,
    PICKLE,
    SAMPLES,
    WEIGHTS,
    archived,
    argument,
    at,
    call,
    everywhere,
    graph,
    ints,
    keyword,
    metadata,
    nodes,
    packed,
    payload,
    places,
    power,
    region,
    renamed,
    replaced,
    rewritten,
    signature,
    size,
    tensor,
)

from slimnet.bundle.bundle import verify_bundle
from slimnet.errors import BundleError, SlimnetError
from slimnet.export.pt2.runner import ProgramRunner
from slimnet.modules.example_inputs import Inputs

ENUM = '[1, {"type": "x", "context": "{\\"__enum__\\": true}"}]'

HARM: dict[str, dict[str, Any]] = {
    **{
        f"an argument's name, {n}": {MODEL: signature(forward_arg_names=[text])} for n, text in enumerate(PAYLOADS[1:8])
    },
    **{
        f"a parameter's name, {n}": {
            MODEL: renamed("fc.weight", f"fc.{text}"),
            WEIGHTS: renamed("fc.weight", f"fc.{text}"),
        }
        for n, text in enumerate(PAYLOADS[1:8])
    },
    **{f"a tensor's name, {n}": {MODEL: renamed("image", text)} for n, text in enumerate(PAYLOADS[1:8])},
    **{f"a result's name, {n}": {MODEL: renamed("conv2d", text)} for n, text in enumerate(PAYLOADS[1:8])},
    **{f"a keyword, {n}": {MODEL: signature(in_spec=keyword(text))} for n, text in enumerate(PAYLOADS[1:8])},
    "a buffer's name": {
        MODEL: renamed("bn.running_mean", PAYLOADS[5]),
        WEIGHTS: renamed("bn.running_mean", PAYLOADS[5]),
    },
    "a constant's name": {MODEL: renamed("scale", PAYLOADS[5]), CONSTANTS: renamed("scale", PAYLOADS[5])},
    "a step's name": {MODEL: lambda d: nodes(d)[0].update(name=PAYLOADS[1])},
    "an operand's name": {MODEL: lambda d: nodes(d)[0]["inputs"][0].update(name=PAYLOADS[1])},
    "a graph's name": {MODEL: region},
    "a symbol's name": {MODEL: lambda d: d["range_constraints"].update({CODE: {"min_val": 0, "max_val": None}})},
    "a module's name": {MODEL: lambda d: d["graph_module"]["module_call_graph"][1].update(fqn=PAYLOADS[5])},
    "a check before the run": {MODEL: lambda d: d.update(guards_code=[f"{CODE} or L['image'].size()[0] == 1"])},
    "a check in two lines": {MODEL: lambda d: d.update(guards_code=[f"1)\n  {CODE}\n  (1"])},
    "a verifier": {MODEL: lambda d: d.update(verifiers=[CODE])},
    "a place in the code": {MODEL: metadata(nn_module_stack=f"a\n{CODE},b,c")},
    "a stack of modules": {MODEL: metadata(stack_trace=f"x\n{CODE}")},
    "a named tuple": {
        MODEL: lambda d: d["graph_module"].update(treespec_namedtuple_fields={"os": {"field_names": [CODE]}})
    },
    "an object": {MODEL: lambda d: graph(d).update(custom_obj_values={"x": {"name": "x", "class_fqn": CODE}})},
    "an operator as an argument": {MODEL: argument(as_operator="torch.serialization.os.system")},
    "an object as an argument": {MODEL: argument(as_custom_obj={"name": "x", "class_fqn": "y"})},
    "arguments by name": {MODEL: argument(as_string_to_argument={CODE: {"as_int": 1}})},
    "an argument twice": {MODEL: lambda d: nodes(d)[0]["inputs"].append(nodes(d)[0]["inputs"][0])},
    "an unknown argument": {MODEL: argument(as_int=1)},
    "two kinds of argument": {MODEL: argument(as_int=1, as_float=1.0)},
    "a function of the system": {MODEL: call("torch.serialization.os.system")},
    "a function of torch that loads": {MODEL: call("torch.load")},
    "a function of torch that evaluates": {MODEL: call("torch.fx.graph_module._exec_with_source")},
    "an operator that loads code": {MODEL: call("torch.ops.load_library")},
    "an operator that writes files": {MODEL: call("torch.ops.aten.from_file.default")},
    "an operator that saves": {MODEL: call("torch.ops.aten.save")},
    "an operator of images": {MODEL: call("torch.ops.image.write_file")},
    "an operator that prints": {MODEL: call("torch.ops.aten._print.default", s={"as_string": "touch executed"})},
    "an operator that seeds": {MODEL: call("torch.ops.aten.manual_seed.default", seed={"as_int": 1})},
    "a function of Python": {MODEL: call("_operator.call")},
    "a getter of attributes": {MODEL: call("_operator.attrgetter")},
    "an extension": {MODEL: call("#evil:op")},
    "no text for a function": {MODEL: call(["torch.load"])},  # type: ignore[arg-type]
    **{
        f"code for a size, {n}": {MODEL: size(text)}
        for n, text in enumerate(
            [
                *("__import__('os').system('touch executed')", "Symbol('x').__class__", "eval('1')", "(lambda: 1)()"),
                *("Symbol(\"__import__('os')\")", "1+" * 5000 + "1", "9**9**9", "Pow(Integer(9), 9**9)", "(" * 5000),
                *("Symbol('s77', positive=__import__('os').system('touch executed'))", "s77\n", "[1]", CODE),
            ]
        )
    },
    "pickled weights": {WEIGHTS: payload("conv.weight", use_pickle=True), "archive/data/weights/weight_0": PICKLE},
    "pickled constants": {
        CONSTANTS: payload("c", path_name="tensor_0", use_pickle=True),
        "archive/data/constants/tensor_0": PICKLE,
    },
    "an opaque constant": {
        CONSTANTS: payload("c", path_name="opaque_obj_0", use_pickle=False),
        "archive/data/constants/opaque_obj_0": PICKLE,
    },
    "an object of TorchScript": {"archive/data/constants/custom_obj_0": PICKLE},
    "weights of an older format": {"archive/data/weights/model.pt": PICKLE},
    "constants of an older format": {"archive/data/constants/model.pt": PICKLE},
    "pickled inputs": {SAMPLES: PICKLE},
    "compiled code": {"archive/data/aotinductor/model/model.so": b"\x7fELF"},
    "another program": {"archive/models/other.json": b"{}"},
    "a file elsewhere": {"archive/../executed": b""},
    "a file of the system": {"/executed": b""},
    "weights elsewhere": {WEIGHTS: everywhere("path_name", "../../models/model.json")},
    "an enum to import": {MODEL: signature(in_spec=ENUM)},
    "an enum to return": {MODEL: signature(out_spec=ENUM)},
    "an enum in other letters": {MODEL: signature(in_spec='[1, {"context": "{\\"__en\\\\u0075m__\\": true}"}]')},
    "a factory to import": {MODEL: signature(in_spec='[1, {"context": "{\\"default_factory_module\\": \\"os\\"}"}]')},
    "containers without end": {MODEL: signature(in_spec="[" * 10**5)},
    "more numbers than there are": {WEIGHTS: tensor(sizes=ints(10**5, 2, 3, 3))},
    "far more numbers": {WEIGHTS: tensor(sizes=ints(2**31, 2**31, 2, 2), strides=ints(0, 0, 0, 0))},
    "numbers before the first": {WEIGHTS: tensor(storage_offset={"as_int": -1})},
    "numbers after the last": {WEIGHTS: tensor(storage_offset={"as_int": 1})},
    "numbers far apart": {WEIGHTS: tensor(strides=ints(2**40, 9, 3, 1))},
    "numbers backwards": {WEIGHTS: tensor(strides=ints(-18, 9, 3, 1))},
    "fewer strides": {WEIGHTS: tensor(strides=ints(1))},
    "a size by an expression": {WEIGHTS: tensor(sizes=[{"as_expr": {"expr_str": "s77", "hint": None}}])},
    "a huge size": {WEIGHTS: tensor(sizes=ints(10**30, 1, 1, 1))},
    "another type": {WEIGHTS: tensor(dtype=99)},
    "a sparse tensor": {WEIGHTS: tensor(layout=1)},
    "a tensor elsewhere": {WEIGHTS: tensor(device={"type": "cuda", "index": 0})},
    "no weights": {WEIGHTS: b"{}"},
    "deep weights": {WEIGHTS: b'{"config":' * 10**5},
    "no program": {MODEL: b"{}"},
    "a list": {MODEL: b"[]"},
    "a deep program": {MODEL: b"[" * 10**6},
    "digits without end": {MODEL: b"1" * 10**6},
    "no JSON": {MODEL: b"NaN"},
    "another schema": {MODEL: lambda d: d["schema_version"].update(major=9)},
    "a field more": {MODEL: lambda d: d.update(run="os.system")},
    "a name twice": {MODEL: lambda d: nodes(d).append(nodes(d)[0])},
    "a name of nothing": {MODEL: lambda d: nodes(d).pop(0)},
    "an output of nothing": {MODEL: lambda d: graph(d)["outputs"].append({"as_tensor": {"name": "nothing"}})},
    "inputs of another order": {MODEL: lambda d: d["graph_module"]["signature"]["input_specs"].reverse()},
    "a call inside": {
        MODEL: lambda d: d["graph_module"]["module_call_graph"][1].update(
            signature=d["graph_module"]["module_call_graph"][0]["signature"]
        )
    },
}

COSTLY: dict[str, Callable[[Any], None]] = {
    "a huge tensor": call("torch.ops.aten.zeros.default", size={"as_ints": [2**20, 2**20]}),
    "a huge range": call("torch.ops.aten.arange.default", end={"as_int": 2**40}),
    "a huge view": call(
        "torch.ops.aten.expand.default", self={"as_tensor": {"name": "p_fc_bias"}}, size={"as_ints": [2**50, 3]}
    ),
    "a huge margin": call(
        "torch.ops.aten.constant_pad_nd.default", self={"as_tensor": {"name": "image"}}, pad={"as_ints": [2**20] * 4}
    ),
    "a huge repetition": call(
        "torch.ops.aten.repeat.default", self={"as_tensor": {"name": "image"}}, repeats={"as_ints": [1, 2**13] * 2}
    ),
    "a huge product": call(
        "torch.ops.aten.outer.default",
        self={"as_tensor": {"name": "big"}},
        vec2={"as_tensor": {"name": "big"}},
    ),
    "endless pieces": call(
        "torch.ops.aten.split.Tensor", self={"as_tensor": {"name": "big"}}, split_size={"as_int": 1}
    ),
    "endless pooling": call(
        "torch.ops.aten.avg_pool1d.default",
        self={"as_tensor": {"name": "wide"}},
        kernel_size={"as_ints": [2**13]},
        stride={"as_ints": [1]},
    ),
    "an endless power": power,
}
"""What would take gigabytes or minutes."""


def with_big(document: Any) -> None:
    """Two tensors in front: 2**24 numbers, and the same as an image of one line."""
    given = {"size": {"as_ints": [2**24]}}, {"size": {"as_ints": [1, 1, 2**24]}}
    nodes(document)[:0] = [
        {
            "target": "torch.ops.aten.zeros.default",
            "inputs": [{"name": name, "arg": arg, "kind": 1} for name, arg in each.items()],
            "outputs": [{"as_tensor": {"name": name}}],
            "metadata": {},
        }
        for name, each in zip(("big", "wide"), given, strict=True)
    ]


@pytest.fixture
def infected(nameless, copy, tmp_path, monkeypatch) -> Callable[[bytes | dict], Path]:
    """Bundles with another model.pt2, signed as a hostile author would, in a folder where a command leaves a file."""
    monkeypatch.chdir(tmp_path)

    def made(changes: bytes | dict) -> Path:
        folder = copy(nameless)
        path = folder / "model.pt2"
        path.write_bytes(rewritten(path.read_bytes(), changes) if isinstance(changes, dict) else changes)
        sign(folder)
        return folder

    yield made
    assert not (tmp_path / "executed").exists()


def test_a_rewritten_archive_still_verifies(infected):
    """So that what is refused below is refused for what was changed."""
    assert set(verify_bundle(infected({})).differences) == {"model.onnx"}


@pytest.mark.parametrize("changes", HARM.values(), ids=HARM)
def test_a_program_that_would_do_more_than_compute_is_not_run(changes, infected, monkeypatch):
    """Oracle: torch's loader is not even asked, and the command that most of them hold is not run."""
    monkeypatch.setattr("torch.export.load", None)
    folder = infected(changes)
    message = refusal(BundleError, verify_bundle, folder)
    assert message.startswith(f"{folder / 'model.pt2'} is not run: ")
    assert message.isprintable()
    assert len(message) < len(str(folder)) + 200


def test_the_command_line_refuses_it_as_any_wrong_request(infected, capsys):
    folder = infected(HARM["an argument's name, 0"])
    assert slimnet_cli.run(["verify", str(folder)]) == BundleError.exit_code
    assert "is not run" in capsys.readouterr().err


@pytest.fixture
def two_gigabytes() -> Iterator[None]:
    """Lets nobody have more than two gigabytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("change", COSTLY.values(), ids=COSTLY)
def test_a_program_that_asks_for_far_too_much_is_refused_at_once(change, infected, two_gigabytes):
    """Each costs seconds at most, and says that it is too large, not that memory ran out."""

    def costly(document: Any) -> None:
        change(document)
        with_big(document)

    folder, begin = infected({MODEL: costly}), time.process_time()
    message = refusal(BundleError, verify_bundle, folder)
    assert any(part in message for part in ("than a network of its size", "divides a tensor", "a size with"))
    assert time.process_time() - begin < 10


def bomb(content: bytes) -> bytes:
    """An archive whose program is a thousand times as large as the file."""
    return packed(archived(content) | {"archive/data/weights/weight_0": bytes(10**8)}, zipfile.ZIP_DEFLATED)


def doubled(content: bytes) -> bytes:
    """An archive with two programs under one name."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(MODEL, b"{}")
    return buffer.getvalue()


def inflated(content: bytes) -> bytes:
    """An archive whose list of files claims other sizes: all sizes of the program in it are doubled."""
    old = len(archived(content)[MODEL]).to_bytes(4, "little")
    return content.replace(old, (2**31 - 1).to_bytes(4, "little"))


ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "compressed": lambda content: packed(archived(content), zipfile.ZIP_DEFLATED),
    "a bomb": bomb,
    "a file twice": doubled,
    "larger than it is": inflated,
    "something in front": lambda content: b"#!/bin/sh\n" + content,
    "something behind": lambda content: content + b"more",
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: packed({}),
    "no folder": lambda content: packed({name.partition("/")[2]: data for name, data in archived(content).items()}),
    "another folder": lambda content: packed({f"../{name}": data for name, data in archived(content).items()}),
}


@pytest.mark.parametrize("change", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_torch_would_not_write_is_refused(change, infected, nameless, two_gigabytes):
    folder = infected(change((nameless.folder / "model.pt2").read_bytes()))
    assert refusal(BundleError, verify_bundle, folder).startswith(f"{folder / 'model.pt2'} is not run: ")


NUMBERS = (0, -1, 2, 7, 2**20, 2**31, 2**62, 10**40, 0.5, None, True, [], {}, "x", [[]])
"""What a number or another value is replaced by."""


def mutated(document: dict, random_numbers: random.Random, texts: bool) -> str:
    """Change one place in a document, a text or its key to a payload, or any value to another; says which."""
    found = [(place, value) for place, value in places(document) if isinstance(value, str) == texts]
    keyed = [place for place, _ in places(document) if isinstance(place[-1], str)]
    if texts and random_numbers.random() < 0.4:
        place = random_numbers.choice(keyed)
        parent, new = at(document, place[:-1]), random_numbers.choice(PAYLOADS)
        parent[new] = parent.pop(place[-1])
    else:
        place, _ = random_numbers.choice(found)
        new = random_numbers.choice(PAYLOADS if texts else NUMBERS)
        replaced(document, place, new)
    return f"{place} to {new!r}"


def attempt(files: dict[str, bytes], seed: int, path: Path) -> tuple[str, bool]:
    """Run an archive with one place changed; returns which, and whether it was refused.

    Raises:
        Exception: it was not refused as slimnet refuses.
    """
    random_numbers = random.Random(seed)
    name = random_numbers.choice([MODEL, MODEL, MODEL, WEIGHTS, CONSTANTS])
    document = json.loads(files[name])
    change = mutated(document, random_numbers, texts=seed % 3 != 0)
    path.write_bytes(packed(files | {name: json.dumps(document).encode()}))
    try:
        ProgramRunner(path)(Inputs.of(images(2)))
    except SlimnetError as error:
        return f"{change}: {error}", True
    return change, False


def test_no_change_of_one_place_runs_anything(nameless, tmp_path, monkeypatch, two_gigabytes):
    """Oracles: the file that a command leaves, the type of what is raised, the clock, and torch's own loader.

    What slimnet takes, torch may be given as well: the texts that are left in it are no code for torch either.
    """
    monkeypatch.chdir(tmp_path)
    files, path = archived((nameless.folder / "model.pt2").read_bytes()), tmp_path / "model.pt2"
    taken, refused = [], 0
    for seed in range(400):
        begin = time.process_time()
        change, was_refused = attempt(files, seed, path)
        refused += was_refused
        assert "\n" not in change
        assert not Path("executed").exists(), change
        assert time.process_time() - begin < 10, change
        if not was_refused and seed % 3:
            taken.append((change, path.read_bytes()))
    assert refused > 200
    for change, content in random.Random(0).sample(taken, 10):
        with contextlib.suppress(Exception):
            torch.export.load(io.BytesIO(content)).module()
        assert not Path("executed").exists(), change


def test_the_ways_into_torchs_own_source_are_ways(nameless, tmp_path, monkeypatch):
    """The attacks above are real: torch itself runs the command in the name of an argument."""
    monkeypatch.chdir(tmp_path)
    content = rewritten((nameless.folder / "model.pt2").read_bytes(), HARM["an argument's name, 1"])
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    torch.export.load(path).module()
    assert Path("executed").exists()
