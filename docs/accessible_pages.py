"""What screen readers and the keyboard need and the theme leaves out, added to every page; mkdocs calls this as a hook.

The dialog of the search gets a name, as do lists of pages whose label is an icon, and blocks of code, which scroll
where they are wide, can be reached by the keyboard (see code_blocks.js as well).
"""

import re
from typing import Any

SEARCH = '<div class="md-search" data-md-component="search" role="dialog">'
CODE = re.compile(r"(<pre[^>]*>(?:<span></span>)?<code)>")
LIST = re.compile(r'<nav class="md-nav" data-md-level="(\d+)" aria-labelledby="(__nav_[\d_]+)_label"')


def on_post_page(output: str, **_: Any) -> str:
    """Add them to the HTML of a page.

    Raises:
        ValueError: the theme has another form, in which they are not found.
    """
    if SEARCH not in output:
        raise ValueError("the theme's search has another form; see docs/accessible_pages.py")
    output = output.replace(SEARCH, SEARCH.replace(">", ' aria-label="Search">'))
    output = CODE.sub(r'\1 tabindex="0">', output)
    return LIST.sub(lambda match: named(match, output), output)


def named(match: re.Match[str], output: str) -> str:
    """A list of pages that is named by the title in its own heading."""
    title = re.search(rf'<label class="md-nav__title" for="{match[2]}">(.*?)</label>', output, re.DOTALL)
    words = re.sub(r"<[^>]+>", "", title[1]).strip() if title else "Pages"
    return f'<nav class="md-nav" data-md-level="{match[1]}" aria-label="{words}, pages"'
