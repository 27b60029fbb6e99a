#!/usr/bin/env bats
# What the two training scripts run: the steps, their order and status, signals. All with fakes.
# shellcheck disable=SC2154,SC2030,SC2031  # run sets output and status; every test is a subshell, and means to be

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# ---- what they run ----------------------------------------------------------------------------------------------------

@test "the untouched library gets the same prepared files, and no argument that it does not know" {
  gpus 1
  ENTRYPOINT=FlagEmbedding.finetune.embedder.encoder_only.m3 run --separate-stderr "$SINGLE" --dry-run --overwrite_output_dir
  torchrun_words
  [[ " ${words[*]} " == *' -m FlagEmbedding.finetune.embedder.encoder_only.m3 --train_data '*/prepared/retrieval* ]]
  expect_no overwrite_output_dir
  expect_no eval_data
  expect_no eval_steps
  expect_no mixing_temperature
  expect_no sub_batch_tokens
  expect fp16 True
}

@test "a dry run runs nothing, makes nothing, and can be pasted whole" {
  gpus 1
  export FAKE_LACKS=torch
  run --separate-stderr "$SINGLE" --dry-run --output_dir 'my out'
  ((status == 0))
  says ' -m venv '
  says ' -m pip install '
  [[ ! -e $LOG && ! -e $KIT/.venv && ! -e 'my out' ]]
  unset FAKE_LACKS
  run --separate-stderr "$SINGLE" --dry-run --output_dir 'my out'
  says_not 'm pip install'
  bash -euc "$output"
  logged 'word my out/prepared/retrieval'
  logged 'python3 -m m3kit evaluate'
  logged 'python3 -m m3kit report my out'
}

@test "steps in order, what prepare prints is what is trained on, results on stdout" {
  gpus 1
  run --separate-stderr "$SINGLE" --output_dir 'my out' --train_data "$KIT/example_data"
  ((status == 0))
  order=$(grep -oE 'm3kit (doctor|prepare|evaluate|report)|^torchrun' "$LOG")
  [[ $order == $'m3kit doctor\nm3kit prepare\ntorchrun\nm3kit evaluate\nm3kit report' ]]
  logged "python3 -m m3kit doctor --device cuda --processes 1"
  logged "--output_dir my out/prepared"
  logged "word my out/prepared/sts [2]"
  logged "environment PYTHONPATH=$KIT OMP_NUM_THREADS=$(PATH=$REAL_PATH nproc)"
  logged "--models base=BAAI/bge-m3 tuned=my out --eval_data $KIT/example_data/eval"
  [[ $(grep -A1 '^word --eval_data' "$LOG") == *"word $KIT/example_data/eval" ]]
  logged 'python3 -m m3kit report my out'
  [[ $output == 'the table'*'The model is in my out, the report in my out/report.html'*'Next'* ]]
}

@test "without evaluation data the next command is the one that evaluates" {
  gpus 1
  run --separate-stderr "$SINGLE" --output_dir out --eval_data none
  ((status == 0))
  [[ $output == *'The model is in out'*'m3kit evaluate --models base=BAAI/bge-m3 tuned=out --eval_data YOUR_EVAL_FOLDER'* ]]
}

# bats test_tags=slow
@test "the starter model is made once, and anew when the example data change" {
  run "$SINGLE" --smoke
  ((status == 0))
  logged "m3kit starter --output_dir $KIT/cache/starter"
  mkdir -p "$KIT/cache/starter"
  echo '{}' >"$KIT/cache/starter/starter.json"
  rm "$LOG"
  run "$SINGLE" --smoke
  ((status == 0))
  run grep -c 'm3kit starter' "$LOG"
  ((status == 1))
  make_rows "$KIT/example_data/retrieval"
  run "$SINGLE" --smoke
  logged 'm3kit starter'
}

@test "a step that fails ends the script with its status, and nothing after it is run" {
  gpus 1
  for verb in doctor prepare; do
    rm -f "$LOG"
    FAKE_FAILS=$verb run "$SINGLE" --output_dir out
    ((status == 3))
    says 'this step failed (exit code 3)'
    run grep -c torchrun "$LOG"
    ((status == 1))
  done
  FAKE_STATUS=7 run "$SINGLE" --output_dir out
  ((status == 7))
  says_not 'The model is in'
}

# usage: leave_run STATUS [FILE…]    leaves a run with this status in `an out`, and such files, of what comes after it
leave_run() {
  rm -rf 'an out' "$LOG"
  mkdir -p 'an out'
  printf '{\n  "status": "%s",\n  "steps": 3\n}\n' "$1" >'an out/run.json'
  local file
  for file in "${@:2}"; do
    echo >"an out/$file"
  done
}

@test "a folder that holds a finished run is kept unless it is to be overwritten" {
  gpus 1
  leave_run finished metrics.json report.html
  run "$SINGLE" --output_dir 'an out'
  ((status == 1))
  says "an out already holds a finished training run"
  says '--overwrite_output_dir True'
  [[ ! -e $LOG ]]
  OVERWRITE_OUTPUT_DIR=true run "$SINGLE" --output_dir 'an out'
  ((status == 0))
}

@test "a folder with what this kit does not know is kept" {
  gpus 1
  for mark in model.safetensors checkpoint-12; do
    leave_run none
    rm 'an out/run.json'
    echo >"an out/$mark"
    run "$SINGLE" --output_dir 'an out'
    ((status == 1))
    says "an out already holds a training run ($mark)"
    [[ ! -e $LOG ]]
  done
  leave_run running
  ENTRYPOINT=FlagEmbedding.finetune.embedder.encoder_only.m3 run "$SINGLE" --output_dir 'an out'
  ((status == 1))
  says "already holds a training run (run.json)"
}

@test "an unfinished run goes on" {
  gpus 1
  for state in running stopped; do
    leave_run "$state"
    run "$SINGLE" --output_dir 'an out'
    ((status == 0))
    says 'an out holds a run that was not finished; it goes on'
    logged 'word m3kit.training'
  done
}

@test "a run that was finished but not evaluated is evaluated" {
  gpus 1
  leave_run finished
  run "$SINGLE" --output_dir 'an out' --eval_data "$KIT/example_data/eval"
  ((status == 0))
  says 'only its evaluation is missing'
  logged 'm3kit evaluate'
  logged 'm3kit report'
  run grep -c 'torchrun\|prepare' "$LOG"
  ((status == 1))
  leave_run finished report.html
  run "$SINGLE" --output_dir 'an out' --eval_data none
  ((status == 1))
  says 'already holds a finished training run'
}

@test "a run that was evaluated but has no report gets one" {
  gpus 1
  leave_run finished metrics.json
  run "$SINGLE" --output_dir 'an out' --eval_data "$KIT/example_data/eval"
  ((status == 0))
  says 'only its report is missing'
  logged 'm3kit report'
  run grep -c 'torchrun\|prepare\|evaluate' "$LOG"
  ((status == 1))
}

# usage: stop_training SIGNAL…    starts a script, sends it the signals once it trains, leaves its status in status
stop_training() {
  local signal pid
  gpus 1
  FAKE_TRAINING=1 env --default-signal=INT "$SINGLE" --output_dir out >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
  pid=$!
  until grep -qs '^environment' "$LOG"; do sleep 0.05; done
  sleep 0.3
  for signal; do
    kill -s "$signal" "$pid"
    until grep -q "got $signal" "$LOG"; do sleep 0.05; done
  done
  status=0
  wait "$pid" || status=$?
  output=$(cat "$BATS_TEST_TMPDIR/said")
}

@test "TERM reaches torchrun once, the script waits until it has saved, and exits with 143" {
  stop_training TERM TERM
  ((status == 143))
  [[ $(grep -c 'got TERM' "$LOG") == 1 ]]
  logged saved
  says 'stopped by a signal'
  says 'to go on, run the same command again.'
  run grep -c evaluate "$LOG"
  ((status == 1))
}

@test "a signal between two steps ends it with a sentence" {
  gpus 1
  FAKE_SIGNAL=TERM run "$SINGLE" --output_dir out
  ((status == 143))
  says 'stopped by a signal while: planning; to go on, run the same command again.'
  [[ ! -e $LOG ]]
}

@test "a second Ctrl-C ends it without saving" {
  stop_training INT INT
  ((status == 130))
  logged 'got INT'
  run grep -c saved "$LOG"
  ((status == 1))
}

@test "INT reaches torchrun, the script waits, and exits with 130" {
  stop_training INT
  ((status == 130))
  logged 'got INT'
  logged saved
}
