"""What hosts show of `style_portrait`: the imported directions as edits, and controls of the steps behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host_bridge.effects import EffectDescriptor, Param
from inference_server.effects.common import choices_of, composite_params, matte_params, precision_param
from inference_server.effects.style_portrait.imported import Imported, fitting
from inference_server.models.store import ModelStore

if TYPE_CHECKING:
    from inference_server.directions import Offered

IDENTIFIER = "style_portrait"
VERSION = "1.0"
ADAPT, EXPRESSION = "adapt", "expression"
"""The long steps, in their order."""
DRAWN, WARPED = "drawn", "warped"
SMOOTHINGS = ("off", "light")
NEEDED = ("stylegan2-ffhq", "e4e-ffhq")
"""What the effect cannot do without, as its authors publish it."""


def describe(store: ModelStore) -> EffectDescriptor:
    """The effect with the models and directions that are imported now."""
    # Directions are arrays: NumPy is loaded when this effect is described, not when any is.
    from inference_server.directions import offered

    return described(Imported.of(store), offered(store))


def described(imported: Imported, edits: tuple[Offered, ...]) -> EffectDescriptor:
    """The effect with these models and directions."""
    return EffectDescriptor(
        identifier=IDENTIFIER,
        label="Style portrait",
        version=VERSION,
        kind="edit",
        summary="Edits age, smile and any imported latent direction of an actor over a shot and keeps the performance.",
        params=(
            *_models(imported),
            *_adaptation(),
            *_performance(imported.landmarks),
            *matte_params("face", 4.0, 6.0, "Those of the plate and of the edited face together."),
            *composite_params("delta", True),
        ),
        edits=tuple(one.param() for one in edits),
        composite="delta",
        longest_step_s=20.0,
        licence="Apache-2.0; each imported network carries its own terms",
        models=NEEDED,
        steps=(ADAPT, EXPRESSION),
    )


def _models(imported: Imported) -> tuple[Param, ...]:
    generators, encoders = list(imported.generators.values()), list(imported.encoders.values())
    ids, readers = choices_of(g.id for g in generators), choices_of(e.id for e in encoders)
    titles = "; ".join(f"{g.id}: {g.model.card.title}" for g in generators)
    return (
        Param(
            "model",
            "choice",
            "Generator",
            ids[0],
            "The imported face generator; more come by `faceplate models import FILE`. " + titles,
            choices=ids,
            animates=False,
        ),
        Param(
            "encoder",
            "choice",
            "Encoder",
            readers[0],
            "What reads the face into the generator's code; it has to be made for the generator.",
            choices=readers,
            animates=False,
            depends="model",
            choices_for=tuple((g.id, fitting(encoders, g)) for g in generators),
        ),
        Param(
            "layers",
            "string",
            "Rows",
            "",
            "Rows of the code that edits change: 3-7 for all edits, smile=3-7, age=0-10 for single ones. Coarse rows "
            "are shape, 3-7 expression, fine ones colour. Empty: each direction's own.",
            animates=False,
        ),
        Param(
            "place",
            "choice",
            "Drawing",
            DRAWN,
            "drawn: the generator draws the face where it is in the plate (StyleGAN3); warped: it draws the upright "
            "face, which is turned back, as StyleGAN2 always does.",
            choices=(DRAWN, WARPED),
            animates=False,
            depends="model",
            acts_for=choices_of(g.id for g in generators if g.turns),
        ),
        Param(
            "code_smoothing",
            "choice",
            "Smooth codes",
            "off",
            "light averages each frame's code with two on either side, against a trembling reconstruction; fast "
            "expressions get softer.",
            choices=SMOOTHINGS,
            animates=False,
        ),
        precision_param("Of the encoder, and of StyleGAN3's fine layers. fp16 and bf16 act on GPUs only."),
    )


def _adaptation() -> tuple[Param, ...]:
    return (
        Param("adaptation", "group", "Adaptation", hint="The generator learns this actor: `faceplate adapt`"),
        Param(
            ADAPT,
            "boolean",
            "Adapt the generator",
            True,
            "Whether the generator is first adapted to the shot (`faceplate adapt`, once; a change of strengths needs "
            "no other). Without it the edit is that of somebody who only resembles the actor.",
            animates=False,
            parent="adaptation",
        ),
        Param(
            "adapt_iterations",
            "integer",
            "Iterations",
            1000,
            "Of an adaptation from the published generator.",
            1,
            100000,
            100,
            3000,
            animates=False,
            parent="adaptation",
        ),
        Param(
            "adapt_from",
            "string",
            "Continue from",
            "",
            "An actor's name or a shot id whose adaptation this one goes on from; empty starts from the published "
            "generator.",
            animates=False,
            parent="adaptation",
        ),
        Param(
            "continual_iterations",
            "integer",
            "Iterations when continuing",
            10,
            "Of an adaptation that goes on from another.",
            1,
            100000,
            1,
            1000,
            animates=False,
            parent="adaptation",
        ),
        Param(
            "actor",
            "string",
            "Actor",
            "",
            "The name under which other shots find this adaptation.",
            animates=False,
            parent="adaptation",
        ),
        Param(
            "adapt_seed",
            "integer",
            "Seed",
            0,
            "Of the order in which frames are learned.",
            0,
            2**31 - 1,
            0,
            100,
            animates=False,
            parent="adaptation",
        ),
    )


def _performance(landmarks: tuple[str, ...]) -> tuple[Param, ...]:
    networks = choices_of(landmarks)
    return (
        Param("performance", "group", "Performance", hint="Lips that say what the actor says: `faceplate adapt`"),
        Param(
            "keep_expression",
            "boolean",
            "Keep the expression",
            False,
            "For edits that change the expression, such as a smile: moves the codes of every frame until the lips are "
            "the actor's again (`faceplate adapt`, once for each set of strengths). Edits of age or colour do without.",
            animates=False,
            parent="performance",
        ),
        Param(
            "expression_edits",
            "integer",
            "Expression edits",
            1,
            "How many edits at the end of the list change the expression; the lips are held to what they are before "
            "those.",
            1,
            16,
            1,
            4,
            animates=False,
            parent="performance",
        ),
        *(
            Param(
                f"weight_{name}",
                "double",
                f"Weight of {label}",
                default,
                f"{why} The published weight is {default:g}.",
                0.0,
                1e6,
                0.0,
                4 * default,
                animates=False,
                parent="performance",
            )
            for name, label, default, why in (
                ("lip", "lips", 5000.0, "How strongly the inner lips are held to the actor's."),
                ("eye", "eyes", 0.5, "How strongly the eyes keep the edit."),
                ("reg", "closeness", 8000.0, "How strongly codes stay near the edited ones."),
                ("temporal", "steadiness", 5000.0, "How strongly neighbouring frames move alike."),
            )
        ),
        Param(
            "expression_iterations",
            "integer",
            "Iterations",
            200,
            "Of the optimisation.",
            1,
            10000,
            50,
            1000,
            animates=False,
            parent="performance",
        ),
        Param(
            "landmarks",
            "choice",
            "Landmark network",
            networks[0],
            "What sees the lips; `faceplate models show hrnet-wflw` says where it is published.",
            choices=networks,
            animates=False,
            parent="performance",
        ),
    )
