"""axe-core, the checker of accessibility, on a page in headless Chromium: neither belongs to slimnet or its tests.

`make axe` fetches axe-core from npm into build/axe; Chromium is the system's. Where one is missing, tests skip.
"""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("AXE", ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"))
HEIGHT = 30_000
"""Of the window in pixels: what is below it has not been drawn, and may have no place in the order of the keyboard."""

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """
window.addEventListener("load", async () => {
  const found = await axe.run(document, {runOnly: RULES, resultTypes: ["violations"]});
  const all = found.violations.map(each => ({
    rule: each.id, impact: each.impact, help: each.help,
    places: each.nodes.map(node => node.target.join(" ") + ": " + node.failureSummary),
  }));
  const place = document.createElement("pre");
  place.id = "axe-result";
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  place.textContent = JSON.stringify({violations: all, passes: found.passes.length, theme: dark ? "dark" : "light"});
  document.body.append(place);
});
"""
THEMES = {"light": "1", "dark": "0"}
"""The numbers by which Blink knows preferred colours."""


def browser() -> str | None:
    """The command of a Chromium, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def missing() -> str:
    """What is missing, in a line; empty if nothing is."""
    if browser() is None:
        return "there is no Chromium"
    return "" if AXE.is_file() else f"there is no axe-core at {AXE}: make axe fetches it"


def violations(page: Path, theme: str = "light", width: int = 1200) -> list[dict[str, Any]]:
    """What axe-core finds in a page, rule by rule, with the elements; its scripts run as they are."""
    content = page.read_text(encoding="utf-8")
    script = (
        f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{RUN.replace('RULES', json.dumps(RULES))}</script>"
    )
    # Beside the page, whose links are relative.
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=page.parent, encoding="utf-8") as copy:
        copy.write(content.replace("</head>", script + "</head>", 1))
        copy.flush()
        shown = dump(Path(copy.name), theme, width)
    found = re.search(r'<pre id="axe-result">(.*?)</pre>', shown, re.DOTALL)
    assert found, f"axe did not run on {page}: {shown[-500:]}"
    result = json.loads(html.unescape(found[1]))
    assert result["passes"] > 5
    assert result["theme"] == theme
    return result["violations"]


def dump(page: Path, theme: str, width: int) -> str:
    """The document of a page after its scripts have run."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser() or "", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--allow-file-access-from-files", f"--user-data-dir={profile}", f"--window-size={width},{HEIGHT}"]
        command += [
            f"--blink-settings=preferredColorScheme={THEMES[theme]}",
            "--virtual-time-budget=60000",
            "--dump-dom",
        ]
        return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=120).stdout


def in_lines(found: list[dict[str, Any]]) -> list[str]:
    """Violations in lines: the rule, how many elements, and the first of them."""
    lines = []
    for each in found:
        first = " ".join(each["places"][0].split())
        lines.append(f"{each['rule']} ({each['impact']}, {len(each['places'])}): {each['help']}; {first}")
    return lines
