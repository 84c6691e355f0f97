"""Can an attacker tell that a document was trained on? Six membership attacks on the forget documents.

Members are the forget documents' completion rows, non-members those of the holdout documents, which no model
has seen. Each attack gives every text one number (higher: more likely a member); the AUC and the share of
members found at 1 % false alarms say how well it tells them apart. Read them against the twin's: a model that
never saw the forget documents is what an unlearned one should look like, and that is 0.5 only if members and
non-members are alike.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from reprolib.corpus.batching import Tokens, collate
from reprolib.evaluate.passes import parts, token_statistics
from reprolib.evaluate.subject import Evaluation, Subject
from reprolib.metrics import privacy
from reprolib.models.policy import Policy
from reprolib.probes.base import Probe

K = 0.4  # share of the least likely tokens that Min-K reads, as open-unlearning


def gradient_norms(lm: nn.Module, tokens: Tokens, rows: list[int]) -> list[float]:
    """Mean over weight tensors of the 2-norm of the gradient of a text's mean loss (nats), one text at a
    time.

    Texts are never batched, so that the value of one does not depend on the others. A model without weights
    that a gradient reaches gives 0. Source: open-unlearning, GradNorm with p = 2.
    """
    out = dict.fromkeys(rows, 0.0)
    for model, own in parts(lm, tokens, rows):
        weights = [p for p in model.parameters() if p.is_floating_point() and p.numel() > 1]
        before = [p.requires_grad for p in weights]
        policy = Policy(model).eval()
        try:
            for p in weights:
                p.requires_grad_(True)
            for i in own:
                with torch.enable_grad():
                    logp = policy(collate(tokens, [i]).to(policy.device)).token_logp
                    loss = -logp[: len(logp) - 1].mean()  # without the EOS that training appended
                if not loss.requires_grad:
                    continue
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                reached = [g.float().cpu().numpy() for g in gradients if g is not None]
                out[i] = privacy.gradient_norm(reached) if reached else 0.0
        finally:
            for p, wanted in zip(weights, before, strict=True):
                p.requires_grad_(wanted)
    return [out[i] for i in rows]


def ask(subject: Subject) -> Evaluation:
    exam = subject.exam
    where = {
        g: [i for i, r in enumerate(exam.rows[g]) if r.kind == exam.attacked] for g in ("forget", "holdout")
    }
    if not all(where.values()):  # a corpus without documents that nobody trained on
        return Evaluation({}, {})
    own = [exam.parts[g].start + i for g, chosen in where.items() for i in chosen]
    texts = [exam.rows[g][i].text for g, chosen in where.items() for i in chosen]
    known = [subject.texts[i] for i in own]
    # all but the EOS that training appended: an attacker has the text alone
    statistics = [(s.logp[:-1], s.mu[:-1], s.sigma[:-1]) for s in known]
    nll = np.array([-lp.mean() for lp, _, _ in statistics])
    scores = {
        "loss": -nll,
        "zlib": (
            [-privacy.zlib_score(x, t) for x, t in zip(nll, texts, strict=True)]
            if np.isfinite(nll).all()
            else -nll
        ),
        "min_k": [-privacy.min_k(lp, K) if np.isfinite(lp).all() else -math.inf for lp, _, _ in statistics],
        "min_k_plus_plus": [
            -privacy.min_k_plus_plus(lp, m, s, K) if np.isfinite(lp).all() else -math.inf
            for lp, m, s in statistics
        ],
        "gradient_norm": [-x for x in gradient_norms(subject.lm, exam.tokens, own)],
    }
    twin = subject.reference("twin")
    if twin is not None:
        reference = token_statistics(twin, exam.tokens, own)
        baseline = [max(-s.logp[:-1].mean(), 0.0) for s in reference]
        known_to_both = [
            privacy.reference_attack(max(x, 0.0), r) if not np.isnan(x) else math.inf
            for x, r in zip(nll, baseline)
        ]
        # rounded, since batches of another shape change the last digits, and the twin would differ from
        # itself
        scores["reference"] = [-round(x, 5) if math.isfinite(x) else -math.inf for x in known_to_both]
    n = len(where["forget"])
    lengths = np.array([len(s.logp) for s in known])
    metrics = {"attacks/length_auc": privacy.auc(lengths[:n], lengths[n:])}
    pairs = privacy.match_lengths(lengths[:n], lengths[n:])
    metrics["attacks/matched_pairs"] = float(len(pairs))
    rows = {}
    for name, values in scores.items():
        found = np.nan_to_num(
            np.asarray(values, dtype=float), nan=-math.inf
        )  # a destroyed model knows no text
        metrics[f"attacks/{name}/auc"] = privacy.auc(found[:n], found[n:])
        metrics[f"attacks/{name}/tpr"] = privacy.tpr_at_fpr(found[:n], found[n:])
        if pairs:
            members, others = (found[[p[side] + (n if side else 0) for p in pairs]] for side in (0, 1))
            metrics[f"attacks/{name}/auc_matched"] = privacy.auc(members, others)
        by_group = {
            "forget": [math.nan] * len(exam.rows["forget"]),
            "holdout": [math.nan] * len(exam.rows["holdout"]),
        }
        for (group, i), value in zip(
            ((g, i) for g, chosen in where.items() for i in chosen), found, strict=True
        ):
            by_group[group][i] = value
        rows[f"attack_{name}"] = subject.column(by_group)
    return Evaluation(metrics, rows)


PROBE = Probe(
    name="attacks",
    title="Membership attacks",
    suite="wide",
    cost="one forward pass, and one forward and backward pass a document",
    ask=ask,
)
