"""sentence-transformers as its documentation has it: ``python -m referee.sentence SPECIFICATION``, a JSON file.

Retrieval: MultipleNegativesRankingLoss (``cached`` for the one for large batches) over query, positive and the given
negative, or over negatives of its own ``mine_hard_negatives``. STS: CoSENTLoss. Classification: text and label text by
MultipleNegativesRankingLoss, no label twice in a batch. CPU seconds: mining and training, without start-up.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from referee.sets import texts_of


def main() -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import mine_hard_negatives
    from transformers import set_seed

    spec = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text("utf-8").split("\n") if line]
    set_seed(spec["seed"])
    model = SentenceTransformer(spec["base"], device=None if torch.cuda.is_available() else "cpu")
    model.max_seq_length = spec["max_len"]
    before = cpu_seconds()
    cosent = "score" in rows[0]
    if cosent:
        data, loss = Dataset.from_list(rows), losses.CoSENTLoss(model)
    else:
        if "label" in rows[0]:
            pairs = [{"anchor": row["text"], "positive": row["label"].replace("_", " ")} for row in rows]
        else:
            sides = ["positive", *(["negative"] if all(texts_of(row, "negative") for row in rows) else [])]
            pairs = [{"anchor": row["query"], **{side: texts_of(row, side)[0] for side in sides}} for row in rows]
        data = Dataset.from_list(pairs)
        if spec.get("mined"):
            passages = list(dict.fromkeys(row[side] for row in pairs for side in sides))
            data = mine_hard_negatives(
                data.select_columns(["anchor", "positive"]),
                model,
                corpus=passages,
                relative_margin=0.05,
                num_negatives=spec["mined"],
                output_format="n-tuple",
                verbose=False,
            )
        kind = "CachedMultipleNegativesRankingLoss" if spec.get("cached") else "MultipleNegativesRankingLoss"
        loss = getattr(losses, kind)(model)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=spec["output_dir"],
        num_train_epochs=spec["epochs"],
        per_device_train_batch_size=spec["batch_size"],
        learning_rate=spec["learning_rate"],
        warmup_steps=0.1,
        batch_sampler="batch_sampler" if cosent else "no_duplicates",
        bf16=spec["bf16"],
        seed=spec["seed"],
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=100,
        use_cpu=not torch.cuda.is_available(),
    )
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    seconds = cpu_seconds() - before
    model.save_pretrained(spec["output_dir"])
    Path(spec["result"]).write_text(json.dumps({"cpu_seconds": seconds, "rows": len(data)}), "utf-8")


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    main()
