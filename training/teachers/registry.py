"""Face parsers as teachers: one interface (`Teacher`), opened from a published weights file.

teacher = load_teacher("79999_iter.pth")          # or FaceXFormer's model.pt: the file's keys tell
teacher.labels(images)                             # 11-class maps and soft hair maps, 224x224
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ohlora.base.types import check_choice
from ohlora.bundle.files import file_sha256
from ohlora.bundle.installed import NAME
from ohlora.bundle.manifest import MANIFEST_NAME
from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.loop.distributed import chosen_device
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.teachers.bisenet import BiSeNetTeacher
from ohlora.training.teachers.bundle import BundleTeacher
from ohlora.training.teachers.facexformer import FaceXFormerTeacher
from ohlora.training.teachers.protocol import Labeller, Labels, Teacher

__all__ = ["KINDS", "Labels", "Teacher", "load_teacher", "open_labeller"]

WEIGHTS = (".pt", ".pth")  # of missing files too: no bundle is meant
KINDS = (FaceXFormerTeacher.name, BiSeNetTeacher.name)


def open_labeller(source: Path | str, kind: str | None = None, device: str = "cpu") -> Labeller:
    """A published weights file (`load_teacher`), or the networks of a bundle: its folder, or a name such as "demo".

    Raises BundleError for an unusable bundle, InvalidInputError for a `kind` with a bundle, and as `load_teacher`.
    """
    path = Path(source)
    if (
        path.is_file()
        or path.suffix in WEIGHTS
        or not (NAME.fullmatch(str(source)) or (path / MANIFEST_NAME).is_file())
    ):
        return load_teacher(path, kind, device)
    if kind is not None:
        raise InvalidInputError(f"{source} is a bundle: leave the kind of the teacher out")
    return BundleTeacher(str(source))


def load_teacher(path: Path | str, kind: str | None = None, device: str = "cpu") -> Teacher:
    """Open a published weights file. kind: one of KINDS; None: what the file's keys say. device: "cpu", "cuda", "auto".

    Raises CheckpointError naming the file, InvalidInputError for an unknown kind or a device that is not there.
    """
    path, where = Path(path), chosen_device(device)
    model = checkpoints.load(check_choice("teacher", kind or checkpoints.recognise(path, KINDS), KINDS), path)
    if isinstance(model, BiSeNet):
        return BiSeNetTeacher(model, file_sha256(path), where)
    return FaceXFormerTeacher(cast(FaceXFormer, model), file_sha256(path), where)
