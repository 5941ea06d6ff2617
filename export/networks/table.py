"""The table of networks that have a graph: kinds of weights, graphs, options. A further network is one entry."""

from __future__ import annotations

from torch import nn

from ohlora.bundle.photo.rewrites import HAARS
from ohlora.export.graphs.mtcnn import NETS, SOURCE
from ohlora.export.networks import graphs
from ohlora.export.networks.entry import GraphExport, NetworkExport
from ohlora.export.rewrites.generator import COLLAPSES
from ohlora.training.checkpoints import KINDS
from ohlora.training.directions.reader import Reader
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.cvae_encoder import CvaeEncoder
from ohlora.training.nets.effisegnet import EffiSegNet
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.score_cnns import ATTRIBUTES, ClassifierCnn, HairstyleCnn, MergedCnn, PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator

V5_KIND = "discriminator-finetune-v5"
OWN_STUDENT, OWN_PARSER, OWN_READER = "student", "parsing-student", "portrait-reader"  # written by `ohlora train`
INPUTS = ("uint8", "float32")


def of_part(part: str) -> tuple[str, ...]:
    """Kinds of published files that hold this part of a GAN."""
    return tuple(name for name, kind in KINDS.items() if kind.part == part and name != V5_KIND)


def _one(module: type[nn.Module], graph: GraphExport, *kinds: str, attribute: str | None = None) -> NetworkExport:
    """A network of one graph, without options. kinds: those of its name where none are given."""
    return NetworkExport(graph.name, kinds or (graph.name,), module, (graph,), attribute=attribute)


_TABLE = (
    NetworkExport("generator", of_part("generator"), Generator, graphs.GENERATOR, {"collapse": COLLAPSES}),
    NetworkExport(
        "mobilestylegan",
        ("mobilestylegan-ffhq",),
        MobileStyleGAN,
        graphs.PHOTO_GENERATOR,
        {"size": tuple(graphs.SIZES), "haar": HAARS},
    ),
    NetworkExport(
        "discriminator",
        of_part("discriminator"),
        Discriminator,
        (graphs.DISCRIMINATOR,),
        # batch: minibatch standard deviation over the batch, as defined. alone: each picture as a batch of its own.
        {"statistics": ("batch", "alone"), "input": INPUTS},
        rows_depend=lambda options: options["statistics"] == "batch",
    ),
    NetworkExport("discriminator-v5", (V5_KIND,), V5Discriminator, (graphs.V5_DISCRIMINATOR,), {"input": INPUTS}),
    _one(EffiSegNet, graphs.STUDENT, OWN_STUDENT, "effisegnet-v4"),
    _one(EffiSegNet, graphs.PARSING, OWN_PARSER),
    _one(FaceXFormer, graphs.FACEXFORMER),
    _one(BiSeNet, graphs.BISENET, "bisenet-19"),
    *(_one(ClassifierCnn, graphs.score_graph(f"cnn-{name}"), attribute=name) for name in ATTRIBUTES),
    _one(PropertyCnn, graphs.score_graph("cnn-property")),
    _one(HairstyleCnn, graphs.score_graph("cnn-hairstyle")),
    _one(MergedCnn, graphs.score_graph("cnn-merged")),
    _one(Reader, graphs.READER, OWN_READER),
    _one(CvaeEncoder, graphs.CVAE_ENCODER, "cvae-encoder-v3"),
    NetworkExport("mtcnn", (SOURCE,), graphs.FaceNetworks, tuple(map(graphs.face_graph, NETS))),
)

NETWORKS: dict[str, NetworkExport] = {network.name: network for network in _TABLE}
