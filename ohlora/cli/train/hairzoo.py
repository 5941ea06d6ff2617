"""`ohlora train hairzoo | hairzoo-data | hairzoo-inference`: any encoder and decoder of segmentation_models_pytorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ohlora.base.text import first_of
from ohlora.cli.report import Results, note
from ohlora.cli.train.machine import Accelerator, Loop
from ohlora.cli.train.recipe_options import Changes, RecipeFields


def hairzoo(
    *,
    changes: Annotated[Changes, RecipeFields("hairzoo.config:ZooConfig")],
    data: Annotated[list[Path] | None, Option(help="Folder of the recipe's layout; faces: repeatable.")] = None,
    recipe: Annotated[str, Option(help="celeb, korean (both as documented) or faces.")] = "celeb",
    num_workers: Annotated[int, Option(min=0, help="Processes that read pictures.")] = 0,
    list_names: Annotated[bool, Option("--list", help="Print the encoders and decoders and exit.")] = False,
    how: Loop = Loop(out=Path("runs/hairzoo")),
) -> None:
    """Train a hair-segmentation network of any encoder and decoder. Stopped runs resume from the same --out.

    Example: `ohlora train hairzoo --recipe celeb --data data/CelebAMask-HQ --decoder-type FPN --out runs/fpn`
    """
    if list_names:
        show_names(how)
        return
    from ohlora.training.hairzoo.config import preset
    from ohlora.training.hairzoo.loop import epoch_line, run

    config = preset(recipe, **changes)
    result = run(
        config,
        data or [],
        how.out,
        workers=num_workers,
        **how.arguments,
        report=lambda row: note(epoch_line(row, config.epochs)),
        note=note,
    )
    figures = ", ".join(f"{name} {result['held_out'][name]:.4f}" for name in ("iou", "dice", "recall", "precision"))
    how.tell(
        result,
        f"network -> {how.out / result['checkpoint']}",
        f"best epoch {result['best_epoch'] + 1} of {result['epochs']}, Dice {result['best_dice']:.4f}; all "
        f"{result['pictures']['held_out']} held-out pictures pooled: {figures}",
    )


def show_names(how: Results) -> None:
    """The encoders and decoders of the installed library."""
    from segmentation_models_pytorch.encoders import get_encoder_names

    from ohlora.training.hairzoo.models import DECODERS, TIMM

    names = {"encoders": list(get_encoder_names()), "decoders": list(DECODERS)}
    how.tell(
        names,
        "decoders: " + ", ".join(names["decoders"]),
        "encoders: " + ", ".join(names["encoders"]),
        f"and {TIMM}NAME for any feature extractor of timm (DPT: {TIMM}vit...)",
    )


def hairzoo_data(
    *,
    source: Annotated[Path, Argument(help="The folder that CelebAMask-HQ.zip unpacks to.")],
    how: Results = Results(out=Path("data/CelebAMask-HQ")),
) -> None:
    """Make the zoo's images/ and masks/ from CelebAMask-HQ's annotation folders. The same command goes on.

    Example: `ohlora train hairzoo-data downloads/CelebAMask-HQ --out data/CelebAMask-HQ`
    """
    from ohlora.cli.progress import Progress
    from ohlora.training.hairzoo.celeb import NO_MASK, find_pictures, prepare

    with Progress(max(len(find_pictures(source)), 1), "pictures") as progress:
        pairs, copied, left_out = prepare(source, how.out, progress.expect, progress.advance)
    without = [name for name, why in left_out.items() if why == NO_MASK]
    summary = {"out": str(how.out), "pictures": pairs, "copied": copied, "left_out": left_out}
    lines = [f"{pairs} pictures with masks ({copied} copied now) -> {how.out}"]
    if left_out:
        shown = first_of(without)
        others = len(left_out) - len(without)
        lines.append(
            f"left out: {len(without)} pictures without a hair mask{f' ({shown})' if without else ''}, {others} masks "
            "without a picture; --json lists them"
        )
    how.tell({**summary, "seconds": round(progress.seconds, 2)}, *lines)


def hairzoo_inference(
    *,
    checkpoint: Annotated[Path, Argument(help="ENCODER_DECODER_foldN_....pth, published or ours.")],
    sources: Annotated[list[Path], Argument(help="Pictures or folders of pictures.")],
    encoder_type: Annotated[str | None, Option(help="Where the file's name does not say it.")] = None,
    decoder_type: Annotated[str | None, Option(help="Where the file's name does not say it.")] = None,
    img_size: Annotated[int | None, Option(help="Default: as trained (report.json beside the file), else 512.")] = None,
    recursive: Annotated[bool, Option("--recursive", "-r", help="Also look into subfolders.")] = False,
    accelerator: Accelerator = "auto",
    how: Results = Results(out=Path("result")),
) -> None:
    """Find hair: NAME_mask.png, and picture and mask side by side in NAME_output.jpg.

    Example: `ohlora train hairzoo-inference timm-efficientnet-b0_UnetPlusPlus_fold0_light.pth demo/1.jpg --out result`
    """
    from ohlora.cli.progress import Progress
    from ohlora.cli.sources import without
    from ohlora.io.images import list_images
    from ohlora.training.hairzoo.inference import open_segmenter, segment

    pictures = without(list_images(list(sources), recursive), how.out)
    segmenter = open_segmenter(checkpoint, encoder_type, decoder_type, img_size, accelerator)
    with Progress(len(pictures), "pictures") as progress:
        hair, failed = segment(segmenter, pictures, how.out, progress.advance)
    summary = {"out": str(how.out), "pictures": len(hair), "img_size": segmenter.size, "hair": hair, "failed": failed}
    line = f"{len(hair)} pictures at {segmenter.size} pixels, {progress.seconds:.1f} s -> {how.out}"
    line += f"; {len(failed)} failed" if failed else ""
    how.end({**summary, "seconds": round(progress.seconds, 3)}, list(failed.values()), line)
