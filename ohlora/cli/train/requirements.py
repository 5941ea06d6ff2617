"""What the training commands need to be installed."""

from __future__ import annotations


def require_training() -> None:
    """Raises InvalidInputError naming the extra when PyTorch and its companions are not installed."""
    import importlib.util

    from ohlora.base.installation import install_command
    from ohlora.errors import InvalidInputError

    missing = [name for name in ("torch", "timm", "lightning", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidInputError(f"this command needs {', '.join(missing)}: {install_command('train')}")
