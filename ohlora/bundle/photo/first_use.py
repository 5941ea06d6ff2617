"""Photographic bundles are made when they are first named, where that is allowed."""

from __future__ import annotations

import logging
import os

from ohlora.base.data_folder import data_folder, offline
from ohlora.bundle import Bundle
from ohlora.bundle.installed import installed_folder
from ohlora.bundle.photo import terms
from ohlora.bundle.photo.bundles import PHOTO_BUNDLES

_LOG = logging.getLogger("ohlora")


def open_bundle(path_or_name: str | os.PathLike[str]) -> Bundle:
    """`Bundle.open`; a photographic bundle that is not here yet is installed first, with one line of warning.

    With $OHLORA_OFFLINE nothing is installed. Raises BundleError, and what `get_photo` raises.
    """
    name = path_or_name if isinstance(path_or_name, str) else ""
    if name in PHOTO_BUNDLES and installed_folder(name) is None and not offline():
        from ohlora.bundle.photo.install import get_photo
        from ohlora.bundle.photo.random_face import random_face

        package = random_face()
        _LOG.warning(
            "bundle '%s' is made of %s in %s on its first use (%.1f MB, if not fetched before; %s)",
            name, package.title, data_folder(), package.wheel_size / 1e6, terms.SHORT,
        )  # fmt: skip
        return get_photo(name).bundle
    return Bundle.open(path_or_name)
