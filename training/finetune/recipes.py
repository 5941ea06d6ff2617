"""The documented fine-tuning recipes, as data (docs/spec/stylegan.md, sections 7.3, 7.4, 8, 9 and 13).

Patterns of tensors are published names or the beginning of one up to a dot. Numbered layers may be cut like a Python
list, so that they mean the same in networks of other sizes: "layer[-3:]" is layer12, layer13 and layer14 of the
documented discriminator, and the last three layers of any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ohlora.errors import InvalidInputError

FAMILIES = ("gan", "cvae", "score-guided")
PROPERTIES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std")
EXPRESSIONS = ("eyes", "mouth", "pose")
LABEL_SOURCES = ("scores", "zeros", "random")
DISCRIMINATORS = ("stylegan", "property-cnn", "none")
LAST_BATCHES = ("keep", "drop")
GENDER_INPUTS = ("unit", "signed")
DUMPS = ("grid", "files")
FRESH_LABEL = ("mapping.dense0.weight", "mapping.label_weight")
# What may differ between a run and the one that resumes it: it does not change the weights.
WATCHING = ("epochs", "log_every", "log_first", "log_every_first_epoch", "dump", "checkpoint_minutes")


@dataclass(frozen=True)
class Recipe:
    """One recipe. Defaults are the values that most versions share.

    Labels
        properties: what the label holds, in this order. labels: "scores" (of a table), "zeros", or "random" (normal).
    Networks
        embedding_size: width the label is embedded to, 0 = appended to z as it is. split_size: width of the second
        mapping branch, 0 = none. conditional_truncation: towards the mean w of the sample's own label.
        starts_from: documented start weights. smooth_start: take the averaged copy of a wrapped file (P16).
        generator_redrawn, discriminator_redrawn: patterns of start tensors that are replaced by fresh ones, and of
        tensors that the start weights lack; nothing else may differ from the start.
        generator_trained, discriminator_trained: patterns of tensors that are trained.
        discriminator: "stylegan", "property-cnn" (v5) or "none". group: of its minibatch standard deviation.
    Optimisation (AdamW)
        cosine: T_max in epochs of a cosine schedule stepped once an epoch, 0 = constant rate (P2).
        encoder_rate: of the v3 encoder. last_batch: keep or drop a batch that is shorter than batch_size.
        epochs: 0 = until the stop rule; of v2, step groups. batches_per_epoch: None = once through the pictures.
        min_epochs, patience: stop after so many epochs without a better loss, but not before min_epochs; 0 = no rule.
    The generator while it trains
        mixing: probability of style mixing. random_noise: fresh noise, or the stored maps. psi, centers: truncation
        and the latents a label's mean w is taken of. w_avg_decay: 1 = w_avg stays.
    Losses
        r1_gamma: gradient penalty, at every update. repeat: rule of `repeat_rule.RULES`. dropout: on in the v5
        discriminator while it trains. scored: properties in the loss of v2 and v3. gender_weight, mean_weight,
        log_variance_weight: of v3's loss parts. warm: v2, share of the fixed start pair after k groups = warm ** k.
    Scorers (P5, P10, P11)
        train_scorer: v2, the property CNN is trained too. scorers_train_mode: their dropout is on while they score in
        training. gender_input: range of the pictures the gender CNN of v3 sees, "unit" [0,1] or "signed" [-1,1].
    Data
        jitter: brightness and contrast, up to this share.
    Watching
        log_every: batches from one log row to the next; log_every_first_epoch: the same in the first epoch, 0 = no
        other; log_first: the first so many batches are logged too. test: plan of `trial_pictures.PLANS`.
        dump: pictures as one grid, or as the documented single files. test_kept, test_latents: v3, latents kept in an
        epoch and tested at its end. test_correlation, test_error: v3, what a latent must reach for eyes, mouth, pose.
    """

    version: str
    family: str = "gan"
    properties: tuple[str, ...] = PROPERTIES
    labels: str = "scores"
    embedding_size: int = 16
    split_size: int = 0
    conditional_truncation: bool = False
    starts_from: str = "v1"
    smooth_start: bool = False
    generator_redrawn: tuple[str, ...] = ()
    discriminator_redrawn: tuple[str, ...] = ()
    generator_trained: tuple[str, ...] = ("mapping",)
    discriminator_trained: tuple[str, ...] = ("layer[-3:]",)
    discriminator: str = "stylegan"
    group: int = 16
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-4
    encoder_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    cosine: int = 0
    batch_size: int = 8
    epochs: int = 500
    batches_per_epoch: int | None = None
    last_batch: str = "keep"
    min_epochs: int = 0
    patience: int = 0
    mixing: float = 0.0
    random_noise: bool = True
    psi: float = 1.0
    centers: int = 1000
    w_avg_decay: float = 0.995
    r1_gamma: float = 10.0
    repeat: str = "v1"
    dropout: bool = True
    scored: tuple[str, ...] = ()
    gender_weight: float = 1.0
    mean_weight: float = 0.2
    log_variance_weight: float = 0.05
    warm: float = 0.9
    train_scorer: bool = False
    scorers_train_mode: bool = False
    gender_input: str = "unit"
    jitter: float = 0.0
    log_every: int = 10
    log_first: int = 10
    log_every_first_epoch: int = 0
    test: str = ""
    dump: str = "grid"
    test_kept: int = 100
    test_latents: int = 30
    test_correlation: tuple[float, ...] = (0.77, 0.85, 0.82)
    test_error: tuple[float, ...] = (1.0, 0.6, 1.4)
    checkpoint_minutes: float = 5.0
    seed: int = 7

    def __post_init__(self) -> None:
        for name, allowed in (
            ("family", FAMILIES),
            ("labels", LABEL_SOURCES),
            ("discriminator", DISCRIMINATORS),
            ("last_batch", LAST_BATCHES),
            ("gender_input", GENDER_INPUTS),
            ("dump", DUMPS),
        ):
            if getattr(self, name) not in allowed:
                raise self._wrong(name, f"must be {' or '.join(allowed)}")
        for name in ("properties", "scored"):
            values = getattr(self, name)
            unknown = [value for value in values if value not in PROPERTIES]
            if unknown or len(set(values)) != len(values):
                raise self._wrong(name, f"must be different ones of {', '.join(PROPERTIES)}")
        if not self.properties:
            raise self._wrong("properties", "must hold at least one property")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise self._wrong(name, f"must be in [{low:g}, {high:g}]")
        for name in ("learning_rate", "discriminator_rate", "encoder_rate"):
            if not 0 < getattr(self, name) < 1:
                raise self._wrong(name, "must be more than 0 and less than 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise self._wrong("betas", "must be two numbers in [0, 1)")
        if any(len(values) != len(EXPRESSIONS) for values in (self.test_correlation, self.test_error)):
            raise self._wrong("test_correlation and test_error", f"must hold {len(EXPRESSIONS)} numbers each")

    def _wrong(self, name: str, rule: str) -> InvalidInputError:
        value = getattr(self, name, "")
        return InvalidInputError(f"recipe {self.version}: {name} {rule}, got {value!r}")

    @property
    def label_size(self) -> int:
        return len(self.properties)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Names of the label's columns in a score table."""
        return tuple(f"{name}_score" for name in self.properties)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one that began it, as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in WATCHING
        }


_BIG = 10**9
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("embedding_size", 0, _BIG), ("split_size", 0, _BIG), ("group", 1, _BIG), ("weight_decay", 0, 1),
    ("cosine", 0, _BIG), ("batch_size", 1, _BIG), ("epochs", 0, _BIG), ("batches_per_epoch", 1, _BIG),
    ("min_epochs", 0, _BIG), ("patience", 0, _BIG), ("mixing", 0, 1), ("psi", 0, 1), ("centers", 1, _BIG),
    ("w_avg_decay", 0, 1), ("r1_gamma", 0, _BIG), ("gender_weight", 0, _BIG), ("mean_weight", 0, _BIG),
    ("log_variance_weight", 0, _BIG), ("warm", 0, 1), ("jitter", 0, 1), ("log_every", 1, _BIG), ("log_first", 0, _BIG),
    ("log_every_first_epoch", 0, _BIG), ("test_kept", 1, _BIG), ("test_latents", 1, _BIG),
    ("checkpoint_minutes", 0, _BIG), ("seed", 0, 2**31 - 1),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "v1": Recipe(
        "v1",
        starts_from="original",
        generator_redrawn=FRESH_LABEL,
        discriminator_redrawn=("layer[-1:]",),
        batch_size=16,
        mixing=0.9,
        test="v1",
    ),
    "v2": Recipe(
        "v2",
        family="score-guided",
        labels="random",
        discriminator="none",
        generator_trained=("mapping", "synthesis"),
        learning_rate=1e-5,
        cosine=20,
        batch_size=16,
        epochs=0,
        batches_per_epoch=50,
        patience=100,
        random_noise=False,
        scored=PROPERTIES[:6],  # background_std, the last, is left out
        log_every=50,
        log_first=0,
        test="v2",
    ),
    "v3": Recipe(
        "v3",
        family="cvae",
        embedding_size=24,
        discriminator="none",
        generator_redrawn=FRESH_LABEL,
        cosine=10,
        epochs=0,
        min_epochs=1000,
        patience=40,
        random_noise=False,
        scored=EXPRESSIONS,
        log_every=20,
        log_first=0,
        test="v3",
    ),
    "v4": Recipe(
        "v4",
        properties=EXPRESSIONS,
        generator_redrawn=FRESH_LABEL,
        discriminator_redrawn=("layer[-1:]",),
        log_every=20,
        test="v4",
    ),
    "v5": Recipe(
        "v5",
        properties=EXPRESSIONS,
        embedding_size=0,
        conditional_truncation=True,
        discriminator="property-cnn",
        generator_redrawn=FRESH_LABEL,
        discriminator_redrawn=("fc1", "fc_final"),
        generator_trained=("mapping", "synthesis"),
        discriminator_trained=("*",),
        batch_size=16,
        psi=0.5,
        repeat="v5",
        jitter=0.1,
        test="v5",
    ),
    "v8": Recipe(
        "v8",
        labels="zeros",
        generator_trained=("mapping", "synthesis.layer[:2]", "synthesis.output[:1]"),
        log_every=50,
        log_every_first_epoch=25,
        test="v8",
    ),
    "v9": Recipe(
        "v9",
        labels="zeros",
        split_size=2048,
        generator_redrawn=("mapping.dense_new0", "mapping.dense_new1"),
        generator_trained=("mapping", "synthesis.layer[:6]", "synthesis.output[:3]"),
        discriminator_trained=("layer[-7:]", "input[-2:]"),
        repeat="v9",
        log_every=50,
        log_every_first_epoch=25,
        test="v9",
    ),
}

# What the published programs did where it is not what is documented or sensible (docs/spec/stylegan.md, section 13).
COMPAT: dict[str, dict[str, Any]] = {
    "v2": {
        "generator_redrawn": ("mapping.dense0.weight",),  # P4: the learned first layer was thrown away
        "train_scorer": True,  # P5
        "scorers_train_mode": True,  # P10
    },
    "v3": {"scorers_train_mode": True, "gender_input": "signed"},  # P10, P11
    "v4": {"mixing": 0.9},  # P3
}


def recipe(name: str, *, compat: bool = False, **changes: Any) -> Recipe:
    """A documented recipe with some fields changed; `compat`: as the published program ran it (`COMPAT`).

    Raises InvalidInputError naming the known recipes, the known fields, or the field whose value is wrong.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"unknown recipe '{name}': choose one of {', '.join(RECIPES)}")
    known = [field.name for field in fields(Recipe) if field.name not in ("version", "family")]
    for field in changes:
        if field not in known:
            raise InvalidInputError(f"recipe {name} has no field '{field}': it has {', '.join(known)}")
    return replace(RECIPES[name], **{**(COMPAT.get(name, {}) if compat else {}), **changes})


def parse_changes(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """ "batch_size=4", "scored=eyes,mouth" ... -> arguments for `recipe(name, ...)`. Raises InvalidInputError."""
    changes: dict[str, Any] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        field = field.strip().replace("-", "_")
        if not equals or not field:
            raise InvalidInputError(f"'{text}' is not understood: write NAME=VALUE, e.g. batch_size=4")
        if field not in Recipe.__dataclass_fields__:
            raise InvalidInputError(f"recipe {name} has no field '{field}': see `ohlora train finetune {name} --show`")
        kind = str(Recipe.__dataclass_fields__[field].type)
        try:
            changes[field] = _parsed(value.strip(), kind)
        except ValueError as error:
            raise InvalidInputError(f"recipe {name}: {field} must be {_KINDS[kind]}, got '{value}'") from error
    return changes


_KINDS = {
    "str": "a name",
    "bool": "true or false",
    "int": "a whole number",
    "int | None": "a whole number or none",
    "float": "a number",
    "tuple[str, ...]": "names with commas between",
    "tuple[float, ...]": "numbers with commas between",
    "tuple[float, float]": "two numbers with a comma between",
}
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _parsed(text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text.lower()]
    if kind == "int" or (kind == "int | None" and text.lower() != "none"):
        return int(text)
    if kind == "int | None":
        return None
    if kind == "float":
        return float(text)
    if kind.startswith("tuple[str"):
        return tuple(filter(None, (part.strip() for part in text.split(","))))
    if kind.startswith("tuple[float"):
        return tuple(float(part) for part in text.split(","))
    return text
