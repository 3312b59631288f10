"""Which files a page may replace: the pages that slimnet wrote, and no others."""

import click
import pytest
from report_pages import PAGES
from slimnet_cli.output.destinations import refuse_foreign_page


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_every_page_of_slimnet_may_be_replaced(make, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(make(), encoding="utf-8")
    refuse_foreign_page(path)


def test_a_page_may_be_new_or_take_the_place_of_an_empty_file(tmp_path):
    refuse_foreign_page(tmp_path / "new.html")
    (tmp_path / "empty.html").touch()
    refuse_foreign_page(tmp_path / "empty.html")


@pytest.mark.parametrize("content", [b"{}", b"<!doctype html><title>slimnet</title>", b"\x80\x02PK", b"\n" * 2000])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(content)
    with pytest.raises(click.UsageError, match="is no page that slimnet wrote; name another file, or remove it"):
        refuse_foreign_page(path)


def test_links_to_nothing_and_devices_are_refused(tmp_path):
    (tmp_path / "page.html").symlink_to(tmp_path / "none")
    for path in (tmp_path / "page.html", "/dev/null"):
        with pytest.raises(click.UsageError, match="is no page that slimnet wrote"):
            refuse_foreign_page(path)
