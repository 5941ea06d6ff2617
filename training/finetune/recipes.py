"""The documented fine-tuning recipes, as data (docs/spec/stylegan.md, sections 7.3, 7.4, 8, 9 and 13).

Patterns of tensors are published names or the beginning of one up to a dot. Numbered layers may be cut like a Python
list, so that they mean the same in networks of other sizes: "layer[-3:]" is layer12, layer13 and layer14 of the
documented discriminator, and the last three layers of any other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ohlora.base.recipe import check, pick, require_known, setting, settings_of
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from ohlora.training.nets.stylegan import GeneratorConfig
    from ohlora.training.nets.stylegan_discriminator import DiscriminatorConfig

PROPERTIES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std")
EXPRESSIONS = ("eyes", "mouth", "pose")
MAX_SEED = 2**31 - 1
FRESH_LABEL = ("mapping.dense0.weight", "mapping.label_weight")
# What may differ between a run and the one that resumes it: it does not change the weights.
WATCHING = ("epochs", "log_every", "log_first", "log_every_first_epoch", "dump", "checkpoint_minutes")


@dataclass(frozen=True)
class Recipe:
    """One recipe. Defaults are the values that most versions share. The optimizer is AdamW.

    generator_redrawn, discriminator_redrawn: besides these, nothing may differ from the start.
    """

    version: str
    family: Literal["gan", "cvae", "score-guided"] = "gan"
    properties: tuple[str, ...] = setting(PROPERTIES, "What the label holds, in this order.", choices=PROPERTIES)
    labels: Literal["scores", "zeros", "random"] = setting(
        "scores", "Scores of a table, zeros, or normal random numbers."
    )
    embedding_size: int = setting(16, "Width that the label is embedded to; 0 = appended to z as it is.", low=0)
    split_size: int = setting(0, "Width of the second mapping branch; 0 = none.", low=0)
    conditional_truncation: bool = setting(False, "Truncate towards the mean w of the sample's own label.")
    starts_from: str = setting("v1", "Documented start weights.")
    smooth_start: bool = setting(False, "Take the averaged copy of a wrapped file (P16).")
    generator_redrawn: tuple[str, ...] = setting(
        (), "Patterns of start tensors that are drawn afresh, or that the start lacks."
    )
    discriminator_redrawn: tuple[str, ...] = setting((), "The same of the discriminator.")
    generator_trained: tuple[str, ...] = setting(("mapping",), "Patterns of tensors that are trained.")
    discriminator_trained: tuple[str, ...] = setting(("layer[-3:]",), "The same of the discriminator.")
    discriminator: Literal["stylegan", "property-cnn", "none"] = setting("stylegan", "property-cnn: v5.")
    group: int = setting(16, "Pictures of the discriminator's minibatch standard deviation.", low=1)
    learning_rate: float = setting(1e-4, "Of the generator.", above=0, below=1)
    discriminator_rate: float = setting(1e-4, "Learning rate of the discriminator.", above=0, below=1)
    encoder_rate: float = setting(1e-5, "Learning rate of the v3 encoder.", above=0, below=1)
    betas: tuple[float, float] = setting((0.9, 0.999), "Of the optimizer.", low=0, below=1)
    weight_decay: float = setting(0.01, "Of the optimizer.", low=0, high=1)
    cosine: int = setting(
        0, "T_max in epochs of a cosine schedule, stepped once an epoch; 0 = constant rate (P2).", low=0
    )
    batch_size: int = setting(8, "Pictures a step.", low=1)
    epochs: int = setting(500, "0 = until the stop rule; of v2, step groups.", low=0)
    batches_per_epoch: int | None = setting(None, "Default: once through the pictures.", low=1)
    last_batch: Literal["keep", "drop"] = setting("keep", "Of an epoch, where it is shorter than the others.")
    min_epochs: int = setting(0, "Before these, the stop rule does not count.", low=0)
    patience: int = setting(0, "Stop after so many epochs without a better loss; 0 = no rule.", low=0)
    mixing: float = setting(0.0, "Probability of style mixing.", low=0, high=1)
    random_noise: bool = setting(True, "Fresh noise, or the stored maps.")
    psi: float = setting(1.0, "Truncation.", low=0, high=1)
    centers: int = setting(1000, "Latents that a label's mean w is taken of.", low=1)
    w_avg_decay: float = setting(0.995, "1 = w_avg stays.", low=0, high=1)
    r1_gamma: float = setting(10.0, "Gradient penalty, at every update.", low=0)
    repeat: str = setting("v1", "Rule of repeated updates: v1, v5 or v9.")
    dropout: bool = setting(True, "On in the v5 discriminator while it trains.")
    scored: tuple[str, ...] = setting((), "v2, v3: properties in the loss.", choices=PROPERTIES)
    gender_weight: float = setting(1.0, "v3: of the gender loss.", low=0)
    mean_weight: float = setting(0.2, "v3: of the loss of the means.", low=0)
    log_variance_weight: float = setting(0.05, "v3: of the loss of the log variances.", low=0)
    warm: float = setting(
        0.9, "v2: share of the fixed start pair after k groups = this to the power of k.", low=0, high=1
    )
    train_scorer: bool = setting(False, "v2: train the property CNN too (P5).")
    scorers_train_mode: bool = setting(False, "Dropout of the scorers is on while they score in training (P10).")
    gender_input: Literal["unit", "signed"] = setting(
        "unit", "v3: pictures that the gender CNN sees, in [0,1] or [-1,1] (P11)."
    )
    jitter: float = setting(0.0, "Brightness and contrast of the pictures, up to this share.", low=0, high=1)
    log_every: int = setting(10, "Batches from one row of the log to the next.", low=1)
    log_first: int = setting(10, "So many first batches are logged too.", low=0)
    log_every_first_epoch: int = setting(0, "The same as --log-every in the first epoch; 0 = no other.", low=0)
    test: str = setting("", "Plan of the trial pictures: v1, v2 ...")
    dump: Literal["grid", "files"] = setting("grid", "Pictures as one grid, or as the documented single files.")
    test_kept: int = setting(100, "v3: latents that are kept in an epoch ...", low=1)
    test_latents: int = setting(30, "v3: ... and tested at its end.", low=1)
    test_correlation: tuple[float, float, float] = setting(
        (0.77, 0.85, 0.82), "v3: what a latent must reach for eyes, mouth, pose."
    )
    test_error: tuple[float, float, float] = setting(
        (1.0, 0.6, 1.4), "v3: mean absolute errors that it must not exceed."
    )
    checkpoint_minutes: float = setting(5.0, "From one saved state to the next.", low=0)
    seed: int = setting(7, "Of everything drawn at random.", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        check(self, f"recipe {self.version}: ")
        for name in ("properties", "scored"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise InvalidInputError(f"recipe {self.version}: {name} must be different, got {getattr(self, name)}")
        if not self.properties:
            raise InvalidInputError(f"recipe {self.version}: properties must hold at least one property")

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


@dataclass(frozen=True)
class DiscriminatorStart:
    """How a start discriminator is trained, for generators without one. A generator with a label gets zeros."""

    steps: int = setting(1000, "Updates.", low=1)
    batch_size: int = setting(8, "Pictures a step.", low=1)
    learning_rate: float = setting(1e-3, "Of Adam.", above=0, below=1)
    betas: tuple[float, float] = setting((0.0, 0.99), "Of Adam.", low=0, below=1)
    r1_gamma: float = setting(10.0, "Gradient penalty on real pictures.", low=0)
    random_noise: bool = setting(True, "Fresh noise in every picture of the generator.")
    channel_base: int = setting(0, "Width: channels at r pixels = this / r; 0 = the generator's.", low=0)
    channel_max: int = setting(0, "At most so many channels; 0 = the generator's.", low=0)
    group: int = setting(4, "Of the minibatch standard deviation.", low=1)
    log_every: int = setting(25, "Steps from one row of the log to the next.", low=1)
    seed: int = setting(7, "Of weights, order and latents.", low=0)

    def __post_init__(self) -> None:
        check(self, "start discriminator: ")

    def network(self, generator: GeneratorConfig) -> DiscriminatorConfig:
        from ohlora.training.nets.stylegan_discriminator import DiscriminatorConfig  # PyTorch: options do without

        return DiscriminatorConfig(
            resolution=generator.resolution,
            group=self.group,
            channel_base=self.channel_base or generator.channel_base,
            channel_max=self.channel_max or generator.channel_max,
        )

    def recipe(self) -> Recipe:
        """The same as a recipe, for what is shared with them."""
        return Recipe(
            "discriminator-start",
            discriminator_trained=("*",),
            discriminator_rate=self.learning_rate,
            betas=self.betas,
            weight_decay=0.0,
            batch_size=self.batch_size,
            r1_gamma=self.r1_gamma,
            random_noise=self.random_noise,
            w_avg_decay=1.0,
            last_batch="drop",
            seed=self.seed,
        )


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
    base = pick(RECIPES, name, "recipe")
    for field in changes:
        require_known(field, list(settings_of(Recipe)), f"recipe {name}: ")
    return replace(base, **{**(COMPAT.get(name, {}) if compat else {}), **changes})
