"""What a release states agrees: version, date, Python, policy and the workflow that publishes it."""

import ast
import datetime
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import slimnet

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("slimnet", "cli") for path in (ROOT / folder).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
# PEP 594 for 3.13, and what went in 3.12.
REMOVED_MODULES = {
    *("asynchat", "asyncore", "distutils", "imp", "smtpd"),
    *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib"),
    *("ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
}


def test_version_is_the_same_everywhere():
    """In the package, its metadata, the citation, and the newest section of the changelog, which has the same date."""
    version, date = re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", CHANGELOG, re.MULTILINE)[0]
    assert PROJECT["project"]["version"] == slimnet.__version__ == CITATION["version"] == version
    assert CITATION["date-released"] == date == datetime.date.fromisoformat(date).isoformat()
    assert CITATION["license"] == PROJECT["project"]["license"]
    assert CITATION["keywords"] == PROJECT["project"]["keywords"]


def test_the_changelog_keeps_its_form():
    """Sections by version, newest first and after what is unreleased; in each, kinds of changes that nobody invents."""
    sections = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    dates = [section.rpartition(" - ")[2] for section in sections[1:]]
    assert dates == sorted(dates, reverse=True)
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= KINDS
    assert re.search(r"^# Changelog$", CHANGELOG, re.MULTILINE)


def test_the_citation_names_the_paper_as_its_tables_do():
    """Oracle: what the data of the paper's tables say of their source."""
    (paper,) = CITATION["references"]
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    source = (ROOT / "slimnet/reproduction/tables.json").read_text(encoding="utf-8")
    assert paper["title"] in source
    assert [author["family-names"] for author in paper["authors"]] == ["Mehta", "Kim", "Theobalt"]
    assert paper["url"].rpartition("/")[2] in source


def test_the_lowest_python_is_the_one_that_is_checked():
    """mypy's view of the standard library and ruff's of the syntax are those of the lowest version that is promised."""
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert named[0] == lowest
    assert all(version in SpecifierSet(PROJECT["project"]["requires-python"]) for version in named)
    assert WORKFLOWS["release.yml"]["jobs"]["check"]["strategy"]["matrix"]["python"] == named


def test_syntax_and_modules_exist_in_every_python_that_is_named():
    """Syntax is that of 3.11, and no module is imported that 3.12 or 3.13 removed."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))
        nodes = list(ast.walk(tree))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & REMOVED_MODULES, path


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_have_no_secrets_and_few_permissions(name):
    """Actions are pinned to commits, checkouts keep no token, and only the jobs that attest and publish may write."""
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    workflow = WORKFLOWS[name]
    assert "secrets" not in text
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", used) for used in re.findall(r"uses: (.+)", text))
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job, content in workflow["jobs"].items():
        assert content["timeout-minutes"]
        writes = {scope for scope, level in content.get("permissions", {}).items() if level == "write"}
        allowed = {"attest": {"id-token", "attestations"}, "publish": {"id-token"}}
        assert writes == allowed.get(job, set())
        for step in content["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False
            # Text from outside, such as the name of a branch, comes from the environment, never pasted into a shell.
            assert "${{" not in step.get("run", "")


def test_continuous_integration_runs_the_one_script():
    steps = WORKFLOWS["ci.yml"]["jobs"]["all"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]


def test_only_what_was_checked_and_attested_is_published():
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert [jobs[job]["needs"] for job in ("check", "attest", "publish")] == ["build", "check", "attest"]
    # PyYAML reads the key `on` as true.
    assert WORKFLOWS["release.yml"][True] == {"push": {"tags": ["v*"]}}


def test_deprecated_names_warn_and_work(monkeypatch):
    monkeypatch.delitem(sys.modules, "slimnet.baselines", raising=False)
    with pytest.warns(DeprecationWarning, match=r"slimnet\.methods"):
        baselines = importlib.import_module("slimnet.baselines")
    methods = importlib.import_module("slimnet.methods")
    assert baselines.rank is methods.score_channels
    assert baselines.silenced is methods.mask_selected


def test_the_former_name_of_mask_selected_warns_and_other_names_are_refused():
    methods = importlib.import_module("slimnet.methods")
    with pytest.warns(DeprecationWarning, match="mask_selected"):
        assert methods.silenced is methods.mask_selected
    with pytest.raises(AttributeError, match="no attribute 'masked'"):
        _ = methods.masked


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/versioning.md"])
def test_pages_link_to_files_and_make_targets_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert not [target for target in targets if not ((ROOT / page).parent / target).exists()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"`make ([\w-]+)`", text))
    named = re.findall(r"`((?:tests|docs|\.github|\.ci)/[\w./-]+)`", text)
    assert not [path for path in named if not (ROOT / path).exists()]
