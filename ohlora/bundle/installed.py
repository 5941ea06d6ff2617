"""Bundles that the user installed: folders of the data folder, found and removed by name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ohlora.base.atomic import TEMPORARY_PREFIX, recover_folder
from ohlora.base.data_folder import DATA_VARIABLE, data_folder
from ohlora.base.reading import why_not
from ohlora.bundle.manifest import MANIFEST_NAME
from ohlora.errors import InvalidInputError, OutputError

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # a bundle's, as its manifest may have it


def bundles_folder() -> Path:
    """Where installed bundles are, each in a folder of its name. It need not exist."""
    return data_folder() / "bundles"


def installed_folder(name: str) -> Path | None:
    """Folder of the installed bundle `name`, None without one."""
    if not NAME.fullmatch(name):
        return None
    folder = recover_folder(bundles_folder() / name)
    return folder if (folder / MANIFEST_NAME).is_file() else None


def installed_names() -> list[str]:
    return sorted(
        path.parent.name for path in bundles_folder().glob(f"*/{MANIFEST_NAME}") if NAME.fullmatch(path.parent.name)
    )


def remove_installed(name: str) -> Path:
    """Delete the installed bundle `name`; returns where it was. Its name is free before the first file goes.

    Raises InvalidInputError when it is not installed, OutputError when it cannot be deleted.
    """
    folder = installed_folder(name)
    if folder is None:
        known = ", ".join(installed_names()) or "none"
        raise InvalidInputError(f"no bundle '{name}' is installed in {bundles_folder()}: installed are {known}")
    aside = folder.with_name(f"{TEMPORARY_PREFIX}{name}")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {why_not(error)}; check ${DATA_VARIABLE}") from error
    return folder
