"""From a matrix of scores to a loss: FlagEmbedding's losses, for whatever candidates a row has.

Scores are (rows, candidates); a row is a query, and each has a group of G passages, the first of which is its positive.
The candidates of a row are either its own group alone, (B, G), or the groups of all rows one after another: (B, B·G) of
one process, (W·B, W·B·G) of all W. A shape tells which.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Of what graded pairs score: 1 divided by the temperature of CoSENT.
COSENT_SCALE = 20.0
# As in FlagEmbedding: sparse scores are by far the largest before they are trained.
SPARSE_WEIGHT = 0.1


def reach(values: Tensor, share: float) -> Tensor:
    """The same values; of the gradient that comes back only this share goes on."""
    if share == 1:
        return values
    kept = values.detach()
    return kept + share * (values - kept) if share else kept


def teacher_targets(scores: Tensor, temperature: float = 1.0, normalisation: str = "none") -> Tensor:
    """Raw teacher scores (rows, G) as probabilities of the passages of each row's group: a softmax at a temperature.

    ``normalisation`` makes rows, and teachers, alike in scale first: ``zscore`` gives each row mean 0 and (population)
    standard deviation 1, ``minmax`` the range 0 … 1. A row of equal scores has equal probabilities with each.
    """
    low, high = scores.aminmax(dim=-1, keepdim=True)
    if normalisation == "zscore":
        mean, width = scores.mean(dim=-1, keepdim=True), scores.std(dim=-1, correction=0, keepdim=True)
        scores = torch.where(low == high, 0.0, (scores - mean) / width)
    elif normalisation == "minmax":
        scores = torch.where(low == high, 0.0, (scores - low) / (high - low))
    return (scores / temperature).softmax(dim=-1)


def candidate_loss(scores: Tensor, group_size: int, teacher: Tensor | None, kd_loss_type: str) -> Tensor:
    """The contrastive loss; with ``teacher``, (rows, G) of probabilities, what a row's group is to be scored like.

    ``kl_div`` adds the cross-entropy with the teacher, within the group, to the contrastive loss. ``m3_kd_loss`` takes
    the place of it: each passage of the group in turn is the positive, weighted by the teacher, among all candidates
    but those of the group before it. (FlagEmbedding's fails where the candidates are the group alone.)
    """
    rows, candidates = scores.shape
    first = torch.arange(rows, device=scores.device) * (group_size if candidates == rows * group_size else 0)
    group = first[:, None] + torch.arange(group_size, device=scores.device)
    if teacher is None:
        return F.cross_entropy(scores, first)
    teacher = teacher.to(scores.dtype)
    if kd_loss_type == "kl_div":
        return F.cross_entropy(scores.gather(1, group), teacher) + F.cross_entropy(scores, first)
    if kd_loss_type != "m3_kd_loss":
        raise ValueError(f"Invalid kd_loss_type: {kd_loss_type}")
    loss = scores.new_zeros(())
    for positive, probability in zip(group.unbind(1), teacher.unbind(1), strict=True):
        loss = loss + (probability * F.cross_entropy(scores, positive, reduction="none")).mean()
        scores = scores.scatter(1, positive[:, None], torch.finfo(scores.dtype).min)
    return loss


def self_distill_loss(scores: dict[str, Tensor]) -> Tensor:
    """Each kind of score learns from all candidates' ensemble scores; a third, as it is added to the other losses."""
    targets = scores["ensemble"].detach().softmax(dim=-1)
    dense, sparse, colbert = (F.cross_entropy(scores[name], targets) for name in ("dense", "sparse", "colbert"))
    return (dense + SPARSE_WEIGHT * sparse + colbert) / 3


def cosent_loss(scores: Tensor, grades: Tensor, scale: float = COSENT_SCALE) -> Tensor:
    """Return the CoSENT loss of a batch of graded pairs (Su 2022, https://kexue.fm/archives/8847), a scalar.

    log(1 + Σ exp(scale · (scores[j] - scores[i]))) over all i, j with grades[i] > grades[j]: each pair should score
    above those of a lower grade. ``scores`` and ``grades`` are (B,), the scores within about -1 … 1, as cosines are.
    Where all grades are equal, the loss is 0 and so are the gradients. The same as sentence-transformers' CoSENTLoss.
    """
    ahead = scale * (scores[None, :] - scores[:, None])
    ahead = ahead.masked_fill(grades[:, None] <= grades[None, :], -torch.inf)
    return F.pad(ahead.flatten(), (1, 0)).logsumexp(0)


def total_loss(parts: dict[str, Tensor]) -> Tensor:
    """The loss that is trained, of what parts there are: dense alone, all four kinds, or these and ``self_distill``."""
    loss = parts["dense"]
    if "ensemble" in parts:
        loss = (loss + parts["ensemble"] + SPARSE_WEIGHT * parts["sparse"] + parts["colbert"]) / 4
    if "self_distill" in parts:
        loss = (loss + parts["self_distill"]) / 2
    return loss
