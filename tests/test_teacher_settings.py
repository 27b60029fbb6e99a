"""Teacher temperature and normalisation: the probabilities and the loss, by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from equivalence import collate, load, losses_and_gradients, make_rows

from m3kit.errors import KitError
from m3kit.training.arguments import TrainingArguments
from m3kit.training.losses import candidate_loss, teacher_targets
from m3kit.training.model import M3Model

# ln 2 apart: each is twice as likely as the one before.
LN2 = math.log(2)


@pytest.mark.parametrize(
    ("scores", "settings", "expected"),
    [
        ([2 * LN2, LN2, 0.0], {}, [4 / 7, 2 / 7, 1 / 7]),
        ([2 * LN2, LN2, 0.0], {"temperature": 0.5}, [16 / 21, 4 / 21, 1 / 21]),
        # Whatever the scale, the two are 2 standard deviations, or the whole range, apart.
        ([5.0, 3.0], {"normalisation": "zscore", "temperature": 2 / LN2}, [2 / 3, 1 / 3]),
        ([0.5, 0.3], {"normalisation": "zscore", "temperature": 2 / LN2}, [2 / 3, 1 / 3]),
        ([5.0, 3.0], {"normalisation": "minmax", "temperature": 1 / LN2}, [2 / 3, 1 / 3]),
        ([0.5, 0.3], {"normalisation": "minmax", "temperature": 1 / LN2}, [2 / 3, 1 / 3]),
        # Nothing to tell apart, and no division by 0.
        ([1234.567] * 3, {"normalisation": "zscore"}, [1 / 3] * 3),
        ([1234.567] * 3, {"normalisation": "minmax"}, [1 / 3] * 3),
    ],
)
def test_probabilities_of_a_teacher(scores, settings, expected):
    # Beside another row, to which nothing of it may go over.
    found = teacher_targets(torch.tensor([scores, [100.0] + [0.0] * (len(scores) - 1)]), **settings)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_loss_with_a_sharpened_teacher():
    """kl_div here is the cross-entropy of the teacher's probabilities, beside the contrastive loss."""
    scores = torch.tensor([[LN2, 0.0]])  # of the student: 2/3 and 1/3
    teacher = teacher_targets(torch.tensor([[0.0, LN2]]), temperature=0.5)  # 1/5 and 4/5
    expected = -(0.2 * math.log(2 / 3) + 0.8 * math.log(1 / 3)) - math.log(2 / 3)
    assert candidate_loss(scores, 2, teacher, "kl_div").item() == pytest.approx(expected, abs=1e-6)


def scaled(rows, change):
    """The same rows with other teacher scores, group by group of three."""
    scores = torch.tensor(rows.teacher_scores).view(-1, 3)
    return rows._replace(teacher_scores=change(scores).flatten().tolist())


@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"teacher_temperature": 0.25}, lambda scores: scores / 0.25),
        (
            {"teacher_normalisation": "zscore", "teacher_temperature": 0.5},
            lambda scores: 2 * (scores - scores.mean(1, True)) / scores.std(1, correction=0, keepdim=True),
        ),
        (
            {"teacher_normalisation": "minmax"},
            lambda scores: (scores - scores.amin(1, True)) / (scores.amax(1, True) - scores.amin(1, True)),
        ),
    ],
)
def test_the_model_trains_as_with_scores_that_were_changed_beforehand(starter, kind, settings, change):
    rows = make_rows(3, 3, teacher=True)
    as_is, model = load(M3Model, starter, kd_loss_type=kind), load(M3Model, starter, kd_loss_type=kind, **settings)
    loss = losses_and_gradients(model, collate(model, rows)).loss.item()
    assert loss == pytest.approx(
        losses_and_gradients(as_is, collate(as_is, scaled(rows, change))).loss.item(), rel=1e-5
    )
    assert loss != pytest.approx(losses_and_gradients(as_is, collate(as_is, rows)).loss.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"teacher_temperature": 0.0}, "teacher_temperature is a number above 0, not '0.0'"),
        ({"teacher_temperature": math.inf}, "teacher_temperature is a number above 0"),
        ({"teacher_normalisation": "softmax"}, "teacher_normalisation is none, zscore or minmax, not 'softmax'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, told):
    with pytest.raises(KitError, match=told):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
