"""Every setting of the kit, once: name, default, what it may be, what it is for, and who is told of it.

From this list come the arguments of the verbs and of the trainer, ``--help`` of the scripts, docs/settings.md, and what
``m3kit plan`` accepts. Only the standard library is used here: a plan is made before the packages are installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from m3kit.errors import KitError
from m3kit.kinds import POSITIVE, SWITCH, TEXT, Kind, choice, number, several, share, whole

DATA = "What to train on, and where to"
MACHINE = "The machine"
LEARNING = "The learning"
ROWS = "The rows"
MODEL = "The model and its losses"
KEPT = "What is kept"


@dataclass(frozen=True)
class Setting:
    """``default`` is as it is typed; empty: not set. ``to``: the steps that are told of it.

    ``trainer``: FlagEmbedding's or transformers' own argument; ``kit``: the kit's trainer alone has it, or
    its data (``kit data``); ``prepare``.
    ``multi``: of the script for several GPUs, ``several`` that it is an argument of this script alone.
    """

    name: str
    default: str
    kind: Kind
    help: str
    section: str
    to: str = ""
    environment: str = ""
    multi: str | None = None
    several: bool = False

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return self.environment or self.name.upper()

    def default_of(self, script: str) -> str:
        return self.multi if script == "multi" and self.multi is not None else self.default

    def parse(self, text: str) -> Any:
        """The value. Raises ``KitError`` that says what the setting may be."""
        try:
            return self.kind.parse(text)
        except ValueError as error:
            raise KitError(f"{self.name} is {self.kind.words}, not '{text}'") from error


_MODELS = "Hub models are kept here; empty: the Hub library's own place"
LIBRARY = "FlagEmbedding.finetune.embedder.encoder_only.m3"
_KD = "with knowledge_distillation"

SETTINGS = (
    Setting("model_name_or_path", "BAAI/bge-m3", TEXT, "a name on the Hugging Face Hub, or a folder", DATA, "trainer"),
    Setting("train_data", "example_data", TEXT, "folders or files; TRAIN_DATA=a:b for several", DATA),
    Setting(
        "eval_data", "auto", TEXT, "a folder; auto: eval/ beside the training data, otherwise holdout; or none", DATA
    ),
    Setting(
        "holdout",
        "0.05",
        share(from_zero=True, below_one=True, words="a share of the queries, from 0 to below 1 (0.05)"),
        "share of the queries kept back for evaluation where auto finds no eval/; 0: none",
        DATA,
    ),
    Setting(
        "output_dir",
        "outputs/test_encoder_only_m3_bge-m3_single_gpu",
        TEXT,
        "checkpoints, logs, configuration, tokenizer, report",
        DATA,
        "trainer",
        multi="outputs/test_encoder_only_m3_bge-m3",
    ),
    Setting(
        "overwrite_output_dir",
        "False",
        SWITCH,
        "True deletes the run that output_dir holds; otherwise an unfinished run goes on, and a finished one is kept",
        DATA,
        "kit",
    ),
    Setting("cache_dir", "", TEXT, _MODELS, DATA, "trainer prepare"),
    Setting(
        "entrypoint", "m3kit.training", choice("m3kit.training", LIBRARY), "the kit, or the library untouched", DATA
    ),
    Setting(
        "num_gpus",
        "1",
        whole(1, auto=True, words="a number or auto"),
        "auto: all that CUDA_VISIBLE_DEVICES leaves",
        MACHINE,
        multi="auto",
    ),
    Setting("allow_cpu", "False", SWITCH, "True trains on the CPU where there is no GPU: very slow", MACHINE),
    Setting(
        "precision",
        "fp16",
        choice("auto", "fp16", "bf16", "fp32"),
        "bf16 if fp16 gives a loss of 0 or NaN; auto: bf16 where it is fast",
        MACHINE,
    ),
    Setting("gradient_checkpointing", "True", SWITCH, "less memory, a fifth to a third slower", MACHINE, "trainer"),
    Setting(
        "sub_batch_tokens",
        "auto",
        whole(1, auto=True),
        "tokens, padding included, that are encoded at once and whose activations are kept; what a batch has more is "
        "encoded again for its gradients: fewer take less memory, and the loss is the same. auto: what fits, found "
        "before the first step",
        MACHINE,
        "kit",
    ),
    Setting(
        "negatives_cross_device",
        "True",
        SWITCH,
        "the other GPUs' passages are negatives too",
        MACHINE,
        "trainer",
        several=True,
    ),
    Setting(
        "unified_negatives_cross_device",
        "False",
        SWITCH,
        "with negatives_cross_device: for the sparse, ColBERT and ensemble scores too",
        MACHINE,
        "kit",
        several=True,
    ),
    Setting("deepspeed", "", TEXT, "a DeepSpeed configuration; none: plain DDP", MACHINE, multi="ds_stage0.json"),
    Setting(
        "attn_implementation",
        "auto",
        choice("auto", "flash_attention_2", "sdpa", "eager"),
        "the kernel of attention; auto: the first of these that machine, precision and model have",
        MACHINE,
        "kit",
    ),
    Setting(
        "dataloader_num_workers",
        "2",
        whole(0),
        "processes that make batches ahead of the step; FlagEmbedding has none (D8), the kit 2",
        MACHINE,
        "kit",
    ),
    Setting(
        "recipe",
        "classic",
        choice("classic", "best"),
        "best: batch, learning rate, losses and more are chosen from your rows, each with its reason",
        LEARNING,
    ),
    Setting("mine_negatives", "False", SWITCH, "with recipe=best: hard negatives from your own passages", LEARNING),
    Setting("learning_rate", "1e-5", number(above=0), "the highest, after the warm-up", LEARNING, "trainer"),
    Setting("num_train_epochs", "4", number(above=0), "passes over the rows", LEARNING, "trainer"),
    Setting(
        "per_device_train_batch_size",
        "2",
        whole(1, words="a whole number above 0 (recipe=best chooses one)"),
        "queries a GPU and step, each other's negatives: the more the better; memory is no limit (sub_batch_tokens)",
        LEARNING,
        "trainer",
    ),
    Setting("gradient_accumulation_steps", "1", POSITIVE, "larger steps, but no more negatives", LEARNING, "trainer"),
    Setting("warmup_steps", "0.1", number(low=0), "below 1: that part of all steps", LEARNING, "trainer"),
    Setting(
        "dataloader_drop_last",
        "True",
        SWITCH,
        "leave out the last batch, if smaller (the kit makes whole batches)",
        LEARNING,
        "trainer",
    ),
    Setting("seed", "42", whole(0), "of order, negatives and dropout", LEARNING, "trainer prepare"),
    Setting(
        "train_group_size",
        "8",
        whole(2, words="2 or more: a softmax over one candidate teaches nothing"),
        "passages a query: 1 positive and 7 negatives",
        ROWS,
        "trainer prepare",
    ),
    Setting("query_max_len", "512", POSITIVE, "tokens", ROWS, "trainer"),
    Setting("passage_max_len", "512", POSITIVE, "tokens, up to 8192 for bge-m3", ROWS, "trainer"),
    Setting(
        "pad_to_multiple_of", "1", POSITIVE, "1: to the longest text of a sub-batch; little is padding", ROWS, "trainer"
    ),
    Setting(
        "same_dataset_within_batch",
        "True",
        SWITCH,
        "batches of one data set each; without it no_in_batch_neg in a folder's name is ignored (D4)",
        ROWS,
        "trainer",
    ),
    Setting(
        "mixing_temperature",
        "1",
        number(above=0),
        "how often each data set comes: its rows to the power of 1/temperature. 1: every row once an epoch; above: "
        "small data sets come more often, with as many batches in all",
        ROWS,
        "kit data",
    ),
    Setting(
        "query_instruction_for_retrieval",
        "",
        TEXT,
        "text put before each query; bge-m3 needs none",
        ROWS,
        "trainer prepare",
    ),
    Setting(
        "columns",
        "",
        TEXT,
        "which column holds which field: query=question,positive=answer",
        ROWS,
        "prepare",
        environment="DATA_COLUMNS",  # Bash keeps COLUMNS for itself
    ),
    Setting(
        "task",
        "",
        choice("classification", "clustering"),
        "what rows of text and label are for, where the name of their folder does not say it",
        ROWS,
        "prepare",
    ),
    Setting(
        "classification_positives",
        "labels",
        choice("labels", "texts", "both"),
        "what a classified text is trained on: its label's own text, other texts of the label, or both",
        ROWS,
        "prepare",
    ),
    Setting(
        "label_negatives",
        "auto",
        choice("auto", "batch", "group"),
        "negatives of classified texts: the labels of the batch's other rows (batch), labels that each row brings "
        "(group), or what has more of them at less cost (auto)",
        ROWS,
        "kit data",
    ),
    Setting(
        "sts_max_score",
        "1",
        number(above=0, words="the largest score of the files, above 0"),
        "what STS scores are divided by: 5 for scores of 0 to 5",
        ROWS,
        "prepare",
    ),
    Setting(
        "sts_as",
        "graded",
        choice("graded", "contrastive"),
        "STS pairs by their scores, or as positives (0.8 or more) and hard negatives (0.4 or less), which the library "
        "untouched can train too",
        ROWS,
        "prepare",
    ),
    Setting(
        "skip_bad_rows",
        "False",
        SWITCH,
        "True sets bad rows aside, with the reasons, in prepared/rejected.jsonl, and goes on",
        ROWS,
        "prepare",
    ),
    Setting("strict", "False", SWITCH, "True stops at warnings too", ROWS, "prepare"),
    Setting(
        "sentence_pooling_method",
        "cls",
        choice("cls", "mean", "last_token"),
        "the text's vector: that of its first token, the mean of all, or the last",
        MODEL,
        "trainer",
    ),
    Setting("normalize_embeddings", "True", SWITCH, "dense vectors have length 1", MODEL, "trainer"),
    Setting("temperature", "0.02", number(above=0), "scores are divided by it", MODEL, "trainer"),
    Setting(
        "dense_temperature",
        "",
        number(above=0),
        "of the dense loss, where it is not temperature: models differ in how far apart their cosines lie",
        MODEL,
        "kit",
    ),
    Setting(
        "unified_finetuning", "True", SWITCH, "dense, sparse and ColBERT together; False: dense only", MODEL, "trainer"
    ),
    Setting("use_self_distill", "True", SWITCH, "the three together teach each of them", MODEL, "trainer"),
    Setting("self_distill_start_step", "0", whole(-1), "steps before that begins", MODEL, "trainer"),
    Setting(
        "heads_reach",
        "1",
        share(from_zero=True),
        "how much of the gradients of all losses but the dense one reaches the encoder: 1, as in FlagEmbedding, all; "
        "0: the heads learn, and the encoder from the dense loss alone. With few rows the ColBERT loss pulls the "
        "encoder away from a good dense space",
        MODEL,
        "kit",
    ),
    Setting("fix_encoder", "False", SWITCH, "True trains the sparse and ColBERT heads only", MODEL, "trainer"),
    Setting(
        "freeze_word_embeddings",
        "False",
        SWITCH,
        "train all but the table of word embeddings: of bge-m3 not quite half of the parameters, whose optimizer state "
        "and updates are saved",
        MODEL,
        "kit",
    ),
    Setting(
        "lora_rank",
        "0",
        whole(0, words="a whole number, 0 for none"),
        "train adapters of this rank (8 to 64) on the encoder's linear layers, and the heads, instead of all weights: "
        "less memory, at about ten times the learning rate; 0: off",
        MODEL,
        "kit",
    ),
    Setting(
        "merge_shares",
        "",
        several(share(words="a share of the tuned model, above 0 and up to 1")),
        "after training the base is mixed in: the share of the tuned weights, such as 0.5; of several the one that is "
        "best on the evaluation data, or the first without such data",
        MODEL,
        "kit",
    ),
    Setting("knowledge_distillation", "False", SWITCH, "for rows with pos_scores and neg_scores", MODEL, "trainer"),
    Setting("kd_loss_type", "m3_kd_loss", choice("m3_kd_loss", "kl_div"), f"{_KD}: its loss", MODEL, "trainer"),
    Setting(
        "teacher_temperature",
        "1",
        number(above=0),
        f"{_KD}: teacher scores are divided by it; below 1 the teacher is surer. Of cosines, as `m3kit score --teacher "
        "hybrid` gives them, 0.02 to 0.1",
        MODEL,
        "kit",
    ),
    Setting(
        "teacher_normalisation",
        "none",
        choice("none", "zscore", "minmax"),
        f"{_KD}: what is done to a query's teacher scores before that: mean 0 and standard deviation 1, or 0 … 1",
        MODEL,
        "kit",
    ),
    Setting("save_steps", "1000", number(above=0), "between two checkpoints; a run goes on from them", KEPT, "trainer"),
    Setting("save_total_limit", "2", POSITIVE, "checkpoints kept: the newest, and the best besides", KEPT, "trainer"),
    Setting(
        "eval_steps",
        "0.25",
        number(above=0),
        "between two evaluations while training, after which the best is kept; below 1: that part of all steps",
        KEPT,
        "kit",
    ),
    Setting("logging_steps", "1", number(above=0), "between two lines of the log", KEPT, "trainer"),
    Setting("report_to", "tensorboard", TEXT, "the curves: tensorboard --logdir OUTPUT_DIR; or none", KEPT, "trainer"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def trainer_fields(to: str) -> list[tuple[str, Any, Any]]:
    """Return the settings with this ``to`` as ``make_dataclass`` takes them: (name, type, dataclass field) each."""
    fields = []
    for setting in SETTINGS:
        if setting.to == to:
            kind: Any = list.__class_getitem__(setting.kind.type) if setting.kind.many else setting.kind.type
            default = setting.kind.parse(setting.default) if setting.default else None
            declared = field(default=default, metadata={"help": setting.help})
            fields.append((setting.name, kind if setting.default else kind | None, declared))
    return fields


def check_values(settings: Any) -> None:
    """Raise ``KitError`` for the first attribute that the kit's setting of its name would not take; None is none."""
    for name, value in vars(settings).items():
        if name in BY_NAME and BY_NAME[name].to.startswith("kit") and value is not None:
            for one in value if isinstance(value, list) else [value]:
                BY_NAME[name].parse(str(one))
