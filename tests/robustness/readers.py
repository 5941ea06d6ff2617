"""Every reader of strangers' files and texts: small inputs that it accepts, and how it is called.

A reader gets a folder that holds the files of one of its inputs, of which the fuzzer changed one. It may read them or
raise an OhloraError; everything else is a finding. Imports are lazy: the worker loads what its readers need.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Files = Mapping[str, bytes]
TEXT = "text"  # name of the file that holds an option's text
LABEL_SIZE, Z_SIZE = 3, 4


@dataclass(frozen=True)
class Reader:
    """inputs: lists of files, by path below the folder, that `read` accepts. fixed: files that are never changed."""

    name: str
    inputs: Callable[[], list[Files]]
    read: Callable[[Path], object]
    fixed: tuple[str, ...] = ()


def _written(*writers: Callable[[Path], object]) -> list[Files]:
    """What each writer leaves in an empty folder."""
    made: list[Files] = []
    for write in writers:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            made.append(
                {
                    path.relative_to(folder).as_posix(): path.read_bytes()
                    for path in sorted(Path(folder).rglob("*"))
                    if path.is_file() and path.name != "lock" and not path.name.endswith(".lock")
                }
            )
    return made


def _only(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.is_file())
    return path


def _table(rows: list[list[object]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


def _text(folder: Path) -> str:
    return (folder / TEXT).read_bytes().decode(errors="surrogateescape")  # as a command line hands it over


def _texts(*texts: str) -> Callable[[], list[Files]]:
    return lambda: [{TEXT: text.encode()} for text in texts]


# --- images and videos -----------------------------------------------------------------------------------------------


def _frame(number: int = 0, size: int = 24) -> Any:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)


def _images() -> list[Files]:
    from PIL import Image

    from ohlora.io.images import encode_image
    from ohlora.io.marking import Mark

    made: list[Files] = [
        {f"photo.{kind}": encode_image(_frame(), kind, mark=Mark("trainedAlgorithmicMedia"), srgb=True)}
        for kind in ("jpeg", "png", "webp")
    ]
    rgb = Image.fromarray(_frame())
    exif = Image.Exif()
    exif[0x0112] = 6
    others: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("gif", rgb, {}),
        ("bmp", rgb, {}),
        ("tiff", rgb, {"compression": "tiff_lzw"}),
        ("png", Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)), {}),
        ("png", rgb.quantize(16), {"transparency": 3}),
        ("jpg", rgb, {"exif": exif, "progressive": True}),
    ]
    for kind, image, options in others:
        stream = io.BytesIO()
        image.save(stream, {"jpg": "JPEG", "tiff": "TIFF"}.get(kind, kind.upper()), **options)
        made.append({f"photo.{kind}": stream.getvalue()})
    return made


def _read_image(folder: Path) -> None:
    from ohlora.errors import ImageError
    from ohlora.io.images import read_photo
    from ohlora.io.marking import mark_image, read_mark

    path = _only(folder)
    with suppress(ImageError):
        mark = read_mark(path)
        if mark is not None:
            mark_image(path.read_bytes(), mark)
    read_photo(path)


def _videos() -> list[Files]:
    from fractions import Fraction

    from ohlora.io.animation import AnimationFormat
    from ohlora.io.video_encoder import H264_CODECS, VP_CODECS, VideoEncoder

    def animation(kind: Any) -> Callable[[Path], object]:
        return lambda folder: AnimationFormat(kind, 10).write(folder / f"clip.{kind}", map(_frame, range(3)))

    def container(suffix: str, codecs: Any) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            with VideoEncoder(folder / f"clip.{suffix}", (24, 24, 3), codecs, 60, Fraction(25)) as encoder:
                for number in range(3):
                    encoder.write(_frame(number), number)
                encoder.finish()

        return write

    return _written(
        animation("mp4"), animation("gif"), container("webm", VP_CODECS), container("mkv", H264_CODECS),
        container("mov", H264_CODECS),
    )  # fmt: skip


def _read_video(folder: Path) -> None:
    from ohlora.errors import OhloraError
    from ohlora.io.marking import read_mark
    from ohlora.io.video import change_video, expected_frames, is_video

    path = _only(folder)
    is_video(path)
    expected_frames(path)
    with suppress(OhloraError):
        read_mark(path)
    out = folder / "out"
    out.mkdir()
    try:
        change_video(path, [out / path.name], lambda frame: [frame], max_pixels=1_000_000)
    except OhloraError:
        left = [file.name for file in out.iterdir()]
        if left:
            raise AssertionError(f"a refused video left {left}") from None
        raise


# --- bundles and engines ---------------------------------------------------------------------------------------------


def _bundles() -> list[Files]:
    from tests.support import small_bundle

    def write(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as staging:
            made = small_bundle.write(folder / "small", small_bundle.stage(Path(staging)))
        for path in made.path.rglob("*"):
            if path.is_file():
                place = folder / path.relative_to(made.path)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)

    return _written(write)


def _read_bundle(folder: Path) -> None:
    from ohlora.bundle import Bundle

    bundle = Bundle.open(folder)
    if bundle.manifest.generator is not None:
        bundle.w_avg()
    bundle.direction_set()
    if bundle.manifest.gallery is not None:
        bundle.gallery()
    _ = bundle.engine_hashes


def _gallery() -> list[Files]:
    width = Z_SIZE + LABEL_SIZE
    header: list[object] = ["name", "group", *(f"v{i}" for i in range(width))]
    return [{"gallery.csv": _table([header, ["672", "hhh", *(0.25 * i for i in range(width))], ["a", "", *[-1] * 7]])}]


def _read_gallery(folder: Path) -> None:
    from ohlora.bundle.gallery import read_gallery

    read_gallery(folder / "gallery.csv", Z_SIZE, LABEL_SIZE, ["hhh"])


def _models() -> list[Files]:
    from tests.support.small_models import mapping_model

    return _written(lambda folder: mapping_model(folder / "model.onnx"))


def _read_model(folder: Path) -> None:
    from ohlora.engines.model_file import read_model_file

    model = read_model_file(folder / "model.onnx")
    _ = model.quantized


def _probes() -> list[Files]:
    from ohlora.engines.selftest import Probe, save_probe

    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    return _written(
        lambda folder: save_probe(folder / "probe.safetensors", hair=Probe({"image": rows}, {"hair": rows}))
    )


def _read_probe(folder: Path) -> None:
    from ohlora.engines.selftest import load_probe

    load_probe(folder / "probe.safetensors")


def _sidecars() -> list[Files]:
    from ohlora.engines.gpu.tensorrt_sidecar import Sidecar
    from ohlora.engines.spec import EngineSpec, TensorSpec

    tensor = TensorSpec("image", "uint8", (None, 24, 24, 3))
    spec = EngineSpec((tensor,), (TensorSpec("hair", "float32", (None, 24, 24)),))
    made = Sidecar("e" * 64, "m" * 64, "tensorrt", "10", ("8.9",), (1, 4, 8), "fp32", spec, "0", 1.0, 2)
    return _written(lambda folder: made.write(folder / "x.engine"))


def _read_sidecar(folder: Path) -> None:
    from ohlora.engines.gpu.tensorrt_sidecar import read_sidecar

    read_sidecar(folder / "x.engine")


# --- jobs ------------------------------------------------------------------------------------------------------------


@functools.cache
def _demo() -> Any:
    from ohlora.bundle import Bundle

    return Bundle.open("demo")


def _jobs() -> list[Files]:
    looks = [{"expression": {"eyes": 0.5, "mouth": -1.0}, "ombre": {"color": 0.5, "height": 0.7}}, {"ombre": None}]
    asked = {"faces": ["3-5", "9"], "looks": looks, "psi": 0.7, "format": "png", "quality": 90, "mark": True}
    words = {"faces": ["1"], "looks": [{"expression": "eyes wide, mouth normal, pose none"}], "expression_seed": 3}
    return [{"job.json": json.dumps(content).encode()} for content in (asked, words)]


def _read_job(folder: Path) -> None:
    from ohlora.render.job_file import read_job_file

    read_job_file(folder / "job.json", 0, _demo())


_REQUEST = {"command": "render", "engine": "openvino-fp32", "faces": ["seeds 0-3"], "psi": 0.7}


def _journals() -> list[Files]:
    from ohlora.render.journal import Journal

    def write(folder: Path) -> None:
        with Journal.open(folder, _REQUEST) as journal:
            for item in range(3):
                name = f"{item}.png"
                (folder / name).write_bytes(b"png")
                journal.record(item, {"file_name": name, "bytes": 3, "engine": "openvino-fp32"})
            journal.record_failure(3, "no face")
            journal.finish(4)

    return _written(write)


def _read_journal(folder: Path) -> None:
    from ohlora.render.job_folder import job_status, verify_job
    from ohlora.render.journal import Journal

    job_status(folder)
    verify_job(folder)
    with Journal.open(folder, _REQUEST) as journal:
        journal.drop_foreign(4)
        for item in list(journal.pending(4)):
            journal.record_failure(item, "again")
        _ = journal.failed
        journal.finish(4)


# --- faces, directions, arrays ---------------------------------------------------------------------------------------


def _rows(count: int = 2) -> Any:
    return np.round(np.random.default_rng(1).standard_normal((count, 512)), 1).astype(np.float32)


def _z_tables() -> list[Files]:
    values = _table([["", *range(512)], *([i, *row] for i, row in enumerate(_rows().tolist()))])
    groups = _table([["case", "group_name"], [3, "hhl"], [12, "lll"]])
    return [{"ohlora_z_vectors.csv": values, "x_group_names.csv": groups}]


def _arrays() -> list[Files]:
    def npz(folder: Path) -> None:
        names = {"name": np.array(["a", "b"]), "group": np.array(["", "hhh"])}
        np.savez_compressed(folder / "faces.npz", z=_rows(), label=np.zeros((2, 0)), **names)

    return _written(lambda folder: np.save(folder / "faces.npy", _rows()), npz)


def _read_faces(folder: Path) -> None:
    from ohlora.faces import load_faces

    path = next(path for path in sorted(folder.iterdir()) if "group_names" not in path.name)
    list(load_faces([str(path)], 0))


def _directions() -> list[Files]:
    from ohlora.latents.directions import write_directions
    from tests.support.small_directions import make

    vectors = _table([["", *range(4)], [0, 0.1, -0.2, 0.3, 1]])
    tables = {f"{name}_change_w_vector_hhh.csv": vectors for name in ("eyes", "mouth", "pose")}
    return [tables, *_written(lambda folder: write_directions(folder / "directions.safetensors", make()))]


def _read_directions(folder: Path) -> None:
    from ohlora.latents.directions import read_directions

    own = folder / "directions.safetensors"
    read_directions(own if own.exists() else folder)


# --- training --------------------------------------------------------------------------------------------------------


def _labels() -> list[Files]:
    rows = _table([["idx", "gender", "quality", "age", "glass"], [4, 1, 0, 0, 1], ["000012.jpg", 0, 1, 1, 0]])
    return [{"labels.csv": rows}, {"labels.csv.gz": gzip.compress(rows, mtime=0)}]


def _read_labels(folder: Path) -> None:
    from ohlora.training.data.labels import read_labels

    read_labels(_only(folder))


def _scores() -> list[Files]:
    rows = _table(
        [["", "img_no", "img_path", "eyes_score", "hair_color_score"], [0, 4, "a.jpg", -0.25, 0.5], [1, 7, "", "", 1]]
    )
    return [{"scores.csv": rows}, {"scores.csv.gz": gzip.compress(rows, mtime=0)}]


def _read_scores(folder: Path) -> None:
    from ohlora.scores.table import read_score_table, write_score_table

    table = read_score_table(_only(folder))
    (folder / "again").mkdir()
    write_score_table(folder / "again" / "again.csv", table)


def _statistics() -> list[Files]:
    from ohlora.scores.statistics import measure, score_columns, write_statistics
    from ohlora.scores.table import ScoreTable

    columns = score_columns("v2")
    values = np.random.default_rng(0).standard_normal((5, len(columns)))
    figures = measure("v2", ScoreTable(np.arange(5), columns, values))
    return _written(lambda folder: write_statistics(folder / "statistics.csv", figures))


def _read_statistics(folder: Path) -> None:
    from ohlora.scores.statistics import read_statistics

    read_statistics(folder / "statistics.csv")


def _index() -> list[Files]:
    rows = b'{"number": 4, "source": "a.jpg"}\n{"number": 5, "source": "b/c.jpg"}\n'
    return [{"parse.jsonl": rows}]


def _read_index(folder: Path) -> None:
    from ohlora.scores.sources import read_index

    read_index(folder)


_NETWORK = "cnn-hairstyle"


def _checkpoints() -> list[Files]:
    import torch

    from ohlora.training import checkpoints

    torch.manual_seed(0)
    make: Any = checkpoints.kind_named(_NETWORK).network.own
    module = make({"network": "hairstyle", "width": 1 / 64})
    state = {name: value for name, value in module.state_dict().items() if value.numel() < 500}
    return _written(
        lambda folder: checkpoints.save(module, folder / "net.safetensors", _NETWORK),
        lambda folder: torch.save({"generator": state, "epoch": 3, "loss": [0.5]}, folder / "net.pth"),
        lambda folder: torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False),
    )


def _read_checkpoint(folder: Path) -> None:
    from ohlora.errors import CheckpointError
    from ohlora.training import checkpoints
    from ohlora.training.weights.files import read_pickle

    path = _only(folder)
    if path.suffix == ".safetensors":
        checkpoints.load(_NETWORK, path)
        return
    read_pickle(path)
    for kind in (_NETWORK, "stylegan-finetune-v1"):  # the pickles hold no network, only tensors
        with suppress(CheckpointError):
            checkpoints.load(kind, path)
    with suppress(CheckpointError):
        checkpoints.recognise(path, ["stylegan-finetune-v1", "stylegan-finetune-v8"])


def _selections() -> list[Files]:
    from ohlora.training.pages.select.report import read_report
    from ohlora.training.pages.select.store import SelectionStore
    from tests.support.select_runs import make_run

    def write(folder: Path) -> None:
        make_run(folder / "run", cases=3, labels=0)
        with SelectionStore(read_report(folder / "run"), [0, 2], folder / "selected") as store:
            store.decide("tab", 1, 0, "keep")
            store.rename("tab", 2, 0, "Ana")
            store.decide("tab", 3, 2, "drop")

    return _written(write)


def _read_selection(folder: Path) -> None:
    from ohlora.training.pages.select.report import read_report
    from ohlora.training.pages.select.store import SelectionStore

    report = read_report(folder / "run")
    for order in ("case", "sum"):
        shown = report.ordered(order, everybody=True)
    for case in report.cases.values():
        case.values()
        report.group(case)
    with SelectionStore(report, shown, folder / "selected") as store:
        store.state()
        store.summary()


def _data_sets() -> list[Files]:
    about: dict[str, Any] = {"version": 1, "prefix": "portrait", "first_seed": 2_000_000, "count": 2, "resolution": 64}
    about |= {"format": "png", "source": "portraits", "renderer": "r" * 64, "complete": True}
    return [{"dataset.json": json.dumps(about).encode()}]


def _read_data_set(folder: Path) -> None:
    from ohlora.training.data.portrait_faces import dataset_faces

    dataset_faces(folder)


def _settings() -> list[Files]:
    text = """\
preset: tiny
machine:
  precision: fp32
finetune_v1:
  epochs: 3
"""
    return [{"settings.yaml": text.encode()}]


def _load_settings(**given: Any) -> None:
    from ohlora.training.pipeline.presets import PRESETS
    from ohlora.training.pipeline.sections import PipelineSettings
    from ohlora.training.pipeline.settings import as_yaml, load_settings

    as_yaml(load_settings(PipelineSettings, PRESETS, default="tiny", **given))


def _read_settings(folder: Path) -> None:
    _load_settings(file=folder / "settings.yaml")


# --- texts of options ------------------------------------------------------------------------------------------------


def _read_face_text(folder: Path) -> None:
    from ohlora.faces import load_faces

    faces = load_faces([_text(folder)], 0, _demo())
    for number in {0, len(faces) - 1}:
        _ = faces[number]


def _read_dye_text(folder: Path) -> None:
    from ohlora.cli.options import Dye

    color, _, rest = _text(folder).partition("/")
    height, _, gradient = rest.partition("/")
    Dye(color, height, gradient).ombres()


def _read_expression_text(folder: Path) -> None:
    from ohlora.latents.expression_words import preset_expression

    preset_expression(_text(folder), None, 0)
    preset_expression(_text(folder), 3, 0)


def _read_change_text(folder: Path) -> None:
    _load_settings(changes=[_text(folder)])


def _read_noise_text(folder: Path) -> None:
    from ohlora.cli.options import noise_seed

    noise_seed(_text(folder))


READERS = {
    reader.name: reader
    for reader in (
        Reader("images", _images, _read_image),
        Reader("videos", _videos, _read_video),
        Reader("bundles", _bundles, _read_bundle, fixed=(".onnx", ".safetensors", ".csv", ".md", "LICENSE")),
        Reader("galleries", _gallery, _read_gallery),
        Reader("models", _models, _read_model),
        Reader("probes", _probes, _read_probe),
        Reader("sidecars", _sidecars, _read_sidecar),
        Reader("jobs", _jobs, _read_job),
        Reader("journals", _journals, _read_journal),
        Reader("z-tables", _z_tables, _read_faces),
        Reader("arrays", _arrays, _read_faces),
        Reader("directions", _directions, _read_directions),
        Reader("labels", _labels, _read_labels),
        Reader("scores", _scores, _read_scores),
        Reader("statistics", _statistics, _read_statistics),
        Reader("indexes", _index, _read_index),
        Reader("checkpoints", _checkpoints, _read_checkpoint),
        Reader("selections", _selections, _read_selection, fixed=(".jpg",)),
        Reader("data-sets", _data_sets, _read_data_set),
        Reader("settings", _settings, _read_settings),
        Reader("face-texts", _texts("17", "0-99", "gallery", "gallery:Ada", "5-7"), _read_face_text),
        Reader("dye-texts", _texts("0.5/0.7/0.5", "0:1:3/0.1,0.2,0.3/0.5", "0.1,0.2/0.5/0:1:2"), _read_dye_text),
        Reader("expression-texts", _texts("eyes wide, mouth normal, pose none"), _read_expression_text),
        Reader("change-texts", _texts("finetune_v1.epochs=3", "machine.precision=fp32"), _read_change_text),
        Reader("noise-texts", _texts("fixed", "7"), _read_noise_text),
    )
}


def changeable(reader: Reader, files: Files) -> Iterator[str]:
    """Names of the files that the fuzzer may change: outputs of a job are content, not what is read."""
    return (name for name in files if not name.endswith(reader.fixed or ("\0",)))
