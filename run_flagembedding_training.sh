#!/usr/bin/env bash
# Fine-tune BAAI/bge-m3 on two or more GPUs, with negatives shared across them: check, prepare, train, evaluate.
#
# Usage: run_flagembedding_training.sh [--smoke] [--dry-run] [--SETTING VALUE …]
#
#   --help      this text, and all settings
#   --dry-run   print the commands that would be run, and the memory they would take; do nothing
#   --smoke     try everything in a few minutes: a tiny model made here, the example data, on the CPU where there is no
#               GPU, no download of a model. It changes defaults only; what you set yourself still counts.
#
# A setting is edited in this file, or given in the environment under its upper-case name, or as an argument, which wins.
# All that --help lists can be given, and all arguments of transformers' and FlagEmbedding's trainer (--weight_decay 0.01):
#
#   LEARNING_RATE=5e-6 ./run_flagembedding_training.sh
#   ./run_flagembedding_training.sh --recipe best --train_data my_data --output_dir outputs/mine
#
# CUDA_VISIBLE_DEVICES chooses the GPUs, PYTHON the interpreter; M3KIT_DEBUG=1 shows every command and all output.

# shellcheck disable=SC2034  # scripts/run.sh reads the variables
set -Eeuo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/scripts/lib.sh"
# shellcheck source=scripts/run.sh
source "$KIT_DIR/scripts/run.sh"

# ---- What to train on, and where to -----------------------------------------------------------------------------------
model_name_or_path="${MODEL_NAME_OR_PATH:-BAAI/bge-m3}"     # a name on the Hugging Face Hub, or a folder
train_data=(                                                # folders or files; TRAIN_DATA=a:b for several
  "$KIT_DIR/example_data/retrieval"
  "$KIT_DIR/example_data/sts"
  "$KIT_DIR/example_data/classification-no_in_batch_neg"
  "$KIT_DIR/example_data/clustering-no_in_batch_neg"
)
eval_data="${EVAL_DATA:-auto}"                              # a folder; auto: eval/ beside the data, or rows held out; none
output_dir="${OUTPUT_DIR:-$KIT_DIR/outputs/test_encoder_only_m3_bge-m3}"
cache_dir="${CACHE_DIR:-}"                                  # where Hub models are kept; empty: the Hub library's place

# ---- The machine ------------------------------------------------------------------------------------------------------
num_gpus="${NUM_GPUS:-auto}"                                # auto: all
precision="${PRECISION:-fp16}"                              # fp16, bf16 (if fp16 gives a loss of 0 or NaN), fp32, auto
gradient_checkpointing="${GRADIENT_CHECKPOINTING:-True}"    # less memory, a fifth to a third slower
negatives_cross_device="${NEGATIVES_CROSS_DEVICE:-True}"    # the other GPUs' passages are negatives too
deepspeed="${DEEPSPEED:-$KIT_DIR/ds_stage0.json}"           # a DeepSpeed configuration; none: plain DDP

# ---- The learning -----------------------------------------------------------------------------------------------------
recipe="${RECIPE:-classic}"                                 # best: what is left as it is here is chosen from your rows
learning_rate="${LEARNING_RATE:-1e-5}"
num_train_epochs="${NUM_TRAIN_EPOCHS:-4}"
per_device_train_batch_size="${PER_DEVICE_TRAIN_BATCH_SIZE:-2}"  # queries, each other's negatives: the more the better
train_group_size="${TRAIN_GROUP_SIZE:-8}"                   # passages a query: 1 positive and 7 negatives
query_max_len="${QUERY_MAX_LEN:-512}"                       # tokens
passage_max_len="${PASSAGE_MAX_LEN:-512}"                   # tokens, up to 8192 for bge-m3
sentence_pooling_method="${SENTENCE_POOLING_METHOD:-cls}"
temperature="${TEMPERATURE:-0.02}"
unified_finetuning="${UNIFIED_FINETUNING:-True}"            # dense, sparse and ColBERT together; False: dense only
use_self_distill="${USE_SELF_DISTILL:-True}"                # the three together teach each of them
save_steps="${SAVE_STEPS:-1000}"                            # between two checkpoints, from which a run goes on

run_training multi "$@"
