"""The pictures of reports in the documentation: what of them holds without a browser."""

import re
from pathlib import Path

import click
import pytest
import screenshots
import slimnet_cli
from PIL import Image

from slimnet.storage.folder_names import RECIPE

ROOT = Path(__file__).parents[2]
IMAGES = re.compile(
    r'<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]+)"'
)


def shown() -> dict[str, str]:
    """The files that the guides show, each with the text in its place."""
    found = {}
    for page in (ROOT / "docs").rglob("*.md"):
        for dark, light, words in IMAGES.findall(page.read_text(encoding="utf-8")):
            for file in (dark, light):
                path = (page.parent / file).resolve()
                assert path.is_file(), f"{page}: {file}"
                found[path.name] = words
    return found


def test_every_picture_is_made_by_the_program_and_shown_with_a_text():
    """In both themes, the dark one where the light one is."""
    files = {file for shot in screenshots.SHOTS for file in shot.files}
    assert {path.name for path in screenshots.PICTURES.iterdir()} == files
    texts = shown()
    assert set(texts) == files
    assert all(len(words.split()) >= 8 for words in texts.values()), "a text says what is to be seen"
    for shot in screenshots.SHOTS:
        assert len({texts[file] for file in shot.files}) == 1


def test_pictures_are_small_and_of_one_width():
    for path in screenshots.PICTURES.iterdir():
        assert path.stat().st_size <= screenshots.MOST_BYTES
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
            assert picture.width == round(screenshots.WIDTH * screenshots.SCALE)


@pytest.mark.parametrize("command", screenshots.COMMANDS)
def test_its_commands_are_slimnets(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *arguments = command.split()
    if name != "train":
        (tmp_path / screenshots.RUN).mkdir()
        (tmp_path / screenshots.RUN / RECIPE).touch()
    made = slimnet_cli.commands.commands[name]
    context = made.make_context(name, arguments)
    assert isinstance(context, click.Context)


def test_a_part_of_a_page_hides_the_rest():
    page = "<html><head></head><body></body></html>"
    styled = screenshots.part_of(page, screenshots.Shot("x", "x.html", parts=("#gammas",)))
    style = styled[styled.index("<style>") : styled.index("</style>")]
    assert "body > header { display: none; }" in style
    assert "main > section:not(:has(#gammas), #gammas) { display: none; }" in style
    assert "body > header" not in screenshots.part_of(page, screenshots.Shot("x", "x", header=True, parts=(".tiles",)))


def test_what_a_picture_shows_is_named_in_the_templates():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "slimnet/report/templates").glob("*.jinja"))
    for part in {part for shot in screenshots.SHOTS for part in shot.parts}:
        named = (f'"{part[1:]}"', f'class="{part[1:]} ', f'class="{part[1:]}"')
        assert any(each in text for each in named), part


def test_the_empty_part_below_is_cut_off():
    page = Image.new("RGB", (40, 100), "white")
    page.paste("black", (10, 10, 20, 30))
    assert screenshots.cropped(page, margin=5).size == (40, 35)
    with pytest.raises(ValueError, match="nothing"):
        screenshots.cropped(Image.new("RGB", (40, 100), "white"))
    page.paste("black", (10, 90, 20, 100))
    with pytest.raises(ValueError, match="taller"):
        screenshots.cropped(page)


def test_a_picture_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(screenshots, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="more than 10"):
        screenshots.save(Image.new("RGB", (40, 40)), tmp_path / "x.webp")


def test_without_a_browser_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="there is no Chromium"):
        screenshots.chromium()
