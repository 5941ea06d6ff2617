"""Recolouring any photograph: faces found, hair against its truth, edges, time and memory.

    python -m ohlora.bench.studies.photographs --faces FOLDER --out bench/results/photographs.json [--picture scene.png]

FOLDER holds the reference portraits: `*.jpg`, `hair_soft/*.png`, `mtcnn.csv`. The 12-megapixel photograph is composed
of two of them; it is not kept unless --picture names a file.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Rgb
from ohlora.base.values import Ombre
from ohlora.bench.runner.processes import measured_command
from ohlora.bench.runner.study import study
from ohlora.engines import Engine
from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image, read_image
from ohlora.photos import face_cascade
from ohlora.photos.edges import DEFAULT, Refinement, spread_map
from ohlora.photos.face_alignment import Floats, cut_out, is_portrait, portrait_frame, whole_picture
from ohlora.photos.face_detector import FaceDetector, OnnxNetworks
from ohlora.photos.heads import HeadMask, PhotoReader, border_window, head_maps, wide_frame
from ohlora.photos.segmentation import SIZE, find_hair
from ohlora.photos.video import EDGES, recolor_video
from ohlora.render.renderer import Renderer

# name, x and y of its centre, size in pixels, degrees: two people in 4000x3000.
SCENE_SIZE = (4000, 3000)
SCENE = (("ftv1_000001", 1150, 1500, 1500, -12.0), ("ftv4_000008", 2950, 1250, 900, 15.0))
POINTS = ("eye_imgleft", "eye_imgright", "nose", "mouth_imgleft", "mouth_imgright")


def read_hair(faces: Path, name: str) -> Floats:
    return (read_image(faces / "hair_soft" / f"{name}.png")[..., 0] / 255).astype(np.float32)


def compose(
    faces: Path, people: tuple[tuple[str, int, int, int, float], ...] = SCENE, size: tuple[int, int] = SCENE_SIZE
) -> tuple[Rgb, list[Floats]]:
    """A photograph of size (width, height) with portraits turned and pasted, and each one's hair map on it."""
    width, height = size
    slope = np.linspace(0, 1, width, dtype=np.float32)
    wall = np.stack([110 + 40 * slope, 120 + 20 * slope, 130 - 20 * slope], 1)
    scene = np.repeat(wall[None], height, 0)
    # A softly lit wall with grain: detectors and students see no flat colour in photographs.
    noise = np.random.default_rng(0).normal(0, 8, (height // 100, width // 100)).astype(np.float32)
    scene += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)[..., None]
    truths: list[Floats] = []
    for name, x, y, side, angle in people:
        portrait = read_image(faces / f"{name}.jpg").astype(np.float32)
        matrix = cv2.getRotationMatrix2D((127.5, 127.5), -angle, side / 256)
        matrix[:, 2] += np.array([x, y]) - 127.5
        # The portrait fades into the wall over its outer tenth.
        distance = np.minimum.outer(*[np.minimum(np.arange(256), np.arange(256)[::-1])] * 2) / 25.6
        fading, soft = np.clip(distance, 0, 1).astype(np.float32), read_hair(faces, name)
        alpha = np.clip(cv2.warpAffine(fading, matrix, size, flags=cv2.INTER_LINEAR), 0, 1)
        pasted, hair = (cv2.warpAffine(values, matrix, size, flags=cv2.INTER_CUBIC) for values in (portrait, soft))
        scene += alpha[..., None] * (pasted - scene)
        hair = np.clip(hair, 0, 1) * alpha
        truths = [truth * (1 - alpha) for truth in truths] + [hair]
    return np.clip(scene + 0.5, 0, 255).astype(np.uint8), truths


def strands(size: int = 896, small: int = SIZE, seed: int = 0) -> tuple[Rgb, Floats, Floats]:
    """A head with loose strands on a light wall: picture, its exact hair [size,size], and the map [small,small]."""
    rng = np.random.default_rng(seed)
    fine = 2 * size
    hair = np.zeros((fine, fine), np.float32)
    cv2.ellipse(hair, (fine // 2, fine // 2), (int(fine * 0.28), int(fine * 0.34)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    for _ in range(200):
        turn = rng.uniform(0, 2 * np.pi)
        point = fine / 2 + fine * np.array([0.27 * np.cos(turn), 0.33 * np.sin(turn)])
        direction = turn + rng.normal(0, 0.5)
        bend, line = rng.normal(0, 0.06), []
        for _ in range(30):
            line.append(point.copy())
            point = point + fine * 0.006 * np.array([np.cos(direction), np.sin(direction)])
            direction += bend
        cv2.polylines(hair, [np.array(line, np.int32)], False, 1.0, int(rng.integers(2, 7)), cv2.LINE_AA)
    hair = np.asarray(cv2.resize(hair, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    sheen = 18 * np.sin(40 * x + 8 * np.sin(9 * y))[..., None]
    dark = np.array([60, 40, 25]) + sheen + rng.normal(0, 6, (size, size, 1))
    light = np.array([170, 175, 180]) + 30 * np.sin(3 * x + 2 * y)[..., None] + rng.normal(0, 6, (size, size, 3))
    image = np.clip(hair[..., None] * dark + (1 - hair[..., None]) * light, 0, 255).astype(np.uint8)
    # Students blur a little: 0.7 pixels of their map.
    low = cv2.GaussianBlur(cv2.resize(hair, (small, small), interpolation=cv2.INTER_AREA), (0, 0), 0.7)
    return image, hair, np.asarray(low, np.float32)


def enlarged(image: Rgb, hair: Floats, how: int) -> Floats:
    return np.asarray(np.clip(cv2.resize(hair, image.shape[1::-1], interpolation=how), 0, 1), np.float32)


def refined(image: Rgb, hair: Floats, refinement: Refinement | None = DEFAULT) -> Floats:
    return spread_map(image, hair, np.ones_like(hair), whole_picture(*image.shape[:2]), refinement)[0]


def errors(hair: Floats, truth: Floats) -> dict[str, float]:
    """Mean differences of two hair maps, and of the dye's cover that they give (docs/spec/ombre.md, section 3)."""
    cover, wanted = (np.clip((values - 0.75) * 4, 0, 1) for values in (hair, truth))
    difference = np.abs(hair - truth)
    return {
        "mean_abs": float(difference.mean()),
        "mse": float((difference**2).mean()),
        "cover_mean_abs": float(np.abs(cover - wanted).mean()),
    }


def mean_errors(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}


def iou(hair: NDArray[Any], truth: NDArray[Any]) -> float:
    one, other = hair >= 0.5, truth >= 0.5
    return float((one & other).sum() / max(1, (one | other).sum()))


def cover_iou(hair: Floats, truth: Floats) -> float:
    """Where the dye covers more than half, against where the truth would have it do so."""
    return iou((hair - 0.75) * 4, (truth - 0.75) * 4)


# --- what is measured ------------------------------------------------------------------------------------------------


def detection(faces: Path) -> dict[str, Any]:
    """The compiled detector against facenet-pytorch's figures in mtcnn.csv."""
    networks = OnnxNetworks()
    pixels, probability, times = 0.0, 0.0, []
    rows = list(csv.DictReader((faces / "mtcnn.csv").open()))
    for row in rows:
        image = read_image(faces / f"{row['name']}.jpg")
        started = time.process_time()
        found = face_cascade.detect(image, networks)
        times.append(time.process_time() - started)
        box = np.array([float(row[name]) for name in ("x1", "y1", "x2", "y2")])
        points = np.array([[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in POINTS])
        pixels = max(pixels, np.abs(found.boxes[0] - box).max(), np.abs(found.landmarks[0] - points).max())
        probability = max(probability, abs(found.probabilities[0] - float(row["prob"])))
    return {
        "pictures": len(rows),
        "largest_difference_px": round(float(pixels), 6),
        "largest_difference_probability": float(probability),
        "ms_per_256px_picture_cpu": round(1e3 * float(np.median(times)), 1),
    }


def framing(faces: Path, engine: Engine) -> dict[str, Any]:
    """Cover IoU with the reference hair maps: taken whole, cut out around the face, cut out with the wider view."""
    detector = FaceDetector()
    scores: dict[str, list[float]] = {"whole": [], "portrait_cut_out": [], "portrait_and_wider_cut_out": []}
    portraits, pictures = 0, sorted(faces.glob("*.jpg"))
    for path in pictures:
        image, truth = read_image(path), read_hair(faces, path.stem)
        frame = portrait_frame(detector.detect(image).landmarks[0])
        portraits += is_portrait(frame, *image.shape[:2])
        close = engine(image=cut_out(image, frame, SIZE, SIZE)[None])["hair"][0]
        wide = head_maps(engine, image, [frame])[0]
        scores["whole"].append(cover_iou(enlarged(image, find_hair(engine, [image])[0], cv2.INTER_CUBIC), truth))
        for view, hair, window, where in (
            ("portrait_cut_out", close, np.ones_like(close), frame),
            ("portrait_and_wider_cut_out", wide, border_window(320), wide_frame(frame)),
        ):
            full = np.zeros_like(truth)
            part, (top, bottom, left, right) = spread_map(image, hair, window, where)
            full[top:bottom, left:right] = part
            scores[view].append(cover_iou(full, truth))
    figures = {
        f"cover_iou_{name}": {view: round(float(of(values)), 4) for view, values in scores.items()}
        for name, of in (("mean", np.mean), ("min", np.min))
    }
    return {"pictures": len(pictures), "taken_whole": portraits, **figures}


def edges(faces: Path, every: int = 2) -> dict[str, Any]:
    """Enlarging a small map: linear, cubic (what the ombre does by itself) and on the picture's edges."""
    methods: dict[str, Callable[[Rgb, Floats], Floats]] = {
        "linear": partial(enlarged, how=cv2.INTER_LINEAR),
        "cubic": partial(enlarged, how=cv2.INTER_CUBIC),
        "guided_without_pulling_back": partial(refined, refinement=Refinement(pulls=0)),
        "refined": refined,
        "refined_for_video": partial(refined, refinement=EDGES),
    }
    cases: dict[str, list[tuple[Rgb, Floats, Floats]]] = {"strands_4x": [strands()]}
    for shrink in (2, 3, 4):
        rows = []
        for path in sorted(faces.glob("*.jpg"))[::every]:
            image, truth = read_image(path), read_hair(faces, path.stem)
            size = round(256 / shrink)
            rows.append((image, truth, cv2.resize(truth, (size, size), interpolation=cv2.INTER_AREA)))
        cases[f"portraits_{shrink}x"] = rows
    return {
        case: {
            name: mean_errors([errors(method(image, low), truth) for image, truth, low in rows])
            for name, method in methods.items()
        }
        for case, rows in cases.items()
    }


def on_picture(heads: tuple[HeadMask, ...], shape: tuple[int, int]) -> Floats:
    """The dye's cover of all heads together, 0..1."""
    cover = np.zeros(shape, np.float32)
    for head in heads:
        mask = head.mask.coverage[0] / 255
        part = cover[head.top : head.top + mask.shape[0], head.left : head.left + mask.shape[1]]
        np.maximum(part, mask, out=part)
    return cover


def photograph(faces: Path, engine: Engine, picture: Path | None) -> dict[str, Any]:
    """Two people in 12 megapixels: what is found, by the library and by the whole command."""
    image, truths = compose(faces)
    reader = PhotoReader(engine)
    reader.detector.networks  # noqa: B018 - opened here, so that the times are those of a second picture
    started = time.process_time()
    detected = reader.detector.detect(image)
    after_detection = time.process_time()
    found = reader.find(image)
    finished = time.process_time()
    cover = on_picture(found.heads, (image.shape[0], image.shape[1]))
    result: dict[str, Any] = {
        "width": image.shape[1],
        "height": image.shape[0],
        "faces_pasted": len(truths),
        "faces_found": len(detected),
        "probabilities": [round(float(value), 5) for value in detected.probabilities],
        "facts": found.facts,
        "detect_cpu_s": round(after_detection - started, 2),
        "find_cpu_s": round(finished - after_detection, 2),
        # Where the dye covers more than half against where the truth would have it do so.
        "cover_iou": round(iou(cover, np.clip((np.max(truths, 0) - 0.75) * 4, 0, 1)), 4),
        "cover_iou_per_head": [
            round(iou(np.where(truth > 0.01, cover, 0), np.clip((truth - 0.75) * 4, 0, 1)), 4) for truth in truths
        ],
    }
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        source = picture or Path(folder) / "scene.png"
        write_bytes(source, encode_image(image, "png"))
        done = measured_command(["recolor", str(source), "--out", f"{folder}/out", "--format", "png"])
        dyed = read_image(Path(folder, "out", f"{source.stem}.png"))
        row = json.loads(Path(folder, "out", "metadata.jsonl").read_text())
        changed = (dyed != image).any(2)
        result["command"] = {
            "command": "recolor scene.png --format png",
            "wall_s": round(done.wall_s, 2),
            "cpu_s": round(done.cpu_s, 2),
            "reported_s": done.summary["seconds"],
            "peak_memory_mb": round(done.peak / 2**20, 1),
            "faces": row["faces"],
            "dyed": row["dyed"],
            "dyed_share_of_each_head": [round(float(changed[truth >= 0.9].mean()), 3) for truth in truths],
            "changed_outside_hair": round(float(changed[np.max(truths, 0) < 0.01].mean()), 6),
        }
        if picture is not None:
            write_bytes(picture.with_name(f"{picture.stem}_dyed.png"), encode_image(dyed, "png"))
    return result


def video(faces: Path, engine: Engine, frames: int = 30) -> dict[str, Any]:
    """A camera that pans over the photograph, 1280x720: frames per second from file to file."""
    scene = cv2.resize(compose(faces)[0], (2000, 1500), interpolation=cv2.INTER_AREA)
    with tempfile.TemporaryDirectory(prefix="ohlora-bench-") as folder:
        clip, dyed = Path(folder) / "clip.mp4", Path(folder) / "dyed.mp4"
        pan = (scene[300:1020, 250 + 6 * number : 1530 + 6 * number] for number in range(frames))
        write_animation(clip, pan, fps=25, format="mp4")
        started, used = time.perf_counter(), time.process_time()
        result = recolor_video(clip, [(dyed, Ombre(0.5))], engine)
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        **result.facts(),
        "frames_per_s": round(frames / wall, 2),
        "cpu_ms_per_frame": round(1e3 * cpu / frames, 1),
    }


@study(picture="keep the photograph here, and the dyed one beside it")
def main(faces: Path, out: Path, picture: Path | None = None) -> dict[str, Any]:
    with Renderer("demo") as renderer:
        engine = renderer.hair_engine
        return {
            "student": renderer.provenance(generator=False),
            "detection": detection(faces),
            "framing": framing(faces, engine),
            "edges": edges(faces),
            "photograph": photograph(faces, engine, picture),
            "video": video(faces, engine),
        }


if __name__ == "__main__":
    main()
