#!/usr/bin/env bats
# recipe=best in the two training scripts: who chooses, what is kept, and who gets it. All with fakes.
# shellcheck disable=SC2154,SC2030,SC2031  # run sets output and status; every test is a subshell, and means to be

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

@test "best: between preparing and training the settings are chosen, and stand behind the run's own" {
  gpus 4
  run --separate-stderr "$MULTI" --output_dir 'my out' --recipe best
  ((status == 0))
  order=$(grep -oE 'm3kit (doctor|prepare|recipe|evaluate|report)|^torchrun' "$LOG")
  [[ $order == $'m3kit doctor\nm3kit prepare\nm3kit recipe\ntorchrun\nm3kit evaluate\nm3kit report' ]]
  logged 'm3kit recipe --output_dir my out/recipe --processes 4 --device cuda'
  [[ $(grep 'm3kit recipe' "$LOG") == *' -- --train_data my out/prepared/retrieval my out/prepared/sts [2] '* ]]
  [[ $(grep -A1 '^word --learning_rate' "$LOG") == *'word 5e-05' ]]
  [[ $(grep -A2 '^word --merge_shares' "$LOG") == *$'word 0.5\nword 0.7' ]]
  # What was chosen is no result of the script.
  [[ $output != *merge_shares* ]]
}

@test "best keeps what is set in the environment and as an argument, known to the script or not" {
  gpus 1
  TEMPERATURE=0.02 RECIPE=best run --separate-stderr "$SINGLE" --output_dir out --num_train_epochs 4 --weight_decay=0.01
  ((status == 0))
  kept=$(grep -oE -e '--kept .* -- ' "$LOG")
  for name in temperature num_train_epochs weight_decay; do
    [[ " $kept " == *" $name "* ]] || fail "$name is not kept: $kept"
  done
  [[ " $kept " != *' learning_rate '* ]]
}

@test "classic, the default, asks nobody" {
  gpus 1
  run "$SINGLE" --output_dir out
  ((status == 0))
  run grep 'm3kit recipe' "$LOG"
  ((status == 1))
}

@test "best in a dry run can be pasted whole, and hands on what is chosen" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --output_dir 'my out' --recipe best
  ((status == 0))
  bash -euc "$output"
  logged 'm3kit recipe --output_dir my out/recipe'
  [[ $(grep -A1 '^word --learning_rate' "$LOG") == *'word 5e-05' ]]
}

@test "nothing is trained where the choice fails" {
  gpus 1
  FAKE_FAILS=recipe run "$SINGLE" --output_dir out --recipe best
  ((status == 3))
  run grep '^torchrun' "$LOG"
  ((status == 1))
}

@test "what best cannot be is said" {
  gpus 1
  run "$SINGLE" --dry-run --recipe bset
  ((status == 2))
  [[ $output == *"recipe is classic or best, not 'bset'"* ]]
  ENTRYPOINT=FlagEmbedding.finetune.embedder.encoder_only.m3 run "$SINGLE" --dry-run --recipe best
  ((status == 2))
  [[ $output == *'untouched library'* ]]
  run "$SINGLE" --dry-run --recipe best --per_device_train_batch_size auto
  ((status == 2))
  [[ $output == *'recipe=best chooses one'* ]]
}
