"""What the tests of the report pages share: a parser, names that other people might choose, and what holds for all."""

import re
from html.parser import HTMLParser

from slimnet.report.drawing.svg import VARIABLES

EVIL = "<script>alert('x')</script>\"'&\x00 $x_1$ 層"
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Tags(HTMLParser):
    """Every element of a page with its attributes, and whether they all close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.text += " "

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check_ids(page: str) -> None:
    """Every id is there once, and every reference leads to one."""
    ids = [attributes["id"] for _, attributes in Tags(page).found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|aria-labelledby="([^"]+)"', page)
    assert {name for names in references for name in names if name} <= set(ids)


def check_isolation(page: str) -> None:
    """No script, no handler, nothing fetched: the only addresses are the names of XML namespaces."""
    for tag, attributes in Tags(page).found:
        assert tag not in ("script", "link", "img", "iframe", "object", "image")
        assert not any(name.startswith("on") or name == "src" for name in attributes)
    addresses = set(re.findall(r"https?://[^\"' )]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page


def check_themes(page: str) -> None:
    """Drawings take their colours and their font from the page, for light and for dark."""
    assert not [colour for colour in VARIABLES if colour in page]
    styles = " ".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "font-family" not in styles
    assert "<style" not in styles
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", styles)
    for variable in VARIABLES.values():
        assert page.count(f"--{variable}:") == 2, "one value for light, one for dark"
