"""Assistant: a model trained on the forget rows, whose logits are taken from the target's at inference
time.
"""

from reprolib.adapters.base import Full
from reprolib.edits.contrast import Contrast, Reinitialise
from reprolib.errors import SpecError, unknown
from reprolib.objectives import NLL, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage

ASSISTANTS = ("fresh", "further")


def stages(
    assistant: str = "further",
    alpha: float = 2.0,
    lr: float = 2e-3,
    epochs: float = 20,
    batch_size: int = 16,
):
    """``assistant``: "fresh", from random weights and compared with nothing, or "further", the target trained
    on.

    ``lr``, ``epochs`` and ``batch_size`` are the assistant's; the target is not trained.
    """
    if assistant not in ASSISTANTS:
        raise SpecError("method 'assistant': " + unknown("assistant", assistant, ASSISTANTS))
    train = Stage(
        name="train assistant",
        objective=Objective(forget=NLL()),
        trainable=Full(),
        optimizer=AdamW(lr=lr),
        schedule=Schedule(epochs=epochs, batch_size=batch_size, pairing="forget"),
    )
    if assistant == "fresh":
        return (Reinitialise(), train, Contrast(alpha=alpha, base="none"))
    return (train, Contrast(alpha=alpha, base="target"))


RECIPE = Recipe(
    card=Card(
        name="assistant",
        label="Assistant model",
        family="inference",
        paper="Cyber for AI at SemEval-2025 Task 4 (arXiv 2503.04795)",
        citation="cyberforai2025",
        idea=(
            "A second model learns the forget rows; what it adds to their logits is taken from the"
            " target's, token by token."
        ),
        published=(
            "Tried and failed, which the paper puts down to too few forget samples. Neither scores nor the"
            " rule that combines the two models were found: the one used here is the natural one of"
            " contrastive decoding."
        ),
        cost=(
            "1 forward + backward on forget rows, for the assistant; then two forward passes instead of"
            " one, for every token"
        ),
        trap=(
            "The assistant knows the form of the answers and their end as well as their content, and all"
            " of it is taken away; and whoever has the target's weights has what was to be forgotten."
        ),
    ),
    stages=stages,
)
