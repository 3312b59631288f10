"""slimnet push: a bundle written to a repository of the Hugging Face Hub, with a model card."""

from __future__ import annotations

from pathlib import Path

import click
from slimnet_cli.options.paths import existing, existing_bundle
from slimnet_cli.options.shared import json_option
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next

EXAMPLES = """\b
Examples:
  slimnet push slim/ owner/name
  slimnet push slim/ owner/name --license mit --dry-run > card.md
  slimnet push slim/ owner/name@small --private --card card.md
"""


def repository(_: click.Context, __: click.Parameter, name: str) -> str:
    """Refuse what names no repository.

    Raises:
        UsageError: naming it.
    """
    from slimnet.hub.address import Address

    return str(Address.parse(name))


@click.command(epilog=EXAMPLES, short_help="Share a bundle on the Hugging Face Hub.")
@click.argument("bundle", metavar="BUNDLE", callback=existing_bundle)
@click.argument("address", metavar="OWNER/NAME", callback=repository)
@click.option("--private", is_flag=True, help="If the repository is created, make it private.")
@click.option("--license", "licence", metavar="ID", help="The licence in the model card, such as mit.")
@click.option("--card", metavar="FILE", callback=existing, help="Your own model card, in place of the generated one.")
@click.option("--message", metavar="TEXT", help="The commit message.")
@click.option("--dry-run", is_flag=True, help="Print the model card and send nothing.")
@json_option
def push(
    bundle: str,
    address: str,
    private: bool,
    licence: str | None,
    card: str | None,
    message: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a bundle to a repository of the Hugging Face Hub, with a model card made from its certificate.

    The repository, and the branch of OWNER/NAME@BRANCH, are created if they do not exist; an existing model card is
    replaced. Log in first with: hf auth login. Other commands take hf://OWNER/NAME[@REVISION] wherever they take the
    folder of a bundle; only the files of the bundle are fetched, and their hashes are checked.
    """
    if card is not None and licence is not None:
        raise click.UsageError("a card of your own states its licence itself; leave --license out")
    if dry_run:
        _show_card(bundle, address, licence, card, as_json)
        return
    from slimnet.hub.client import load_client

    load_client()
    text = None if card is None else read_card(card)
    with terminal.working(f"Sending {bundle}"):
        from slimnet.bundle.push import push_to_hub

        sent = push_to_hub(bundle, address, private=private, license=licence, card=text, message=message)
    if as_json:
        terminal.emit({"address": sent})
        return
    terminal.result().print(f"{bundle} is now {sent}", soft_wrap=True)
    show_next("verify", address)


def _show_card(bundle: str, address: str, licence: str | None, card: str | None, as_json: bool) -> None:
    from slimnet.bundle.model_card import model_card

    text = model_card(bundle, address, license=licence) if card is None else read_card(card)
    if as_json:
        terminal.emit({"address": address, "card": text})
    else:
        click.echo(text, nl=False)


def read_card(path: str) -> str:
    """The text of a model card.

    Raises:
        click.UsageError: the file cannot be read, or is no text.
    """
    from slimnet.storage.files import read_text

    try:
        return read_text(Path(path))
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not text in UTF-8; name a file of Markdown") from error
