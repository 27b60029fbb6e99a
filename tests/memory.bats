#!/usr/bin/env bats
# The memory plan that a dry run shows.
# shellcheck disable=SC2154,SC2030,SC2031  # run sets output and status; every test is a subshell, and means to be

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# usage: memory_words    sets words to the logged command of the memory plan
memory_words() {
  output=$(cat "$LOG")
  command_words 'm3kit memory '
}

@test "a dry run asks for the memory plan of what would be trained, in the device's and the script's own terms" {
  gpus 1
  PER_DEVICE_TRAIN_BATCH_SIZE=6 run --separate-stderr "$SINGLE" --dry-run --passage_max_len 1024 --precision bf16 --cache_dir elsewhere
  ((status == 0))
  memory_words
  expect device cuda
  expect processes 1
  expect model_name_or_path BAAI/bge-m3
  expect cache_dir elsewhere
  expect per_device_train_batch_size 6
  expect train_group_size 8
  expect query_max_len 512
  expect passage_max_len 1024
  expect sub_batch_tokens 16384
  expect precision bf16
  expect gradient_checkpointing True
  expect unified_finetuning True
  expect_no deepspeed
}

@test "the plan for several GPUs knows their number and DeepSpeed" {
  gpus 3
  run --separate-stderr "$MULTI" --dry-run
  ((status == 0))
  memory_words
  expect processes 3
  [[ " ${words[*]} " == *' --deepspeed '* ]]
  rm "$LOG"
  DEEPSPEED=none run --separate-stderr "$MULTI" --dry-run
  memory_words
  expect_no deepspeed
}

@test "the plan is talk, not a command to paste, and no dry run fails with it" {
  gpus 1
  FAKE_FAILS=memory run --separate-stderr "$SINGLE" --dry-run
  ((status == 0))
  logged 'm3kit memory'
  says_not 'm3kit memory'
}

@test "without the packages a dry run says which command makes the plan" {
  gpus 1
  FAKE_LACKS=torch run --separate-stderr "$SINGLE" --dry-run
  ((status == 0))
  [[ ! -e $LOG ]]
  says_not 'm3kit memory'
  [[ $stderr == *'.venv/bin/python'*' -m m3kit memory --device cuda'* ]]
}

@test "training makes no plan" {
  gpus 1
  run "$SINGLE" --output_dir out
  ((status == 0))
  run grep -c 'm3kit memory' "$LOG"
  ((status == 1))
}
