"""ZJUKLAB's system: two LoRA adapters trained with NPO + KL + NLL, merged by TIES."""

from reprolib.adapters.base import LoRA
from reprolib.edits.weights import MergeAdapters
from reprolib.objectives import NPO, KLAndNLL, Objective
from reprolib.optim import AdamW
from reprolib.recipes.base import Card, Recipe, Schedule, Stage


def stages(
    lr: float = 1e-3,
    epochs: float = 5,
    batch_size: int = 4,
    second_batch_size: int = 8,
    rank: int = 32,
    alpha: float = 32,
    dropout: float = 0.05,
    beta: float = 0.1,
    density: float = 0.8,
    combination: str = "ties",
    ratio: str = "sequence",
):
    """Weights of NPO, KL and NLL are 0.4, 0.4, 0.2 for the first adapter and 0.3, 0.3, 0.4 for the second."""

    def branch(name: str, npo: float, kl: float, nll: float, size: int, restart: bool) -> Stage:
        return Stage(
            name=name,
            objective=Objective(
                forget=NPO(beta=beta, ratio=ratio), retain=KLAndNLL(kl=kl, nll=nll), forget_weight=npo
            ),
            trainable=LoRA(rank=rank, alpha=alpha, dropout=dropout),
            optimizer=AdamW(lr=lr),
            schedule=Schedule(epochs=epochs, batch_size=size),
            restart=restart,
            keep=f"adapter:{name}",
        )

    return (
        branch("first", 0.4, 0.4, 0.2, batch_size, False),
        branch("second", 0.3, 0.3, 0.4, second_batch_size, True),
        MergeAdapters(rank=rank, alpha=alpha, density=density, combination=combination),
    )


RECIPE = Recipe(
    card=Card(
        name="zjuklab",
        label="ZJUKLAB (TIES)",
        family="competition",
        paper="ZJUKLAB at SemEval-2025 Task 4 (arXiv 2503.21088)",
        citation="zjuklab2025",
        idea=(
            "Two adapters, one forgetting more and one keeping more, merged so that their excesses cancel."
        ),
        published=(
            "7B online final 0.487 (task 0.944, MIA 0.048, MMLU 0.471), rank 2; local 0.806 with AUC"
            " 0.501. LoRA r=32, alpha 32, dropout 0.05, lr 1e-4, 5 epochs."
        ),
        cost=(
            "2 forward + backward (forget, retain), for each of two adapters; reference values cached once"
        ),
        trap="Its attack score did not carry over from the local to the private split.",
    ),
    stages=stages,
)
