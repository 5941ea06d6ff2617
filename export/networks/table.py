"""The table of networks that have a graph: kinds of weights, graphs, options. A further network is one entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from ohlora.errors import InvalidInputError
from ohlora.export.graphs.mtcnn import NETS, SOURCE
from ohlora.export.networks import graphs, mtcnn
from ohlora.export.networks.compare import EXACT
from ohlora.export.networks.entry import Arrays, GraphExport, NetworkExport, Options
from ohlora.export.rewrites.generator import COLLAPSES
from ohlora.training import checkpoints
from ohlora.training.checkpoints import KINDS
from ohlora.training.data.parsing_classes import NAMES11
from ohlora.training.directions.reader import Reader, load_reader
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.cvae_encoder import CvaeEncoder
from ohlora.training.nets.effisegnet import EffiSegNet
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.nets.score_cnns import ATTRIBUTES, ClassifierCnn, HairstyleCnn, MergedCnn, PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator
from ohlora.training.weights.student import load_student


def of_part(part: str) -> tuple[str, ...]:
    """Kinds of published files that hold this part of a GAN."""
    return tuple(name for name, kind in KINDS.items() if kind.part == part and name != V5_KIND)


V5_KIND = "discriminator-finetune-v5"
OWN_STUDENT, OWN_PARSER, OWN_READER = "student", "parsing-student", "portrait-reader"  # written by `ohlora train`
INPUTS = ("uint8", "float32")


def from_checkpoint(kind: str, path: Path | None) -> nn.Module:
    return checkpoints.load(kind, needed(kind, path))


def from_own(kind: str, path: Path | None) -> nn.Module:
    """Students and readers, which have file formats of their own; published students by their kind."""
    file = needed(kind, path)
    if kind == OWN_READER:
        return load_reader(file)
    if kind in (OWN_STUDENT, OWN_PARSER):
        return load_student(file, outputs=1 if kind == OWN_STUDENT else len(NAMES11))
    return checkpoints.load(kind, file)


def needed(kind: str, path: Path | None) -> Path:
    if path is None:
        raise InvalidInputError(f"weights of kind '{kind}' are in a file: give its path")
    return path


def _cnn(name: str, module: type[nn.Module], attribute: str | None = None) -> NetworkExport:
    graph = GraphExport(
        name,
        graphs.build_scores,
        graphs.reference_scores,
        graphs.faces_of(graphs.CNN_SIZE),
        {"scores": EXACT["score"]},
    )
    return NetworkExport(name, (name,), module, (graph,), from_checkpoint, attribute=attribute)


def _parser(
    name: str,
    kinds: tuple[str, ...],
    module: type[nn.Module],
    build: Callable[[Any, Options], onnx.ModelProto],
    reference: Callable[[Any, Arrays, Options], Arrays],
    side: int,
    load: Callable[[str, Path | None], nn.Module] = from_checkpoint,
) -> NetworkExport:
    graph = GraphExport(name, build, reference, graphs.faces_of(side), {"parsing": EXACT["classes"]})
    return NetworkExport(name, kinds, module, (graph,), load)


def _face_network(name: str) -> GraphExport:
    outputs = {"probability": EXACT["score"], "box": EXACT["score"], "landmarks": EXACT["score"]}
    return GraphExport(name, mtcnn.builder(name), mtcnn.reference(name), mtcnn.pictures(name), outputs)


GENERATOR_GRAPHS = (
    GraphExport(
        "mapping",
        graphs.build_mapping,
        graphs.reference_mapping,
        graphs.latents,
        {"w": EXACT["latent"], "mapping_split1": EXACT["latent"]},
    ),
    GraphExport(
        "synthesis",
        graphs.build_synthesis,
        graphs.reference_synthesis,
        graphs.styles,
        {"image": EXACT["image"]},
    ),
    GraphExport(
        "mapping_end",
        graphs.build_mapping_end,
        graphs.reference_mapping_end,
        graphs.branches,
        {"w": EXACT["latent"], "mapping_split2": EXACT["latent"]},
        needed=lambda module: bool(module.config.split_size),
    ),
)

_TABLE = (
    NetworkExport(
        "generator",
        of_part("generator"),
        Generator,
        GENERATOR_GRAPHS,
        from_checkpoint,
        {"collapse": COLLAPSES},
    ),
    NetworkExport(
        "discriminator",
        of_part("discriminator"),
        Discriminator,
        (
            GraphExport(
                "discriminator",
                graphs.build_discriminator,
                graphs.reference_discriminator,
                graphs.judged,
                {"score": EXACT["score"]},
            ),
        ),
        from_checkpoint,
        # batch: minibatch standard deviation over the batch, as defined. alone: each picture as a batch of its own.
        {"statistics": ("batch", "alone"), "input": INPUTS},
        rows_depend=lambda options: options["statistics"] == "batch",
    ),
    NetworkExport(
        "discriminator-v5",
        (V5_KIND,),
        V5Discriminator,
        (
            GraphExport(
                "discriminator-v5",
                graphs.build_v5_discriminator,
                graphs.reference_v5_discriminator,
                graphs.judged,
                {"score": EXACT["score"]},
            ),
        ),
        from_checkpoint,
        {"input": INPUTS},
    ),
    NetworkExport(
        "student",
        (OWN_STUDENT, "effisegnet-v4"),
        EffiSegNet,
        (
            GraphExport(
                "student",
                graphs.build_student,
                graphs.reference_student,
                graphs.faces_of(graphs.SIZE),
                {"hair": EXACT["mask"]},
            ),
        ),
        from_own,
    ),
    _parser(
        "parsing", (OWN_PARSER,), EffiSegNet, graphs.build_parsing, graphs.reference_parsing, graphs.SIZE, from_own
    ),
    _parser(
        "facexformer",
        ("facexformer",),
        FaceXFormer,
        graphs.build_facexformer,
        graphs.reference_facexformer,
        graphs.SIZE,
    ),
    _parser("bisenet", ("bisenet-19",), BiSeNet, graphs.build_bisenet, graphs.reference_bisenet, graphs.BISENET_SIZE),
    *(_cnn(f"cnn-{attribute}", ClassifierCnn, attribute) for attribute in ATTRIBUTES),
    _cnn("cnn-property", PropertyCnn),
    _cnn("cnn-hairstyle", HairstyleCnn),
    _cnn("cnn-merged", MergedCnn),
    NetworkExport(
        "reader",
        (OWN_READER,),
        Reader,
        (
            GraphExport(
                "reader",
                graphs.build_reader,
                graphs.reference_reader,
                graphs.faces_for_reader,
                {"parameters": EXACT["score"]},
            ),
        ),
        from_own,
    ),
    NetworkExport(
        "cvae-encoder",
        ("cvae-encoder-v3",),
        CvaeEncoder,
        (
            GraphExport(
                "cvae-encoder",
                graphs.build_encoder,
                graphs.reference_encoder,
                graphs.labelled_faces,
                {"mean": EXACT["latent"], "log_variance": EXACT["latent"]},
            ),
        ),
        from_checkpoint,
    ),
    NetworkExport("mtcnn", (SOURCE,), mtcnn.FaceNetworks, tuple(map(_face_network, NETS)), mtcnn.load),
)

NETWORKS: dict[str, NetworkExport] = {network.name: network for network in _TABLE}
