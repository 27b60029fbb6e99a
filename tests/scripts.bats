#!/usr/bin/env bats
# What the two training scripts train with: defaults, the environment, arguments, --smoke. All with fakes.
# shellcheck disable=SC2154  # output, status and words are set by run and by torchrun_words

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# ---- what they train with ---------------------------------------------------------------------------------------------

@test "what report_to needs is looked for in the Python that trains, and the cure names it" {
  for script in "$SINGLE" "$MULTI"; do
    FAKE_LACKS_MODULE=wandb run "$script" --dry-run --report_to wandb
    ((status == 2))
    says "report_to is wandb, and there is no such package; install it where the kit runs ($BIN/python3 -m pip install wandb)"
    run "$script" --dry-run --report_to wandb
    ((status == 0))
  done
}

@test "every default of the training" {
  gpus 2
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --dry-run
    ((status == 0))
    torchrun_words
    expect model_name_or_path BAAI/bge-m3
    expect learning_rate 1e-5
    expect num_train_epochs 4
    expect per_device_train_batch_size 2
    expect gradient_accumulation_steps 1
    expect query_max_len 512
    expect passage_max_len 512
    expect train_group_size 8
    expect sentence_pooling_method cls
    expect normalize_embeddings True
    expect temperature 0.02
    expect fp16 True
    expect gradient_checkpointing True
    expect sub_batch_tokens auto
    expect_no precision
    expect unified_finetuning True
    expect use_self_distill True
    expect self_distill_start_step 0
    expect kd_loss_type m3_kd_loss
    expect knowledge_distillation False
    expect fix_encoder False
    expect warmup_steps 0.1
    expect save_steps 1000
    expect save_total_limit 2
    expect eval_steps 0.25
    expect mixing_temperature 1
    expect logging_steps 1
    expect seed 42
    expect same_dataset_within_batch True
    expect pad_to_multiple_of 1
    expect dataloader_drop_last True
    expect overwrite_output_dir False
    expect report_to tensorboard
    expect_no bf16
    expect_no use_cpu
    expect_no cache_dir
    expect_no query_instruction_for_retrieval
  done
}

@test "one process without DeepSpeed here, all GPUs with cross-device negatives and DeepSpeed there" {
  gpus 4
  run --separate-stderr "$SINGLE" --dry-run
  torchrun_words
  expect nproc_per_node 1
  expect output_dir "$KIT/outputs/test_encoder_only_m3_bge-m3_single_gpu"
  expect_no deepspeed
  expect_no negatives_cross_device
  run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 4
  expect output_dir "$KIT/outputs/test_encoder_only_m3_bge-m3"
  expect deepspeed "$KIT/ds_stage0.json"
  expect negatives_cross_device True
  expect_no gradient_checkpointing_kwargs
}

@test "environment wins over the file, an argument over both" {
  gpus 1
  LEARNING_RATE=2e-5 SEED=7 run --separate-stderr "$SINGLE" --dry-run --learning_rate=3e-5 --query_max_len 64
  torchrun_words
  expect learning_rate 3e-5
  expect seed 7
  expect query_max_len 64
  # prepare and evaluate see it too
  says '--seed 7'
  [[ $output == *"m3kit evaluate"*"--query_max_len 64"* ]]
}

@test "every variable at the top is also one of the environment, and an argument" {
  gpus 3
  for script in "$SINGLE" "$MULTI"; do
    names=$(grep -oE '^[a-z_]+="\$\{' "$script" | grep -oE '^[a-z_]+')
    [[ $(grep -c . <<<"$names") -ge 18 ]]
    for name in $names; do
      grep -qE "^$name=\"\\$\{${name^^}:-" "$script" || fail "$name and its name in the environment differ"
    done
    run --separate-stderr "$script" --dry-run --cache-dir=c --query_instruction_for_retrieval 'find it: '
    torchrun_words
    expect cache_dir c
    expect query_instruction_for_retrieval 'find it: '
    [[ $output == *"m3kit prepare"*"--query_instruction_for_retrieval 'find it: '"* ]]
  done
}

@test "other arguments reach the trainer untouched and in order" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --weight_decay 0.1 --seed 1 --run_name 'a b(c"d' --max_steps=5 --hub_model_id '' --weight_decay 0.2
  torchrun_words
  count=${#words[@]}
  expected=(--weight_decay 0.1 --run_name 'a b(c"d' --max_steps=5 --hub_model_id '' --weight_decay 0.2)
  [[ "${words[*]:count - 9}" == "${expected[*]}" ]]
  [[ ${words[count - 3]} == '' ]]
  expect seed 1
}

@test "a switch needs no value, another variable does" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --overwrite_output_dir --fix_encoder --seed 3
  torchrun_words
  expect overwrite_output_dir True
  expect fix_encoder True
  run "$SINGLE" --dry-run --learning_rate --seed 3
  ((status == 2))
  says '--learning_rate needs a value'
}

# ---- --smoke ----------------------------------------------------------------------------------------------------------

@test "--smoke: starter model, own folder, small and on the CPU" {
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --smoke --dry-run
    ((status == 0))
    torchrun_words
    expect model_name_or_path "$KIT/cache/starter"
    [[ $(value_of output_dir) == "$KIT"/outputs/smoke?(_single_gpu) ]]
    expect learning_rate 2e-4
    expect per_device_train_batch_size 8
    expect query_max_len 128
    expect passage_max_len 128
    expect gradient_checkpointing False
    expect logging_steps 1
    expect overwrite_output_dir True
    expect use_cpu True
    expect_no fp16
    says "m3kit starter --output_dir"
  done
}

@test "--smoke changes defaults only: an edit, the environment and arguments win" {
  sed='s/NUM_TRAIN_EPOCHS:-4/NUM_TRAIN_EPOCHS:-9/; s/LEARNING_RATE:-1e-5/LEARNING_RATE:-7e-5/'
  "$(PATH=/usr/bin:/bin type -P sed)" -i "$sed" "$SINGLE"
  QUERY_MAX_LEN=32 OUTPUT_DIR=mine run --separate-stderr "$SINGLE" --smoke --dry-run --per_device_train_batch_size 3 --allow_cpu
  torchrun_words
  expect num_train_epochs 9
  expect learning_rate 7e-5
  expect query_max_len 32
  expect output_dir mine
  expect per_device_train_batch_size 3
  expect passage_max_len 128
}

@test "--smoke with a real model keeps the learning rate of a real one" {
  run --separate-stderr "$SINGLE" --smoke --dry-run --model_name_or_path BAAI/bge-m3
  torchrun_words
  expect learning_rate 1e-5
  says_not 'm3kit starter'
}

@test "--smoke uses a GPU where there is one" {
  gpus 1
  run --separate-stderr "$SINGLE" --smoke --dry-run
  torchrun_words
  expect fp16 True
  expect_no use_cpu
}

@test "--help is the comment at the top" {
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --help
    ((status == 0))
    says 'Usage: run_flagembedding_training'
    says '--smoke'
    says 'LEARNING_RATE=5e-6'
    says_not shellcheck
  done
}
