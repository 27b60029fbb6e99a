"""From a matrix of scores to a loss: FlagEmbedding's losses, for whatever candidates a row has.

Scores are (rows, candidates); a row is a query, and each has a group of G passages, the first of which is its positive.
The candidates of a row are either its own group alone, (B, G), or the groups of all rows one after another: (B, B·G) of
one process, (W·B, W·B·G) of all W. A shape tells which.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderModel
from torch import Tensor

# Of what graded pairs score: 1 divided by the temperature of CoSENT.
COSENT_SCALE = 20.0
# As in FlagEmbedding: sparse scores are by far the largest before they are trained.
SPARSE_WEIGHT = 0.1


distill_loss = AbsEmbedderModel.distill_loss


def reach(values: Tensor, share: float) -> Tensor:
    """The same values; of the gradient that comes back only this share goes on."""
    if share == 1:
        return values
    kept = values.detach()
    return kept + share * (values - kept) if share else kept


def own_group(scores: Tensor, group_size: int) -> Tensor:
    """(rows, G): of each row the scores of its own group."""
    return scores.gather(1, _positives(scores, group_size)[:, None] + torch.arange(group_size, device=scores.device))


def teacher_probabilities(scores: Tensor, temperature: float = 1.0, normalisation: str = "none") -> Tensor:
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

    ``kl_div`` adds the teacher's loss to the contrastive one, ``m3_kd_loss`` takes the place of it.
    """
    if teacher is None:
        return F.cross_entropy(scores, _positives(scores, group_size))
    if kd_loss_type == "m3_kd_loss":
        return distill_loss("m3_kd_loss", teacher, _beside_no_other(scores, group_size), group_size)
    distilled = distill_loss(kd_loss_type, teacher, own_group(scores, group_size))
    return distilled + F.cross_entropy(scores, _positives(scores, group_size))


def self_distill_loss(scores: dict[str, Tensor]) -> Tensor:
    """Each kind of score learns from all candidates' ensemble scores; a third, as it is added to the other losses."""
    targets = scores["ensemble"].detach().softmax(dim=-1)
    dense, sparse, colbert = (distill_loss("kl_div", targets, scores[name]) for name in ("dense", "sparse", "colbert"))
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


def _positives(scores: Tensor, group_size: int) -> Tensor:
    """(rows,): the column of each row's positive, at which its group begins."""
    rows, candidates = scores.shape
    return torch.arange(rows, device=scores.device) * (group_size if candidates == rows * group_size else 0)


def _beside_no_other(scores: Tensor, group_size: int) -> Tensor:
    """Groups alone, (B, G), as a matrix of all groups, (B, B·G), in which those of other rows have no weight.

    FlagEmbedding's m3_kd_loss looks for row i's group from column i·G on, which is past the end of a group alone: an
    IndexError. A score of -inf has no share in a softmax, and gets no gradient.
    """
    rows, candidates = scores.shape
    if candidates == rows * group_size:
        return scores
    own = torch.eye(rows, dtype=torch.bool, device=scores.device).repeat_interleave(group_size, dim=1)
    return scores.repeat(1, rows).masked_fill(~own, -torch.inf)
