"""`ohlora train finetune-test`: does a conditional generator obey its label?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli import options


def finetune_test(
    generator: Annotated[Path, typer.Argument(help="Fine-tuned generator with a label (.safetensors or .pth).")],
    z: Annotated[
        str,
        typer.Option("--z", help="Row of a z-vector table, FILE.csv:ROW (such as test_zs.csv of a run), or a seed."),
    ] = "0",
    property_cnn: Annotated[
        Path | None, typer.Option("--property-cnn", help="Score the pictures: correlation and error per property.")
    ] = None,
    final: Annotated[
        int, typer.Option("--final", min=0, help="Also so many pictures of the chosen face, near its latent.")
    ] = 0,
    files: Annotated[bool, typer.Option("--files", help="Single PNG files instead of sheets.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the latents near z.")] = 0,
    out: options.Out = Path("runs/finetune-test"),
    json: options.Json = False,
) -> None:
    """Draw 125 labels (eyes, mouth, pose) at one latent and near it, and compare label and score.

    Example: `ohlora train finetune-test runs/v3/generator.safetensors --z test_zs.csv:21 --property-cnn cnn.pth`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training
    from ohlora.errors import InvalidInputError

    require_training()
    from ohlora.training import checkpoints
    from ohlora.training.finetune.cvae_tester import checkpoint_test, final_pictures
    from ohlora.training.finetune.inputs import load_generator
    from ohlora.training.finetune.property_test_files import read_latent
    from ohlora.training.nets.score_cnns import PropertyCnn

    if not generator.is_file():
        raise InvalidInputError(f"no generator {generator}: it is made by ohlora train finetune v3")
    module = load_generator(generator)
    cnn = None if property_cnn is None else checkpoints.load("cnn-property", property_cnn)
    assert cnn is None or isinstance(cnn, PropertyCnn)
    latent = read_latent(z, module.config.z_size)
    result = checkpoint_test(module, latent, out, property_cnn=cnn, seed=seed, dump="files" if files else "grid")
    if final:
        result["final"] = str(final_pictures(module, latent, out / "final_inference_test_v3", count=final, seed=seed))
    if json:
        typer.echo(json_module.dumps({"out": str(out), **result}))
        return
    for name in ("exact", "near"):
        for label, figures in result.get(name, {}).items():
            typer.echo(f"{name}, {label}: correlation {figures['correlation']:.3f}, error {figures['mae']:.3f}")
    typer.echo(f"{result['pictures']} pictures -> {out}")
