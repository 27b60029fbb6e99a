#!/usr/bin/env bats
# per_device_train_batch_size=auto in the two training scripts: who finds the numbers, and who gets them. All with fakes.
# shellcheck disable=SC2154,SC2030,SC2031  # run sets output and status; every test is a subshell, and means to be

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

@test "auto: between preparing and training the numbers are found, of the run's own arguments" {
  gpus 4
  run --separate-stderr "$MULTI" --output_dir 'my out' --per_device_train_batch_size auto --weight_decay 0.01
  ((status == 0))
  order=$(grep -oE 'm3kit (doctor|prepare|evaluate|report)|m3kit.training.batch_size|^torchrun' "$LOG")
  [[ $order == $'m3kit doctor\nm3kit prepare\nm3kit.training.batch_size\ntorchrun\nm3kit evaluate\nm3kit report' ]]
  logged 'm3kit.training.batch_size --processes 4 --train_data my out/prepared/retrieval my out/prepared/sts [2] '
  for words in '--per_device_train_batch_size 1 ' '--sub_batch_tokens 16384' '--fp16 True' '--weight_decay 0.01' \
    "--deepspeed $KIT/ds_stage0.json"; do
    [[ $(grep batch_size "$LOG") == *"$words"* ]] || fail "no '$words' in: $(cat "$LOG")"
  done
  [[ $(grep -A1 '^word --per_device_train_batch_size' "$LOG") == *'word 16' ]]
  [[ $(grep -A1 '^word --sub_batch_tokens' "$LOG") == *'word 8192' ]]
  [[ $stderr == *'Batch size 16 (auto): because'* && $output != *'16 8192'* ]]
}

@test "a number is taken as it is, and nothing is found" {
  gpus 1
  run "$SINGLE" --output_dir out --per_device_train_batch_size 4
  ((status == 0))
  run grep batch_size "$LOG"
  [[ $output != *m3kit.training.batch_size* ]]
  [[ $(grep -A1 '^word --per_device_train_batch_size' "$LOG") == *'word 4' ]]
}

@test "auto leaves the check for small sets out" {
  gpus 1
  PER_DEVICE_TRAIN_BATCH_SIZE=auto run --separate-stderr "$SINGLE" --dry-run
  command_words 'm3kit prepare '
  expect_no batch_size
  expect tokenizer BAAI/bge-m3
}

@test "auto in a dry run can be pasted whole, and hands on what is found" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --output_dir 'my out' --per_device_train_batch_size auto
  ((status == 0))
  says 'read -r batch_size sub_batch_tokens < <('
  # shellcheck disable=SC2016  # as it is to be pasted
  says '--per_device_train_batch_size "$batch_size" '
  bash -euc "$output"
  [[ $(grep -A1 '^word --per_device_train_batch_size' "$LOG") == *'word 16' ]]
  [[ $(grep -A1 '^word --sub_batch_tokens' "$LOG") == *'word 8192' ]]
}

@test "nothing is trained where no numbers are found" {
  gpus 1
  FAKE_FAILS=batch_size run "$SINGLE" --output_dir out --per_device_train_batch_size auto
  ((status == 3))
  says 'this step failed (exit code 3): Finding the batch size'
  run grep -c '^torchrun' "$LOG"
  ((status == 1))
}

@test "auto is not for the untouched library" {
  gpus 1
  run "$SINGLE" --per_device_train_batch_size auto --entrypoint FlagEmbedding.finetune.embedder.encoder_only.m3
  ((status == 2))
  says "per_device_train_batch_size is auto"
  says 'give a number'
  [[ ! -e $LOG ]]
}
