"""Bundles: what is written opens again, and every way to damage one is found and named."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ohlora.bundle import Bundle
from ohlora.bundle import files as bundle_files
from ohlora.bundle.description import describe
from ohlora.bundle.manifest import BundleManifest
from ohlora.errors import BundleError, EngineError
from tests.support.small_bundle import GROUPS, ROW, edit, relist, write, write_gallery
from tests.support.small_models import LABEL, LAYERS, RESOLUTION, Z, hair_model, synthesis_model

pytestmark = pytest.mark.usefixtures("no_cache")


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


# ---------------------------------------------------------------- a good bundle


def test_everything_inside_is_reached_by_role(whole):
    bundle = Bundle.open(whole)
    assert (bundle.name, bundle.path) == ("small", whole)
    np.testing.assert_array_equal(bundle.w_avg(), np.arange(Z, dtype=np.float32))
    directions = bundle.directions()
    assert list(directions) == ["groups", "eyes", "mouth", "pose"]
    assert directions["groups"] == GROUPS
    assert directions["eyes"].shape == (2, Z)
    assert not np.array_equal(directions["eyes"], directions["mouth"])
    first, second = bundle.gallery()
    assert (first.name, first.group, second.name, second.group) == ("672", "hhh", "v2-1836", None)
    assert first.z.dtype == first.label.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([first.z, first.label]), np.arange(9) * 0.25)
    assert set(bundle.engine_hashes) == {"hair", "mapping", "synthesis"}
    assert bundle.engine_hashes["hair"] == hashlib.sha256((whole / "hair.onnx").read_bytes()).hexdigest()
    rows = dict(describe(bundle))
    assert rows["gallery"] == "2 faces"
    assert "iou 0.9" in rows["hair"]
    assert rows["generator identity"] == bundle.generator_identity


def test_engines_open_with_their_probes(whole):
    bundle = Bundle.open(whole)
    with bundle.hair_engine() as engine:
        assert engine.selftest["probe"]["hair"]["max_abs"] < 1e-3
        assert engine.model_sha256 == bundle.engine_hashes["hair"]
    mapping, synthesis = bundle.generator_engines(threads=1)
    with mapping, synthesis:
        w = mapping(z=np.zeros((3, Z), np.float32), label=np.ones((3, LABEL), np.float32))["w"]
        image = synthesis(wp=np.repeat(w[:, None], LAYERS, axis=1))["image"]
        assert image.shape == (3, RESOLUTION, RESOLUTION, 3)
        assert synthesis.selftest["probe"]["image"]["psnr_db"] > 40


def test_same_input_same_bytes(whole, staging, tmp_path):
    again = write(tmp_path / "again", staging)
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again.path) for p in again.path.rglob("*") if p.is_file())
    assert all((whole / n).read_bytes() == (again.path / n).read_bytes() for n in names)
    assert again.identity == Bundle.open(whole).identity
    other = write(tmp_path / "other", staging, description="another")
    assert other.identity != again.identity
    assert other.generator_identity == again.generator_identity


def test_layout_of_the_json_is_not_identity(copy, whole):
    edit(copy, lambda manifest: None)
    assert (copy / "bundle.json").read_bytes() != (whole / "bundle.json").read_bytes()
    assert Bundle.open(copy).identity == Bundle.open(whole).identity


def test_the_earlier_spelling_of_a_precision_is_read(copy):
    edit(copy, lambda m: [m[part].update(precision="f32") for part in ("hair", "generator")])
    bundle = Bundle.open(copy)
    assert (bundle.hair_part().precision, bundle.generator_part().precision) == ("fp32", "fp32")
    assert b"f32" not in bundle.manifest.to_json().replace(b"fp32", b"")
    edit(copy, lambda m: m["hair"].update(precision="f16"))
    with pytest.raises(BundleError, match=r"hair\.precision"):
        Bundle.open(copy)


def test_unlisted_files_are_ignored_and_unusable(copy):
    (copy / "extra.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"lists no file 'extra.onnx'"):
        Bundle.open(copy).file("extra.onnx")


def test_links_inside_the_bundle_are_fine(copy):
    (copy / "net/mapping.onnx").rename(copy / "moved.onnx")
    (copy / "net/mapping.onnx").symlink_to("../moved.onnx")
    Bundle.open(copy)


# ---------------------------------------------------------------- finding it


def test_a_bare_name_is_never_a_folder_of_the_working_directory(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(whole.parent)
    with pytest.raises(BundleError, match=r"no bundle 'small': for the folder here, give \./small"):
        Bundle.open("small")
    assert Bundle.open("./small").path == whole
    assert Bundle.open(Path("small")).path == whole  # a path is a path
    shutil.copytree(whole, tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("demo").path != tmp_path / "demo"


def test_open_an_installed_bundle(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path))
    shutil.copytree(whole, tmp_path / "bundles" / "mine")
    assert Bundle.open("mine").path == tmp_path / "bundles" / "mine"
    with pytest.raises(BundleError, match="no bundle 'photo' yet: `ohlora bundle get photo` installs it"):
        Bundle.open("photo")
    with pytest.raises(BundleError, match=r"no bundle 'other'.*installed are mine"):
        Bundle.open("other")


def test_open_by_name(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_files.importlib.resources, "files", lambda package: tmp_path / "package")
    shutil.copytree(whole, tmp_path / "package/bundle/shipped")
    assert Bundle.open("shipped").path == tmp_path / "package/bundle/shipped"
    with pytest.raises(BundleError, match=r"no bundle 'small'.* the package ships shipped"):
        Bundle.open("small")


@pytest.mark.parametrize("name", ["./none", "a/b", "..", ""])
def test_a_path_is_never_a_shipped_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"no bundle folder|there is no manifest .*bundle\.json"):
        Bundle.open(name)


def test_a_file_is_no_bundle(whole):
    with pytest.raises(BundleError, match="is a file: give the bundle's folder"):
        Bundle.open(whole / "hair.onnx")


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "name", ["hair.onnx", "net/synthesis.onnx", "directions.safetensors", "gallery.csv", "LICENSE"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "missing", "folder"])
def test_damaged_file_is_named(copy, name, damage):
    path = copy / name
    data = bytearray(path.read_bytes())
    Bundle.open(copy)  # hashes seen before the damage must not hide it
    path.unlink()
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "extend":
        path.write_bytes(data + b" ")
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(BundleError, match=rf"{name} .*(sha256|bytes|missing|not a file).*damaged, get it again"):
        Bundle.open(copy)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_found(copy, whole, data):
    names = sorted(Bundle.open(whole).manifest.files)
    name = data.draw(st.sampled_from(names))
    content = bytearray((whole / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} does not match its sha256"):
        Bundle.open(copy)
    shutil.copyfile(whole / name, copy / name)
    Bundle.open(copy)


def test_damage_after_opening_is_found_at_use(copy):
    bundle = Bundle.open(copy)
    (copy / "hair.onnx").write_bytes(b"x" * (copy / "hair.onnx").stat().st_size)
    with pytest.raises(BundleError, match=r"hair.onnx does not match"):
        bundle.hair_engine()


@pytest.mark.parametrize(
    "name",
    [
        "../outside.md",
        "/etc/hosts",
        "net/../../outside.md",
        "C:/x.md",
        "net\\x.md",
        "",
        ".hidden",
        "a//b.md",
        "./a.md",
    ],
)
def test_paths_cannot_leave(copy, name):
    (copy.parent / "outside.md").write_text("secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
    edit(copy, lambda manifest: manifest["files"].update({name: entry}))
    with pytest.raises(BundleError, match="must stay inside the bundle"):
        Bundle.open(copy)


@pytest.mark.parametrize("target", ["file", "folder", "loop"])
def test_links_cannot_leave(copy, whole, target):
    if target == "file":
        (copy / "LICENSE").unlink()
        (copy / "LICENSE").symlink_to(whole / "LICENSE")
    elif target == "folder":
        shutil.rmtree(copy / "net")
        (copy / "net").symlink_to(whole / "net")
    else:
        (copy / "LICENSE").unlink()
        (copy / "LICENSE").symlink_to("LICENSE")
    with pytest.raises(BundleError, match="missing" if target == "loop" else "is a link out of the bundle"):
        Bundle.open(copy)


def test_pickles_are_refused(copy, staging, tmp_path):
    (copy / "net.pth").write_bytes(b"x")
    relist(copy, "net.pth")
    with pytest.raises(BundleError, match=r"'net\.pth' is of a kind no bundle holds"):
        Bundle.open(copy)
    with_pickle = Path(shutil.copytree(staging, tmp_path / "staging"))
    (with_pickle / "net.pkl").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"cannot be built.*'net\.pkl'"):
        write(tmp_path / "out", with_pickle)
    assert not (tmp_path / "out").exists()


MANIFEST_DAMAGE = {
    "newer": (lambda m: m.update(format=2), "newer ohlora .*format 2.*pip install "),
    "older": (lambda m: m.update(format=0), "format 0, which never existed"),
    "no format": (lambda m: m.pop("format"), "no whole number 'format'"),
    "section": (lambda m: m.update(voices={}), "unknown section 'voices'"),
    "field": (lambda m: m["hair"].update(color=1), "hair.color: Extra inputs"),
    "type": (lambda m: m["hair"].update(input_size="224"), "hair.input_size: "),
    "no license": (lambda m: m.pop("license"), "license: Field required"),
    "hash": (lambda m: m["files"]["LICENSE"].update(sha256="0"), "files.LICENSE.sha256"),
    "unlisted": (
        lambda m: m["files"].pop("hair.onnx"),
        "hair.file uses 'hair.onnx', which 'files' does not list",
    ),
    "foreign": (
        lambda m: m["directions"].update(generator_sha256="0" * 64),
        "foreign directions: .*000000000000",
    ),
    "homeless": (lambda m: m.pop("generator"), "directions are given without the generator"),
    "space": (lambda m: m["directions"].update(space="y"), "directions.space"),
    "split space": (lambda m: m["directions"].update(space="mapping_split1"), "belong to a generator with mapping_end"),
    "network": (lambda m: m["directions"].update(networks={"ears": 1.0}), "networks name 'ears'"),
    "split size": (lambda m: m["generator"].update(split_size=4), "split_size 4 go together"),
    "nothing": (
        lambda m: [m.pop(k) for k in ("hair", "generator", "directions", "gallery")],
        "holds nothing",
    ),
}


@pytest.mark.parametrize("case", MANIFEST_DAMAGE)
def test_damaged_manifest(copy, case):
    change, message = MANIFEST_DAMAGE[case]
    edit(copy, change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copy)
    assert "bundle.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000])
def test_manifest_that_is_no_json(copy, text):
    (copy / "bundle.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"bundle\.json(: it)? is (not valid JSON|no bundle manifest|UTF-16)"):
        Bundle.open(copy)


def test_missing_manifest(copy):
    (copy / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"there is no manifest .*bundle\.json"):
        Bundle.open(copy)


def test_another_generator_makes_directions_foreign(copy):
    synthesis_model(copy / "net/synthesis.onnx", seed=9)
    relist(copy, "net/synthesis.onnx")
    with pytest.raises(BundleError, match="foreign directions"):
        Bundle.open(copy)


# ---------------------------------------------------------------- content that does not fit


def test_wrong_probe_stops_the_engine(copy):
    hair_model(copy / "hair.onnx", seed=5)
    relist(copy, "hair.onnx")
    with pytest.raises(EngineError, match=r"self-test of hair.onnx"):
        Bundle.open(copy).hair_engine()


def test_network_of_another_size_is_refused(copy):
    edit(copy, lambda m: m["hair"].update(input_size=224))
    message = r"hair\.onnx has tensors .*24, 24, 3.* but the manifest declares .*224, 224, 3"
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy).hair_engine()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "'w_avg' must be float .*, got nothing"),
        ({"w_avg": np.zeros(5, np.float32)}, r"got float32 \[5\]"),
        ({"w_avg": np.zeros(Z, np.int32)}, r"got int32 \[6\]"),
        ({"w_avg": np.full(Z, np.nan, np.float32)}, "holds NaN"),
    ],
)
def test_wrong_constants(copy, arrays, message):
    save_file(arrays, copy / "net/constants.safetensors")
    relist(copy, "net/constants.safetensors")
    edit(copy, lambda m: m.pop("directions"))
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy).w_avg()


def test_directions_must_have_every_group(copy):
    edit(copy, lambda m: m["directions"].update(groups=["hhh", "hhl", "lll"]))
    with pytest.raises(BundleError, match=r"'eyes' must be float \[3, 6\], got float64 \[2, 6\]"):
        Bundle.open(copy).directions()


BAD_GALLERIES = {
    "short": ([ROW, ROW[:-1]], "line 3: 10 columns instead of 11"),
    "text": ([[*ROW[:-1], "x"]], "line 2: v8 is 'x'"),
    "nan": ([["a", "hhh", "nan", *range(8)]], "line 2: v0 is 'nan'"),
    "overflow": ([["a", "hhh", "1e39", *range(8)]], "line 2: v0 is '1e39'"),
    "twice": ([ROW, ROW], "line 3: the name 'a' is used twice"),
    "name": ([["../a", *ROW[1:]]], r"line 2: name '\.\./a' cannot be used in a file name"),
    "no name": ([["", *ROW[1:]]], "line 2: name ''"),
    "group": ([["a", "xyz", *range(9)]], "line 2: group 'xyz' is not one of hhh, lll"),
    "count": ([ROW], "has 1 faces, the manifest says 2"),
}


@pytest.mark.parametrize("case", BAD_GALLERIES)
def test_wrong_gallery_names_the_line(copy, case):
    rows, message = BAD_GALLERIES[case]
    write_gallery(copy / "gallery.csv", rows)
    relist(copy, "gallery.csv")
    with pytest.raises(BundleError, match=rf"gallery\.csv.*{message}"):
        Bundle.open(copy).gallery()


def test_gallery_with_other_columns(copy):
    write_gallery(copy / "gallery.csv", [ROW], width=8)
    relist(copy, "gallery.csv")
    with pytest.raises(BundleError, match=r"line 1: the columns must be name, group, v0 \.\.\. v8"):
        Bundle.open(copy).gallery()


@pytest.mark.parametrize(
    ("role", "flag"),
    [
        ("generator", "--generator"),
        ("directions", "--directions"),
        ("gallery", "--gallery"),
        ("hair finder", "--hair"),
    ],
)
def test_missing_role_says_how_to_get_it(staging, tmp_path, role, flag):
    only_hair = role != "hair finder"
    keep = {"directions": None, "gallery": None, **({"generator": None} if only_hair else {"hair": None})}
    bundle = write(tmp_path / "partial", staging, **keep)
    uses = {
        "generator": bundle.generator_engines,
        "directions": bundle.directions,
        "gallery": bundle.gallery,
        "hair finder": bundle.hair_engine,
    }
    with pytest.raises(BundleError, match=f"bundle 'small' has no {role}: build one with `ohlora bundle build {flag}"):
        uses[role]()


def test_directions_belong_to_the_latent_space_not_to_one_size(copy: Path) -> None:
    """Networks for other sizes, precisions and fast ends share the mapping and the weights."""
    manifest = Bundle.open(copy).manifest
    assert manifest.generator is not None
    assert manifest.directions is not None
    assert manifest.latent_identity == manifest.generator_identity == manifest.directions.generator_sha256
    known = json.loads(manifest.to_json())
    known["generator"]["state_sha256"] = "ab" * 32
    identity = BundleManifest.model_validate(known).latent_identity
    assert identity != manifest.generator_identity
    assert BundleManifest.model_validate(known).directions == manifest.directions, "bound as earlier bundles are"
    known["directions"]["generator_sha256"] = identity
    known["files"][manifest.generator.synthesis]["sha256"] = "0" * 64
    assert BundleManifest.model_validate(known).latent_identity == identity
    for change in ("mapping", "constants", "state"):
        other = json.loads(json.dumps(known))
        if change == "state":
            other["generator"]["state_sha256"] = "cd" * 32
        else:
            other["files"][known["generator"][change]]["sha256"] = "1" * 64
        with pytest.raises(ValueError, match="foreign directions"):
            BundleManifest.model_validate(other)
