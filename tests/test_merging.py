"""Base and tuned model mixed after training: the very weights, the share that measures best, no other file touched."""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLE_DATA
from runs import arguments, train, weights, write_rows

from m3kit.errors import KitError
from m3kit.run_folder.run_record import read_record
from m3kit.training.arguments import TrainingArguments


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_what_is_no_share_is_refused(tmp_path, share):
    with pytest.raises(KitError, match="merge_shares"):
        TrainingArguments(output_dir=str(tmp_path), merge_shares=[share], use_cpu=True)


@pytest.mark.slow
@pytest.mark.parametrize("measured", [False, True])
def test_every_weight_lies_between_base_and_tuned(starter, tmp_path, measured):
    words = arguments(starter, write_rows(tmp_path / "rows"), tmp_path / "output", max_steps=4)
    shares = ["0.25"]
    if measured:
        shares = ["1", "0.5", "0.25"]
        words += ["--eval_data", str(EXAMPLE_DATA / "eval")]
    run = train([*words, "--merge_shares", *shares])
    record = read_record(run.output)
    share = record.merge["share"]
    assert f"The model is {share:g} of the tuned one" in (run.output / "train.log").read_text("utf-8")
    if measured:
        figures = record.merge["measured"]
        assert [float(one) for one in figures] == [1, 0.5, 0.25]
        # Of equals the one with most of the base.
        assert share == min(float(one) for one, figure in figures.items() if figure == max(figures.values()))
        # With all of the tuned model it is the checkpoint's own figure.
        assert figures["1"] == pytest.approx(record.best["eval_hybrid_nDCG@10"], abs=1e-6)
        # Of the example's 83 queries none are left to judge.
        assert record.chosen_on == "all"
    else:
        assert share == 0.25 and record.chosen_on is None
    step = record.best["step"] if record.best else 4
    base, tuned, mixed = weights(starter), weights(run.output / f"checkpoint-{step}"), weights(run.output)
    assert mixed.keys() == tuned.keys()
    changed = 0
    for name, tensor in mixed.items():
        if not name.startswith("pooler."):
            assert torch.allclose(tensor, torch.lerp(base[name], tuned[name], share), atol=1e-6), name
            changed += not torch.equal(base[name], tuned[name])
    assert changed
