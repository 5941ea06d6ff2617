"""`ohlora train hairzoo | hairzoo-data | hairzoo-inference`: any encoder and decoder of segmentation_models_pytorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options

SHOWN_FAILURES = 20


def require_zoo() -> None:
    """Raises InvalidInputError naming the extra when segmentation_models_pytorch or PyTorch is not installed."""
    import importlib.util

    from ohlora.base.installation import install_command
    from ohlora.cli.train.requirements import require_training
    from ohlora.errors import InvalidInputError

    require_training()
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        raise InvalidInputError(f"this command needs segmentation_models_pytorch: {install_command('train')}")


def hairzoo(
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folder of the recipe's layout; faces: repeatable.")
    ] = None,
    out: options.Out = Path("runs/hairzoo"),
    recipe: Annotated[str, typer.Option("--recipe", help="celeb, korean (both as documented) or faces.")] = "celeb",
    encoder_type: Annotated[
        str | None, typer.Option("--encoder-type", help="E.g. timm-efficientnet-b0, se_resnext50_32x4d; see --list.")
    ] = None,
    decoder_type: Annotated[
        str | None, typer.Option("--decoder-type", help="Unet, UnetPlusPlus, FPN ...; see --list.")
    ] = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            "--encoder-weights",
            help="none, documented, imagenet, noisy-student (these are downloaded), installed, or a file.",
        ),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Go on from a checkpoint (.pth, published layout).")
    ] = None,
    img_size: Annotated[int | None, typer.Option("--img-size", help="Pixels a side, a multiple of 32.")] = None,
    data_type: Annotated[str | None, typer.Option("--data-type", help="celeb, korean or faces.")] = None,
    light: Annotated[
        bool | None, typer.Option("--light/--heavy", help="Korean set: one row per source, or all.")
    ] = None,
    fold: Annotated[int | None, typer.Option("--fold", help="0 to 4: which fifth is held out.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1)] = None,
    accumulation: Annotated[int | None, typer.Option("--accumulation", min=1, help="Batches per step.")] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="bce-dice (documented) or dice.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="GradualWarmupSchedulerV2, ReduceLROnPlateau, CosineAnnealingLR or CosineAnnealingWarmRestarts.",
        ),
    ] = None,
    encoder_lr: Annotated[float | None, typer.Option("--encoder-lr", help="Base learning rate.")] = None,
    min_lr: Annotated[float | None, typer.Option("--min-lr", help="Least learning rate.")] = None,
    floor: Annotated[
        bool | None,
        typer.Option("--floor/--no-floor", help="Keep --min-lr always, or ignore it where the published program does."),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", min=0)] = None,
    clip_norm: Annotated[float | None, typer.Option("--clip-norm", min=0, help="Of the gradient; 0 = off.")] = None,
    augment: Annotated[bool | None, typer.Option("--augment/--no-augment")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16, or fp16 (CUDA).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    num_workers: Annotated[int, typer.Option("--num-workers", min=0, help="Processes that read pictures.")] = 0,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    list_names: Annotated[bool, typer.Option("--list", help="Print the encoders and decoders and exit.")] = False,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train a hair-segmentation network of any encoder and decoder. Stopped runs resume from the same --out.

    Example: `ohlora train hairzoo --recipe celeb --data data/CelebAMask-HQ --decoder-type FPN --out runs/fpn`
    """
    import json as json_module

    require_zoo()
    if list_names:
        show_names(json)
        return
    from ohlora.training.hairzoo.config import preset
    from ohlora.training.hairzoo.loop import run
    from ohlora.training.hairzoo.zoo_report import epoch_line

    changes: dict[str, Any] = {
        "encoder_type": encoder_type, "decoder_type": decoder_type, "encoder_weights": encoder_weights,
        "start_from": None if start_from is None else str(start_from), "image_size": img_size, "data_type": data_type,
        "light": light, "fold": fold, "epochs": epochs, "batch_size": batch_size, "accumulation": accumulation,
        "loss": loss, "scheduler": scheduler, "encoder_lr": encoder_lr, "min_lr": min_lr, "floor": floor,
        "weight_decay": weight_decay, "clip_norm": clip_norm, "augment": augment, "precision": precision, "seed": seed,
    }  # fmt: skip
    config = preset(recipe, **{key: value for key, value in changes.items() if value is not None})
    result = run(
        config,
        data or [],
        out,
        workers=num_workers,
        resume=not restart,
        accelerator=accelerator,
        report=lambda row: typer.echo(epoch_line(row, config.epochs), err=True),
        note=lambda text: typer.echo(text, err=True),
    )
    if json:
        typer.echo(json_module.dumps(result))
        return
    figures = ", ".join(f"{name} {result['held_out'][name]:.4f}" for name in ("iou", "dice", "recall", "precision"))
    typer.echo(f"network -> {out / result['checkpoint']}")
    typer.echo(
        f"best epoch {result['best_epoch'] + 1} of {result['epochs']}, Dice {result['best_dice']:.4f}; all "
        f"{result['pictures']['held_out']} held-out pictures pooled: {figures}"
    )


def show_names(as_json: bool) -> None:
    """The encoders and decoders of the installed library."""
    import json

    from segmentation_models_pytorch.encoders import get_encoder_names

    from ohlora.training.hairzoo.models import DECODERS, TIMM

    names = {"encoders": list(get_encoder_names()), "decoders": list(DECODERS)}
    if as_json:
        typer.echo(json.dumps(names))
        return
    typer.echo("decoders: " + ", ".join(names["decoders"]))
    typer.echo("encoders: " + ", ".join(names["encoders"]))
    typer.echo(f"and {TIMM}NAME for any feature extractor of timm (DPT: {TIMM}vit...)")


def hairzoo_data(
    source: Annotated[Path, typer.Argument(help="The folder that CelebAMask-HQ.zip unpacks to.")],
    out: options.Out = Path("data/CelebAMask-HQ"),
    json: options.Json = False,
) -> None:
    """Make the zoo's images/ and masks/ from CelebAMask-HQ's annotation folders. The same command goes on.

    Example: `ohlora train hairzoo-data downloads/CelebAMask-HQ --out data/CelebAMask-HQ`
    """
    import json as json_module

    from ohlora.cli.progress import Progress

    require_zoo()
    from ohlora.training.hairzoo.celeb import NO_MASK, find_pictures, prepare

    with Progress(max(len(find_pictures(source)), 1), "pictures", quiet=json) as progress:

        def started(count: int) -> None:
            progress.total = max(count, 1)

        pairs, copied, left_out = prepare(source, out, started, progress.advance)
    without = [name for name, why in left_out.items() if why == NO_MASK]
    if json:
        summary = {"out": str(out), "pictures": pairs, "copied": copied, "left_out": left_out}
        typer.echo(json_module.dumps({**summary, "seconds": round(progress.seconds, 2)}))
        return
    shown = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
    typer.echo(f"{pairs} pictures with masks ({copied} copied now) -> {out}")
    if left_out:
        others = len(left_out) - len(without)
        typer.echo(
            f"left out: {len(without)} pictures without a hair mask{f' ({shown})' if without else ''}, {others} masks "
            "without a picture; --json lists them"
        )


def hairzoo_inference(
    checkpoint: Annotated[Path, typer.Argument(help="ENCODER_DECODER_foldN_....pth, published or ours.")],
    sources: Annotated[list[Path], typer.Argument(help="Pictures or folders of pictures.")],
    out: options.Out = Path("result"),
    encoder_type: Annotated[
        str | None, typer.Option("--encoder-type", help="Where the file's name does not say it.")
    ] = None,
    decoder_type: Annotated[
        str | None, typer.Option("--decoder-type", help="Where the file's name does not say it.")
    ] = None,
    img_size: Annotated[
        int | None, typer.Option("--img-size", help="Default: as trained (report.json beside the file), else 512.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also look into subfolders.")] = False,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    json: options.Json = False,
) -> None:
    """Find hair: NAME_mask.png, and picture and mask side by side in NAME_output.jpg.

    Example: `ohlora train hairzoo-inference timm-efficientnet-b0_UnetPlusPlus_fold0_light.pth demo/1.jpg --out result`
    """
    import json as json_module

    from ohlora.cli.progress import Progress
    from ohlora.cli.sources import without
    from ohlora.io.images import list_images

    require_zoo()
    from ohlora.training.hairzoo.inference import open_segmenter, segment

    pictures = without(list_images(list(sources), recursive), out)
    segmenter = open_segmenter(checkpoint, encoder_type, decoder_type, img_size, accelerator)
    with Progress(len(pictures), "pictures", quiet=json) as progress:
        hair, failed = segment(segmenter, pictures, out, progress.advance)
    if json:
        summary = {"out": str(out), "pictures": len(hair), "img_size": segmenter.size, "hair": hair, "failed": failed}
        typer.echo(json_module.dumps({**summary, "seconds": round(progress.seconds, 3)}))
    else:
        for error in list(failed.values())[:SHOWN_FAILURES]:
            typer.echo(error, err=True)
        typer.echo(
            f"{len(hair)} pictures at {segmenter.size} pixels, {progress.seconds:.1f} s -> {out}"
            + (f"; {len(failed)} failed" if failed else "")
        )
    raise typer.Exit(1 if failed else 0)
