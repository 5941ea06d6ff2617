"""What the training commands need to be installed."""

from __future__ import annotations

TRAINING = ("torch", "timm", "lightning", "onnx")
ZOO = (*TRAINING, "segmentation_models_pytorch")


def require_training(packages: tuple[str, ...] = TRAINING) -> None:
    """Raises InvalidInputError naming the extra when PyTorch and its companions are not installed."""
    import importlib.util

    from ohlora.base.installation import install_command
    from ohlora.errors import InvalidInputError

    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InvalidInputError(f"this command needs {', '.join(missing)}: {install_command('train')}")
