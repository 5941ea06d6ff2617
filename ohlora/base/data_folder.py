"""Where what the user asked for is kept (installed bundles, downloads), and whether anything may be fetched at all."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from ohlora.kernels.user_folders import user_folder

DATA_VARIABLE, OFFLINE_VARIABLE = "OHLORA_DATA_DIR", "OHLORA_OFFLINE"


def data_folder() -> Path:
    """$OHLORA_DATA_DIR, else the user's data folder of this system, which for a user without a home cannot be made.

    It need not exist.
    """
    chosen = os.environ.get(DATA_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    return user_folder(platformdirs.user_data_dir) or Path("/nonexistent/ohlora")


def offline() -> bool:
    """Whether $OHLORA_OFFLINE forbids every fetch: any value but 0, false, no, off and nothing."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")
