#!/usr/bin/env bash
# Fine-tune BAAI/bge-m3 on two or more GPUs, with negatives shared across them: check, prepare, train, evaluate.
#
# Usage: run_flagembedding_training.sh [--smoke] [--dry-run] [--VARIABLE VALUE …] [TRAINER ARGUMENTS …]
#
#   --help      this text
#   --dry-run   print what would be done and the exact commands; do nothing
#   --smoke     try everything in a few minutes: a tiny model made here, the example data, on the CPU where there is no
#               GPU, no download of a model. It changes defaults only; what you set yourself still counts.
#
# What to train, and how, are the variables at the top of this file. Each can be changed there, or given in the
# environment under its name in upper case, or given as an argument (which wins):
#
#   LEARNING_RATE=5e-6 ./run_flagembedding_training.sh
#   ./run_flagembedding_training.sh --train_data my_data/retrieval my_data/sts --output_dir outputs/mine
#   TRAIN_DATA=my_data/retrieval:my_data/sts EVAL_DATA=my_data/eval ./run_flagembedding_training.sh
#
# All other arguments go on to the trainer as they are, for example --weight_decay 0.01 or --max_steps 100.
#
# Further environment: CUDA_VISIBLE_DEVICES chooses the GPUs, PYTHON the interpreter, M3KIT_DEBUG=1 shows every command.

# shellcheck disable=SC2034  # the variables are used in scripts/training.sh
set -Eeuo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/lib.sh"
# shellcheck source=scripts/training.sh
source "$KIT_DIR/scripts/training.sh"

# ---- What to train on, and where to -----------------------------------------------------------------------------------
model_name_or_path="${MODEL_NAME_OR_PATH:-BAAI/bge-m3}"     # a name on the Hugging Face Hub, or a folder
train_data=(                                                # folders or files; TRAIN_DATA=a:b for several
  "$KIT_DIR/example_data/retrieval"
  "$KIT_DIR/example_data/sts"
  "$KIT_DIR/example_data/classification-no_in_batch_neg"
  "$KIT_DIR/example_data/clustering-no_in_batch_neg"
)
eval_data="${EVAL_DATA:-auto}"                              # a folder; auto: eval/ beside the training data, or holdout; none
holdout="${HOLDOUT:-0.05}"                                  # share of the queries kept back where auto finds no eval/; 0: none
output_dir="${OUTPUT_DIR:-$KIT_DIR/outputs/test_encoder_only_m3_bge-m3}"
overwrite_output_dir="${OVERWRITE_OUTPUT_DIR:-False}"       # True deletes the run that output_dir holds; otherwise an unfinished one goes on
cache_dir="${CACHE_DIR:-}"                                  # where Hub models are kept; empty: the Hub library's place
entrypoint="${ENTRYPOINT:-m3kit.training}"                  # FlagEmbedding.finetune.embedder.encoder_only.m3: the library as it is

# ---- The machine ------------------------------------------------------------------------------------------------------
num_gpus="${NUM_GPUS:-auto}"                                # auto: all; for one there is run_flagembedding_training_single_gpu.sh
allow_cpu="${ALLOW_CPU:-False}"                             # True trains on the CPU where there is no GPU: very slow
precision="${PRECISION:-fp16}"                              # fp16, bf16 (if fp16 gives a loss of 0 or NaN), fp32, or auto: bf16 where it is fast
gradient_checkpointing="${GRADIENT_CHECKPOINTING:-True}"    # less memory, a fifth to a third slower
sub_batch_tokens="${SUB_BATCH_TOKENS:-16384}"               # padded tokens that are encoded at once: fewer take less memory
negatives_cross_device="${NEGATIVES_CROSS_DEVICE:-True}"    # the other GPUs' passages are negatives too
unified_negatives_cross_device="${UNIFIED_NEGATIVES_CROSS_DEVICE:-False}"  # for the sparse and ColBERT scores too
deepspeed="${DEEPSPEED:-$KIT_DIR/ds_stage0.json}"           # a DeepSpeed configuration; none: plain DDP

# ---- The learning -----------------------------------------------------------------------------------------------------
recipe="${RECIPE:-classic}"                                 # best: batch, rate, losses and more are chosen from your rows, with reasons
mine_negatives="${MINE_NEGATIVES:-False}"                   # True, with best: hard negatives from your own passages
learning_rate="${LEARNING_RATE:-1e-5}"
num_train_epochs="${NUM_TRAIN_EPOCHS:-4}"
per_device_train_batch_size="${PER_DEVICE_TRAIN_BATCH_SIZE:-2}"  # queries, each other's negatives: the more the better; auto: as many as fit, found by a probe
gradient_accumulation_steps="${GRADIENT_ACCUMULATION_STEPS:-1}"  # larger steps, but no more negatives
warmup_steps="${WARMUP_STEPS:-0.1}"                         # below 1: that part of all steps
dataloader_drop_last="${DATALOADER_DROP_LAST:-True}"
seed="${SEED:-42}"

# ---- The rows ---------------------------------------------------------------------------------------------------------
train_group_size="${TRAIN_GROUP_SIZE:-8}"                   # passages a query: 1 positive and 7 negatives
query_max_len="${QUERY_MAX_LEN:-512}"                       # tokens
passage_max_len="${PASSAGE_MAX_LEN:-512}"                   # tokens, up to 8192 for bge-m3
pad_to_multiple_of="${PAD_TO_MULTIPLE_OF:-1}"                 # 1: to the longest text of a sub-batch, and next to nothing is padding
same_dataset_within_batch="${SAME_DATASET_WITHIN_BATCH:-True}"   # needed by the suffix no_in_batch_neg of a folder
mixing_temperature="${MIXING_TEMPERATURE:-1}"               # 1: every row once an epoch; above: small data sets come more often
query_instruction_for_retrieval="${QUERY_INSTRUCTION_FOR_RETRIEVAL:-}"  # bge-m3 needs none
columns="${DATA_COLUMNS:-}"                                 # query=question,positive=answer; Bash keeps COLUMNS for itself
task="${TASK:-}"                                            # classification or clustering, where no folder's name says it
classification_positives="${CLASSIFICATION_POSITIVES:-labels}"  # a label's text, other texts of the label (texts), or both
label_negatives="${LABEL_NEGATIVES:-auto}"                  # a text's negatives: other rows' labels (batch) or some of its own (group)
sts_max_score="${STS_MAX_SCORE:-1}"                         # 5 for scores of 0 to 5
sts_as="${STS_AS:-graded}"                                  # pairs by their scores, or contrastive: as positives and hard negatives
skip_bad_rows="${SKIP_BAD_ROWS:-False}"                     # True sets them aside in prepared/rejected.jsonl and goes on
strict="${STRICT:-False}"                                   # True stops at warnings too

# ---- The model and its losses -----------------------------------------------------------------------------------------
sentence_pooling_method="${SENTENCE_POOLING_METHOD:-cls}"
normalize_embeddings="${NORMALIZE_EMBEDDINGS:-True}"
temperature="${TEMPERATURE:-0.02}"
unified_finetuning="${UNIFIED_FINETUNING:-True}"            # dense, sparse and ColBERT together; False: dense only
use_self_distill="${USE_SELF_DISTILL:-True}"                # the three together teach each of them
self_distill_start_step="${SELF_DISTILL_START_STEP:-0}"
fix_encoder="${FIX_ENCODER:-False}"                         # True trains the sparse and ColBERT heads only
knowledge_distillation="${KNOWLEDGE_DISTILLATION:-False}"   # True when the rows have pos_scores and neg_scores
kd_loss_type="${KD_LOSS_TYPE:-m3_kd_loss}"

# ---- What is kept -----------------------------------------------------------------------------------------------------
save_steps="${SAVE_STEPS:-1000}"                            # between two checkpoints, from which an interrupted run goes on
save_total_limit="${SAVE_TOTAL_LIMIT:-2}"                   # checkpoints that are kept, the newest, and the best besides
eval_steps="${EVAL_STEPS:-0.25}"                            # between two evaluations while training; below 1: that part of all steps
logging_steps="${LOGGING_STEPS:-1}"                         # between two lines of the log
report_to="${REPORT_TO:-tensorboard}"                       # the curves: tensorboard --logdir OUTPUT_DIR/runs

run_training multi "$@"
