"""Any photograph: framing, edges on the picture's own, several people, pictures without a face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ohlora
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import read_image
from ohlora.kernels.ombre import apply_ombre, prepare_hair
from ohlora.photos.edges import Refinement, fit_colors, spread_map
from ohlora.photos.face_alignment import Floats, Frame, cut_out, is_portrait, portrait_frame, whole_picture
from ohlora.photos.heads import (
    LEFT,
    TOP,
    WIDE,
    FaceRules,
    HeadMask,
    PhotoReader,
    border_window,
    dye_heads,
    merge_views,
    place_heads,
    wide_frame,
)
from ohlora.photos.segmentation import SIZE, find_hair

EXAMPLE = Path(ohlora.__file__).parent / "examples" / "astronaut.jpg"
OMBRE = ohlora.Ombre(0.5, 0.7, 0.5)
# Landmarks of an upright face in the middle of a 256-px portrait.
UPRIGHT = np.array([[97.6, 120.7], [158.4, 120.7], [128, 159], [100, 178.6], [155, 178.6]], np.float32)


@pytest.fixture(scope="module")
def demo() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(threads=1) as renderer:
        yield renderer


# --- framing ---------------------------------------------------------------------------------------------------------


def test_reference_landmarks_give_the_whole_portrait() -> None:
    frame = portrait_frame(UPRIGHT)
    assert frame.width == pytest.approx(243.2, abs=0.1)
    assert frame.centre == pytest.approx((128.5, 127.6), abs=0.2)
    assert abs(frame.tilt) < 0.5
    assert is_portrait(frame, 256, 256)
    assert not is_portrait(frame, 600, 800)


@settings(max_examples=50, deadline=None)
@given(angle=st.floats(-60, 60), scale=st.floats(0.2, 20), x=st.floats(-500, 3000), y=st.floats(-500, 3000))
def test_frame_turns_and_grows_with_the_face(angle: float, scale: float, x: float, y: float) -> None:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    still, moved = portrait_frame(UPRIGHT), portrait_frame((UPRIGHT @ rotation.T * scale + (x, y)).astype(np.float32))
    assert moved.width == pytest.approx(still.width * scale, rel=1e-3)
    assert moved.tilt == pytest.approx(still.tilt + angle, abs=0.2)
    centre = (np.array(still.centre) - 0.5) @ rotation.T * scale + (x, y) + 0.5
    assert moved.centre == pytest.approx(tuple(centre), abs=0.01 * moved.width)


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(-180, 180),
    side=st.floats(5, 500),
    grid=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_frame_grid_covers_its_corners(angle: float, side: float, grid: tuple[int, int]) -> None:
    turn = np.deg2rad(angle)
    frame = Frame((200.0, 150.0), (float(np.cos(turn)), float(np.sin(turn))), side, side * 1.5)
    matrix = frame.matrix(*grid)
    # The outer corners of the grid's corner pixels; a pixel's index is its centre.
    ends = np.array([[-0.5, -0.5], [grid[0] - 0.5, -0.5], [grid[0] - 0.5, grid[1] - 0.5], [-0.5, grid[1] - 0.5]])
    assert ends @ matrix[:, :2].T + matrix[:, 2] + 0.5 == pytest.approx(frame.corners(), abs=1e-6)
    top, bottom, left, right = frame.region(300, 400)
    inside = frame.corners().clip((0, 0), (400, 300))
    assert left <= inside[:, 0].min() <= inside[:, 0].max() <= right
    assert top <= inside[:, 1].min() <= inside[:, 1].max() <= bottom


def test_cutting_out_the_whole_picture_is_that_picture() -> None:
    image = read_image(EXAMPLE)
    assert np.array_equal(cut_out(image, whole_picture(*image.shape[:2]), 300, 300), image)
    half = cut_out(image, whole_picture(*image.shape[:2]), 150, 150)
    assert np.abs(half.astype(int) - cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA)).max() <= 1


def test_cut_out_is_upright_and_mirrored_beyond_the_border() -> None:
    image = read_image(EXAMPLE)
    turned = np.ascontiguousarray(np.rot90(image, -1))  # clockwise: its rows run downwards
    frame = Frame((150.0, 150.0), (0.0, 1.0), 300.0, 300.0)
    assert np.array_equal(cut_out(turned, frame, 300, 300), image)
    right = cut_out(image, Frame((300.0, 150.0), (1.0, 0.0), 300.0, 300.0), 300, 300)
    assert np.array_equal(right[:, :150], image[:, 150:])
    assert np.array_equal(right[:, 150:299], image[:, 298:149:-1])
    far = cut_out(image, Frame((5000.0, 5000.0), (1.0, 0.0), 100.0, 100.0), 50, 50)
    assert far.shape == (50, 50, 3)


# --- edges -----------------------------------------------------------------------------------------------------------


def mean_error(hair: Floats, truth: Floats) -> float:
    return float(np.abs(hair - truth).mean())


def test_refined_edges_beat_enlarging_on_strands() -> None:
    from ohlora.bench.studies.photographs import enlarged, refined, strands

    image, truth, low = strands(size=448, small=112)
    linear, cubic = (mean_error(enlarged(image, low, how), truth) for how in (cv2.INTER_LINEAR, cv2.INTER_CUBIC))
    ours = mean_error(refined(image, low), truth)
    assert ours < 0.9 * cubic < linear


def test_refined_edges_beat_enlarging_on_reference_maps(shared: Path) -> None:
    from ohlora.bench.studies.photographs import enlarged, errors, read_hair, refined

    faces = shared / "data" / "faces"
    better = []
    for path in sorted(faces.glob("*.jpg"))[::12]:
        image, truth = read_image(path), read_hair(faces, path.stem)
        low = cv2.resize(truth, (64, 64), interpolation=cv2.INTER_AREA)
        cubic, ours = errors(enlarged(image, low, cv2.INTER_CUBIC), truth), errors(refined(image, low), truth)
        better.append([ours[name] / cubic[name] for name in cubic])
    # Soft maps of a parser are smoother than strands, and still every figure is better on average.
    assert np.mean(better, 0) == pytest.approx([0.7, 0.55, 0.7], abs=0.15)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), value=st.sampled_from([0.0, 1.0]), cells=st.integers(1, 4))
def test_flat_maps_stay_flat(seed: int, value: float, cells: int) -> None:
    guide = np.random.default_rng(seed).integers(0, 256, (20 * cells, 16 * cells, 3), dtype=np.uint8)
    hair = np.full((20, 16), value, np.float32)
    planes = fit_colors(guide, hair, cells)
    result = (planes[..., :3] * (guide[..., :] / np.float32(255))).sum(2) + planes[..., 3]
    assert result == pytest.approx(np.full(result.shape, value), abs=1e-3)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from ohlora.photos import edges as edge_refine

    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    hair = cv2.resize(rng.random((5, 5), np.float32), (40, 40))
    frame = Frame((140.0, 90.0), (float(np.cos(0.3)), float(np.sin(0.3))), 160.0, 160.0)
    one, region = spread_map(image, hair, np.ones_like(hair), frame)
    monkeypatch.setattr(edge_refine, "STRIP", 7)
    other, _ = spread_map(image, hair, np.ones_like(hair), frame)
    assert one.shape == (region[1] - region[0], region[3] - region[2])
    # OpenCV rounds places to 1/32 of a grid pixel, and where it rounds depends on the strip.
    assert np.abs(one - other).max() < 0.1
    assert np.abs(one - other).mean() < 1e-3


def test_map_lands_where_the_frame_is() -> None:
    image = np.full((400, 600, 3), 128, np.uint8)
    hair = np.zeros((64, 64), np.float32)
    hair[16:48, 16:48] = 1
    frame = Frame((420.0, 150.0), (float(np.cos(0.5)), float(np.sin(0.5))), 200.0, 200.0)
    found, (top, _, left, _) = spread_map(image, hair, np.ones_like(hair), frame, None)
    rows, columns = np.nonzero(found > 0.5)
    assert (columns.mean() + left + 0.5, rows.mean() + top + 0.5) == pytest.approx(frame.centre, abs=0.1)
    assert (found > 0.5).sum() == pytest.approx(100**2, rel=0.02)
    # A window that closes leaves nothing at the frame's border.
    full = np.ones_like(hair)
    windowed, _ = spread_map(image, full, border_window(64), frame, None)
    edge = frame.corners()[0] * 0.99 + np.array(frame.centre) * 0.01
    assert windowed[int(edge[1]) - top, int(edge[0]) - left] < 0.05
    assert windowed[int(frame.centre[1]) - top, int(frame.centre[0]) - left] == 1


@pytest.mark.parametrize("options", [{"radius": 0}, {"epsilon": float("nan")}, {"finest": 0}, {"pulls": -1}])
def test_refinement_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="Refinement"):
        Refinement(**options)  # type: ignore[arg-type]


# --- heads -----------------------------------------------------------------------------------------------------------


def blob(rows: slice, columns: slice) -> Floats:
    hair = np.zeros((WIDE, WIDE), np.float32)
    hair[rows, columns] = 1
    return hair


def test_two_views_become_one_map() -> None:
    close, wide = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    close[20:200, 60:160] = 1  # the portrait's hair
    wide[24:220, 70:150] = 1  # and what hangs below it
    merged = merge_views(close, wide)
    assert merged[TOP + 60, LEFT + 100] == 1
    assert merged[TOP + SIZE + 20, WIDE // 2] == 1, "below the portrait the wider view counts"
    assert merged[TOP + 100, LEFT + 30] == 0
    # Both frames see one point at the same place of the picture.
    frame = Frame((500.0, 400.0), (0.8, 0.6), 224.0, 224.0)
    portrait, wider = frame.matrix(SIZE, SIZE), wide_frame(frame).matrix(WIDE, WIDE)
    assert portrait @ (10, 20, 1) == pytest.approx(wider @ (10 + LEFT, 20 + TOP, 1), abs=1e-9)


def test_small_patches_apart_are_dropped() -> None:
    close, wide = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    close[20:120, 60:160] = 1
    close[190:196, 20:26] = 1
    merged = merge_views(close, wide)
    assert merged[TOP + 193, LEFT + 23] == 0
    assert merged[TOP + 70, LEFT + 100] == 1


def test_each_head_has_its_own_gradient() -> None:
    image = np.full((500, 900, 3), 90, np.uint8)
    frames = [Frame((200.0, 150.0), (1.0, 0.0), 224.0, 224.0), Frame((650.0, 330.0), (1.0, 0.0), 224.0, 224.0)]
    maps = [blob(slice(60, 220), slice(100, 200))] * 2
    heads, share = place_heads(image, frames, maps)
    assert share == pytest.approx(2 * 160 * 100 / image[..., 0].size, rel=0.05)
    dyed = dye_heads(image, [head for head in heads if head], ohlora.Ombre(0.5, 0.5, 0.2))
    rows = np.flatnonzero((dyed != image).any((1, 2)))
    left, right = (np.flatnonzero((dyed != image)[:, part].any((1, 2))) for part in (slice(0, 450), slice(450, 900)))
    assert right[0] - left[0] == pytest.approx(180, abs=1)
    assert len(left) == len(right)
    assert len(rows) == len(set(left) | set(right))


def test_a_head_is_dyed_like_a_picture_of_its_own() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    hair = cv2.resize(rng.random((6, 6), np.float32), (60, 50)).clip(0, 1)
    head = HeadMask(30, 40, prepare_hair(hair[None], (50, 60)))
    dyed = dye_heads(image, [head], OMBRE)
    alone = apply_ombre(np.ascontiguousarray(image[30:80, 40:100])[None], hair[None], 0.5, 0.7, 0.5)[0]
    assert np.array_equal(dyed[30:80, 40:100], alone)
    outside = np.ones(image.shape[:2], bool)
    outside[30:80, 40:100] = False
    assert np.array_equal(dyed[outside], image[outside])


def test_people_side_by_side_keep_their_own_hair() -> None:
    image = np.full((400, 600, 3), 90, np.uint8)
    frames = [Frame((220.0, 200.0), (1.0, 0.0), 224.0, 224.0), Frame((380.0, 200.0), (1.0, 0.0), 224.0, 224.0)]
    # Each of the two sees both heads: its own in the middle of its view, the other's 160 pixels aside.
    maps = [np.zeros((WIDE, WIDE), np.float32) for _ in frames]
    for index, hair in enumerate(maps):
        for centre in (160, 320 if index == 0 else 0):
            hair[100:200, max(0, centre - 40) : centre + 40] = 1
    heads, _ = place_heads(image, frames, maps, None)
    assert all(heads)
    covers = np.zeros((2, 400, 600))
    for cover, head in zip(covers, heads, strict=True):
        assert head is not None
        mask = head.mask.coverage[0]
        cover[head.top : head.top + mask.shape[0], head.left : head.left + mask.shape[1]] = mask
    assert not (covers[0] * covers[1]).any(), "no pixel is dyed twice"
    columns = [np.flatnonzero(cover.any(0)) for cover in covers]
    assert columns[0].max() < 300 <= columns[1].min()
    assert covers[0][180, 220] == covers[1][180, 380] == 255


# --- whole photographs -----------------------------------------------------------------------------------------------


def scene(shared: Path) -> tuple[NDArray[np.uint8], list[Floats]]:
    from ohlora.bench.studies.photographs import compose

    people = (("ftv1_000001", 330, 400, 420, -12.0), ("ftv4_000008", 850, 330, 300, 15.0))
    return compose(shared / "data" / "faces", people, (1200, 800))


def test_two_people_are_both_dyed(shared: Path, demo: ohlora.Renderer) -> None:
    from ohlora.bench.studies.photographs import iou, on_picture

    image, truths = scene(shared)
    found = PhotoReader(demo.hair_engine).find(image)
    assert (found.facts["faces"], found.facts["framing"], len(found.heads)) == (2, "heads", 2)
    cover = on_picture(found.heads, (800, 1200))
    for truth in truths:
        assert iou(np.where(truth > 0.01, cover, 0), np.clip((truth - 0.75) * 4, 0, 1)) > 0.75
    (dyed,) = demo.recolor([image], OMBRE)  # finds faces by default
    nowhere = np.max(truths, 0) < 0.01
    changed = (dyed != image).any(2)
    assert changed[nowhere].mean() < 0.01
    untouched = cover == 0
    assert np.array_equal(dyed[untouched], image[untouched])


def test_a_portrait_gives_what_it_gave(shared: Path, demo: ohlora.Renderer) -> None:
    image = read_image(shared / "data" / "faces" / "ftv1_000001.jpg")
    whole, auto = (demo.recolor([image], OMBRE, detect=detect)[0] for detect in ("whole", "auto"))
    assert np.array_equal(whole, auto)
    hair = find_hair(demo.hair_engine, [image])[0]
    assert np.array_equal(whole, apply_ombre(image[None], hair[None], 0.5, 0.7, 0.5)[0])
    facts = demo.photo_reader().find(image).facts
    assert (facts["faces"], facts["framing"]) == (1, "portrait")


def test_pictures_without_a_face(demo: ohlora.Renderer) -> None:
    wall = np.random.default_rng(0).integers(100, 140, (300, 400, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"picture 1: no face found in 400x300 .*--no-face whole"):
        demo.recolor([read_image(EXAMPLE), wall], OMBRE, detect="auto")
    kept = demo.photo_reader(FaceRules(no_face="keep")).find(wall)
    assert (kept.heads, kept.facts["faces"]) == ((), 0)
    assert np.array_equal(demo.recolor(wall, OMBRE, detect="auto", no_face="keep")[0], wall)
    whole = demo.photo_reader(FaceRules(no_face="whole")).find(wall)
    assert whole.facts["framing"] == "whole"
    assert whole.facts["faces"] == 0
    # Nobody looks for a face where every picture is said to be a portrait.
    assert "faces" not in demo.photo_reader(FaceRules("whole")).find(wall).facts


def test_rules_out_of_range(demo: ohlora.Renderer) -> None:
    with pytest.raises(InvalidInputError, match="detect must be auto or whole, got 'some'"):
        FaceRules("some")
    with pytest.raises(InvalidInputError, match="no_face must be skip, keep or whole"):
        FaceRules(no_face="guess")
    with pytest.raises(InvalidInputError, match="smallest face"):
        demo.recolor(read_image(EXAMPLE), OMBRE, detect="auto", min_face=3)
