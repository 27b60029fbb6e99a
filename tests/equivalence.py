"""Whether two models come to the same: the loss of a batch, its parts, and the gradient of every parameter.

Models are FlagEmbedding's own (``Plain``) and the kit's, made as the runner makes them; batches are FlagEmbedding's
collator's. For whatever must not change what is learnt:

    rows = make_rows(4, group_size=3)
    one, other = (load(cls, starter, **settings) for cls in (Plain, M3Model))
    assert_same(losses_and_gradients(one, collate(one, rows)), losses_and_gradients(other, collate(other, rows)))
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderSameDatasetCollator
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner
from forks import CONTEXT
from torch import Tensor
from transformers import AutoTokenizer

from m3kit.batches.collator import Collator
from m3kit.training.model import M3Model

WORDS = "moon river glass winter copper bread signal garden paper violin harbour cloud 望远镜 étoile Œuvre".split()
MAX_LENGTH = 48
SETTINGS = {"temperature": 0.02, "normalize_embeddings": True, "kd_loss_type": "kl_div"}
# The bias of attention's keys adds the same to all that a softmax is of, which changes nothing: its gradient is 0 but
# for rounding, and has no size of its own to compare with.
WITHOUT_GRADIENT = "attention.self.key.bias"


class Plain(EncoderOnlyEmbedderM3Model):
    """FlagEmbedding's model and forward; what it calls for the losses notes them as it hands them on."""

    def forward(self, *args, **kwargs):
        self.noted, self.self_distilled, self.self_targets = [], [], []
        return super().forward(*args, **kwargs)

    def distill_loss(self, kd_loss_type, targets, scores, group_size=None):
        loss = EncoderOnlyEmbedderM3Model.distill_loss(kd_loss_type, targets, scores, group_size)
        # Only its self-distillation gives no size.
        if group_size is None:
            self.self_distilled.append(loss.detach())
            self.self_targets.append(targets)
        return loss

    def _compute_no_in_batch_neg_loss(self, *args, **kwargs):
        return self._note(super()._compute_no_in_batch_neg_loss(*args, **kwargs))

    def _compute_in_batch_neg_loss(self, *args, **kwargs):
        return self._note(super()._compute_in_batch_neg_loss(*args, **kwargs))

    def _compute_cross_device_neg_loss(self, *args, **kwargs):
        return self._note(super()._compute_cross_device_neg_loss(*args, **kwargs))

    def _note(self, result):
        # A copy: what it returns is added to in place.
        self.noted.append(result[1].detach().clone())
        return result

    def parts(self) -> dict[str, Tensor]:
        """Of the last forward, named as the kit does."""
        parts = dict(zip(("dense", "sparse", "colbert", "ensemble"), self.noted, strict=False))
        if self.self_distilled:
            dense, sparse, colbert = self.self_distilled
            parts["self_distill"] = (dense + 0.1 * sparse + colbert) / 3
        return parts


class Rows(NamedTuple):
    """Texts as a data set gives them: each query with its group of passages, and their scores by a teacher."""

    queries: list[str]
    passages: list[str]
    teacher_scores: list[float] | None

    def some(self, start: int, stop: int) -> Rows:
        size = len(self.passages) // len(self.queries)
        grouped = slice(start * size, stop * size)
        scores = self.teacher_scores and self.teacher_scores[grouped]
        return Rows(self.queries[start:stop], self.passages[grouped], scores)


def make_rows(count: int, group_size: int, teacher: bool = False, seed: int = 0) -> Rows:
    """Texts of one word to many, some words twice; a query and its positive share words."""
    chance = random.Random(seed)
    queries, passages = [], []
    for _ in range(count):
        queries.append(" ".join(chance.choices(WORDS, k=chance.randint(1, 8))))
        texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 16))) for _ in range(group_size)]
        passages += [f"{texts[0]} {queries[-1]}", *texts[1:]]
    scores = [chance.uniform(-3, 3) for _ in passages] if teacher else None
    return Rows(queries, passages, scores)


def collate(model, rows: Rows, alone: bool = False, **collator) -> dict:
    """What ``forward`` is called with. ``alone``: without in-batch negatives."""
    settings = {"query_max_len": MAX_LENGTH, "passage_max_len": MAX_LENGTH, "sub_batch_size": -1} | collator
    return AbsEmbedderSameDatasetCollator(model.tokenizer, **settings)([(*rows, alone)])


def collate_sorted(model: M3Model, rows: Rows, tokens: int, alone: bool = False, **collator) -> dict:
    """The same by the kit's collator, and the model set to as many tokens at a time."""
    model.sub_batch_tokens = tokens
    settings = {"query_max_len": MAX_LENGTH, "passage_max_len": MAX_LENGTH, "sub_batch_tokens": tokens} | collator
    return Collator(model.tokenizer, **settings)([(*rows, alone)])


def load(cls, folder: Path, dtype: torch.dtype = torch.float32, **settings):
    """A model to train, without dropout. FlagEmbedding's gets what it has an argument for."""
    settings = SETTINGS | settings
    taken = inspect.signature(EncoderOnlyEmbedderM3Model).parameters
    model = cls(
        EncoderOnlyEmbedderM3Runner.get_model(str(folder)),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        **{name: value for name, value in settings.items() if cls is M3Model or name in taken},
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.model.pooler.requires_grad_(False)
    return model.to(dtype).train()


class Outcome(NamedTuple):
    """The loss, its parts by name, and the gradient of each parameter by name: None where it has none."""

    loss: Tensor
    parts: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def losses_and_gradients(model, batch: dict) -> Outcome:
    """Of a model, which may be wrapped for several processes."""
    inner = getattr(model, "module", model)
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    parts = inner.parts() if isinstance(inner, Plain) else output.parts
    gradients = {name: parameter.grad for name, parameter in inner.named_parameters()}
    return Outcome(output.loss.detach(), parts, {name: g if g is None else g.clone() for name, g in gradients.items()})


def mean(outcomes: list[Outcome]) -> Outcome:
    def of(values):
        return None if values[0] is None else torch.stack(values).mean(dim=0)

    _, parts, gradients = zip(*outcomes, strict=True)
    return Outcome(
        of([outcome.loss for outcome in outcomes]),
        {name: of([one[name] for one in parts]) for name in parts[0]},
        {name: of([one[name] for one in gradients]) for name in gradients[0]},
    )


def differences(one: Outcome, other: Outcome) -> dict[str, float]:
    """Relative differences of the loss, each part, the gradient, and that of each parameter; as norms of vectors."""
    assert one.parts.keys() == other.parts.keys(), (one.parts.keys(), other.parts.keys())
    assert one.gradients.keys() == other.gradients.keys()
    found = {"loss": _relative(one.loss, other.loss)}
    found |= {f"loss of {name}": _relative(one.parts[name], other.parts[name]) for name in one.parts}
    ours, theirs = (
        torch.cat([gradient.flatten() for gradient in outcome.gradients.values() if gradient is not None])
        for outcome in (one, other)
    )
    norm = theirs.norm()
    assert norm > 0, "no gradients to compare"
    found["gradient"] = _relative(ours, theirs)
    for name, gradient in one.gradients.items():
        assert (gradient is None) == (other.gradients[name] is None), name
        if gradient is not None:
            size = norm if name.endswith(WITHOUT_GRADIENT) else None
            found[f"gradient of {name}"] = _relative(gradient, other.gradients[name], size)
    return found


def _relative(one: Tensor, other: Tensor, size: Tensor | None = None) -> float:
    difference = (one - other).norm()
    return float(difference / (other.norm() if size is None else size)) if difference else 0.0


def assert_same(one: Outcome, other: Outcome, tolerance: float = 1e-5) -> None:
    _assert_none_above(differences(one, other), tolerance)


def assert_as_near(one: Outcome, other: Outcome, truth: Outcome, tolerance: float = 1e-5) -> None:
    """``one`` is as near the truth, in 64 bits, as ``other``: where large terms cancel, all is rounding."""
    one, other = (_in_64_bits(outcome) for outcome in (one, other))
    rounding = max(differences(other, truth).values())
    _assert_none_above(differences(one, truth), max(tolerance, 4 * rounding))


def _in_64_bits(outcome: Outcome) -> Outcome:
    loss, parts, gradients = outcome
    return Outcome(
        loss.double(),
        {name: part.double() for name, part in parts.items()},
        {name: g if g is None else g.double() for name, g in gradients.items()},
    )


def _assert_none_above(found: dict[str, float], allowed: float) -> None:
    # So written that NaN is refused too.
    apart = {name: f"{value:.2e}" for name, value in found.items() if not value <= allowed}
    assert not apart, apart


# ---- Several processes ----


def on_ranks(folder: Path, work: Callable[..., Any], *arguments, ranks: int = 2) -> list[Any]:
    """What ``work(rank, *arguments)`` gave in each process of a group. ``folder`` is empty, and for this call alone."""
    processes = [CONTEXT.Process(target=_rank, args=(rank, ranks, folder, work, arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        # One that failed leaves the others waiting for it.
        if process.exitcode != 0:
            for other in processes:
                other.kill()
            raise AssertionError(f"a process ended with {process.exitcode}; its output is above")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _rank(rank: int, ranks: int, folder: Path, work: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=ranks)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()
