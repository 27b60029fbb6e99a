"""What reaches the model, on the rows and settings with which FlagEmbedding fails or trains on something else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from conftest import mostly_slow, write_jsonl
from runs import arguments
from test_trainer import runner
from transformers import AutoTokenizer

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.training.model import M3Model

ROWS = [{"query": f"query {i} moon", "pos": [f"river {i}"], "neg": [f"stone {i}", f"glass {i}"]} for i in range(16)]
ONE_NEGATIVE = [{"query": f"query {i} moon", "positive": f"river {i}", "negative": f"stone {i}"} for i in range(16)]
LABELLED = [{"text": f"query {i} moon", "label": ["river", "stone"][i % 2]} for i in range(16)]


@pytest.mark.parametrize(
    ("folder", "rows", "settings", "batch", "group"),
    mostly_slow(
        [
            ("native", ROWS, {"gradient_checkpointing": True, "sub_batch_size": 3}, 4, 3),
            ("classification-no_in_batch_neg", LABELLED, {"train_group_size": 8}, 4, 2),
            ("native", ROWS, {}, 4, 3),
            ("native", ROWS, {"sub_batch_size": 3}, 4, 3),
            ("native", ROWS, {"same_dataset_within_batch": False}, 4, 3),
            ("native", ROWS, {"unified_finetuning": False, "sub_batch_size": 2}, 4, 3),
            ("native-no_in_batch_neg", ROWS, {}, 8, 3),
            ("native-no_in_batch_neg", ROWS, {"sub_batch_size": 5}, 8, 3),
            ("retrieval", ONE_NEGATIVE, {"train_group_size": 8}, 4, 2),
        ],
        2,
    ),
)
def test_texts_are_whole_and_losses_finite(starter, tmp_path, monkeypatch, folder, rows, settings, batch, group):
    prepared = tmp_path / "prepared"
    prepare([write_jsonl(tmp_path / folder / "train.jsonl", rows)], prepared, Settings())
    seen, plain = [], M3Model.forward

    def forward(self, **inputs):
        output = plain(self, **inputs)
        seen.append((inputs, output))
        return output

    monkeypatch.setattr(M3Model, "forward", forward)
    (made,) = (path for path in prepared.iterdir() if path.is_dir())
    words = arguments(starter, prepared, Path(tmp_path / "output"), dataloader_num_workers=0, max_steps=3)
    words = [*words, "--per_device_train_batch_size", str(batch)]
    words = ["--train_data", str(made), *words[words.index("--model_name_or_path") :]]
    runner([*words, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]).run()

    tokenizer = AutoTokenizer.from_pretrained(starter)

    def texts(side):
        pieces = side if isinstance(side, list) else [side]
        return [
            text for piece in pieces for text in tokenizer.batch_decode(piece["input_ids"], skip_special_tokens=True)
        ]

    assert len(seen) == 3
    for inputs, output in seen:
        queries, passages = texts(inputs["queries"]), texts(inputs["passages"])
        assert (len(queries), len(passages)) == (batch, batch * group)
        assert all(query.strip().startswith("query ") and "None" not in query for query in queries)
        assert all(passage.split()[0] in ("river", "stone", "glass") for passage in passages)
        assert inputs["no_in_batch_neg_flag"] == folder.endswith("no_in_batch_neg")
        losses = {"loss": output.loss, **output.parts}
        assert all(math.isfinite(loss.item()) and loss.item() > 0 for loss in losses.values()), losses
        assert "None" not in " ".join(queries + passages)
