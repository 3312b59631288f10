"""The pages of the documentation: links resolve, commands and their options exist, Python blocks compile and run."""

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import slimnet_cli
import torch
import yaml

from slimnet.torch_state.process import torch_threads

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
COMMANDS = slimnet_cli.commands.commands
FENCE = re.compile(r"^(?:<!-- runs in a (test|long test) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load_hook():
    spec = importlib.util.spec_from_file_location("command_reference", DOCS / "command_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = load_hook()
MADE = HOOK.pages()
EVERY_PAGE = PAGES | MADE


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """The blocks of code in these languages: in which test each runs, "test", "long test" or "", and its text."""
    return [(runs, code) for runs, language, code in FENCE.findall(text) if language in languages]


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as mkdocs makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def broken_links(page: str, text: str, pages: dict[str, str]) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        path = (DOCS / page).parent / place if place else DOCS / page
        name = str(path.resolve().relative_to(DOCS)) if path.resolve().is_relative_to(DOCS) else ""
        exists = name in pages or (name and path.is_file())
        if not exists or (anchor and anchor not in anchors(pages[name])):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_internal_link_resolves(page):
    assert broken_links(page, EVERY_PAGE[page], EVERY_PAGE) == []


def test_a_broken_link_is_seen():
    text = "[a](faq.md) [b](missing.md) [c](faq.md#does-it-work-with-ddp) [d](faq.md#nothing-of-the-kind) [e](../x.md)"
    assert broken_links("index.md", text, EVERY_PAGE) == ["missing.md", "faq.md#nothing-of-the-kind", "../x.md"]


def navigation(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [path for part in parts for path in navigation(part)]


def test_every_page_is_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["strict"] is True
    assert sorted(navigation(config["nav"])) == sorted(PAGES)


def options_of(command: click.Command) -> set[str]:
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    names = {name for each in shown for name in (*each.opts, *each.secondary_opts)}
    return {name for name in names if name.startswith("--")}


def lines_of_commands() -> list[tuple[str, str]]:
    """The command lines of slimnet on all pages, those that are made from the help included."""
    found = []
    for page, text in EVERY_PAGE.items():
        for _, code in blocks(text, "sh", ""):
            found += [(page, line) for line in code.splitlines() if re.match(r"slimnet \w|torchrun ", line)]
    return found


def parse_command(line: str) -> None:
    """Parse the options of a command line as the command does, without what they mean.

    Raises:
        click.UsageError: an option or argument that the command does not have, or lacks.
    """
    words = shlex.split(line.split(" 2>")[0].split(" > ")[0].replace("...", ""), comments=True)
    if words[0] == "torchrun":
        words = words[words.index("slimnet_cli") :]
    command = COMMANDS[words[1]]
    context = click.Context(command, info_name=words[1])
    _, rest, _ = command.make_parser(context).parse_args(list(words[2:]))
    assert not rest, f"{line}: {rest} is left over"


def test_every_command_that_is_shown_has_its_options():
    lines = lines_of_commands()
    assert len(lines) > 80
    for page, line in lines:
        try:
            parse_command(line)
        except (KeyError, click.UsageError) as error:
            pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("line", ["slimnet slim net.pt --rounding 8 -o slim", "slimnet report a b"])
def test_a_wrong_option_is_seen(line):
    with pytest.raises((click.UsageError, AssertionError)):
        parse_command(line)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_text_names_exists(page):
    """Some command has it: the text does not always say which."""
    known = set().union(*map(options_of, COMMANDS.values()))
    named = set(re.findall(r"`(--[a-z][\w-]+)", FENCE.sub("", PAGES[page])))
    assert named - known - {"--help"} == set()


PYTHON = [(page, runs, code) for page, text in PAGES.items() for runs, code in blocks(text, "python")]


def test_every_python_block_compiles():
    assert PYTHON
    for page, _, code in PYTHON:
        compile(code, page, "exec")


def run_blocks(page: str, *marks: str) -> None:
    names = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(0)
        for code in (code for runs, code in blocks(PAGES[page], "python") if runs in marks):
            exec(compile(code, page, "exec"), names)


@pytest.mark.parametrize("page", sorted({page for page, runs, _ in PYTHON if runs == "test"}))
def test_the_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "test")


@pytest.mark.sweep
@pytest.mark.parametrize("page", sorted({page for page, runs, _ in PYTHON if runs == "long test"}))
def test_those_that_write_bundles_and_exports_run_too(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "test", "long test")


def documented_path(package: str, name: str) -> str:
    """The path under which mkdocstrings finds a public name: where a module has the same name, the name within it."""
    return f"{package}.{name}.{name}" if importlib.util.find_spec(f"{package}.{name}") else f"{package}.{name}"


@pytest.mark.parametrize("package", ["slimnet", "slimnet.methods", "slimnet.benchmark"])
def test_the_reference_has_every_public_name(package):
    listed = re.findall(r"^::: ([\w.]+)$", PAGES[f"api/{package.rpartition('.')[2]}.md"], re.MULTILINE)
    names = importlib.import_module(package).__all__
    assert sorted(listed) == sorted(documented_path(package, name) for name in names)


def test_every_command_has_a_page_with_all_of_its_options():
    assert set(MADE) == {f"commands/{name}.md" for name in COMMANDS}
    for name, command in COMMANDS.items():
        shown = "\n".join(re.findall(r"^`(.+)`$", MADE[f"commands/{name}.md"], re.MULTILINE))
        assert options_of(command) <= set(re.findall(r"--[a-z][\w-]*", shown))
        assert f"]({name}.md)" in PAGES["commands/index.md"]


def test_a_help_text_has_no_meaning_in_markdown():
    assert HOOK.prose("FILE_a_b or *.py <x>, with --data [default: 1]") == (
        r"FILE\_a\_b or \*.py &lt;x>, with `--data` \[default: 1\]"
    )


def test_the_pages_are_added_to_the_navigation_once():
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"Commands": ["commands/index.md"]}])
    HOOK.on_config(config)
    HOOK.on_config(config)
    assert navigation(config.nav) == ["index.md", "commands/index.md", *MADE]


def test_no_page_loads_anything_from_elsewhere():
    """Fonts and scripts: those of the theme are turned off, and the worker of the offline search is a file of ours."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    loaded = config["extra"]["polyfills"] + config["extra_css"]
    assert all((DOCS / path).is_file() for path in loaded)
    assert any("iframe-worker" in path for path in loaded)
    assert not [page for page, text in PAGES.items() if re.search(r"(<script|@import)", FENCE.sub("", text))]
    for page, text in PAGES.items():
        for picture in re.findall(r'src(?:set)?="([^"]*)"', FENCE.sub("", text)):
            assert ((DOCS / page).parent / picture).is_file(), f"{page}: {picture}"


def test_the_hook_needs_mkdocs_only_when_it_builds():
    tree = ast.parse((DOCS / "command_reference.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and "mkdocs" in (node.module or "")]
