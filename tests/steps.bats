#!/usr/bin/env bats
# What the two training scripts run: the steps, their order and status, signals, the Python environment. All with fakes.
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
  export FAKE_BROKEN=1
  run --separate-stderr "$SINGLE" --dry-run --output_dir 'my out'
  ((status == 0))
  says ' -m venv --clear '
  says ' -m pip install '
  [[ ! -e $LOG && ! -e $KIT/.venv && ! -e 'my out' ]]
  unset FAKE_BROKEN
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
  logged "python3 -m m3kit doctor --device cuda"
  logged "--output_dir my out/prepared"
  logged "word my out/prepared/sts [2]"
  logged "environment PYTHONPATH=$KIT OMP_NUM_THREADS=8"
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
    sleep 0.1
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

@test "INT reaches torchrun, the script waits, and exits with 130" {
  stop_training INT
  ((status == 130))
  logged 'got INT'
  logged saved
}

# ---- scripts/python.sh ------------------------------------------------------------------------------------------------

# usage: ensure          what a script does before its first step, in the throw-away kit
ensure() {
  bash -Eeuo pipefail -c 'source "$1/scripts/lib.sh"; source "$1/scripts/python.sh"; ensure_python; echo "$PYTHON"' kit "$KIT"
}

@test "a Python that has the pinned packages is used as it is" {
  run --separate-stderr ensure
  [[ $output == "$BIN/python3" ]]
  [[ ! -e $KIT/.venv && ! -e $LOG ]]
}

@test "the check reads the pinned versions: missing, other, and with a local part" {
  check=$(bash -c 'KIT_DIR=.; source "$1/scripts/python.sh"; printf "%s" "$CHECK_REQUIREMENTS"' kit "$KIT")
  mkdir -p site/torch-2.13.0+cpu.dist-info
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n' >site/torch-2.13.0+cpu.dist-info/METADATA
  real=$(PATH=$REAL_PATH type -P python3)
  printf '# pinned\n\ntorch==2.13.0  # comment\n' >good.txt
  PATH=$REAL_PATH PYTHONPATH=site run "$real" -c "$check" good.txt
  ((status == 0))
  echo 'torch==2.12.0' >other.txt
  PATH=$REAL_PATH PYTHONPATH=site run "$real" -c "$check" other.txt
  ((status == 1))
  says 'it has torch 2.13.0+cpu instead of 2.12.0'
  echo 'no-such-package-here==1' >missing.txt
  PATH=$REAL_PATH run "$real" -c "$check" missing.txt
  ((status == 1))
  says 'it has no no-such-package-here'
}

@test "otherwise .venv is made once, with all pins, and the size and the time are told" {
  export FAKE_LACKS=torch
  run --separate-stderr ensure
  ((status == 0))
  [[ $output == "$KIT/.venv/bin/python" ]]
  [[ $stderr == *'it has no torch'*'GB to download'*minutes* ]]
  logged "python3 -m venv --clear $KIT/.venv"
  logged "python -m pip install --disable-pip-version-check -r $KIT/requirements.txt -c $KIT/constraints.txt"
  rm "$LOG"
  run --separate-stderr ensure
  ((status == 0))
  [[ $output == "$KIT/.venv/bin/python" && ! -e $LOG ]]
}

@test ".venv is brought up to date when the pins change" {
  export FAKE_LACKS=torch
  ensure
  for file in requirements constraints; do
    rm "$LOG"
    echo '# changed' >>"$KIT/$file.txt"
    ensure
    logged 'pip install'
    run grep -c 'm venv' "$LOG"
    ((status == 1))
  done
}

@test "an install that failed or was cut short is done again" {
  export FAKE_LACKS=torch
  FAKE_FAILS=pip run ensure
  ((status == 1))
  says 'pip could not install'
  says 'run the same command again'
  rm "$LOG"
  run --separate-stderr ensure
  ((status == 0))
  logged 'pip install'
}

@test "a .venv whose Python is gone is made anew" {
  export FAKE_LACKS=torch
  ensure
  rm "$KIT/.venv/bin/python" "$LOG"
  ensure
  logged 'm venv --clear'
  logged 'pip install'
}

@test "two scripts at once set up one environment, one after the other" {
  export FAKE_LACKS=torch FAKE_PIP_SECONDS=1
  ensure 3>&- &
  sleep 0.3
  run --separate-stderr ensure
  wait $!
  ((status == 0))
  [[ $stderr == *'waiting for it'* ]]
  [[ $(grep -c 'pip install' "$LOG") == 1 ]]
}

@test "the first interpreter that works makes .venv: not a shim without Python, not one of another version" {
  fake python3 'exit 127'
  cp "$SOURCE/tests/helpers/fake_python3.bash" "$BIN/python3.11"
  fake python3.12 'echo 3.13'
  export FAKE_LACKS=torch
  run --separate-stderr ensure
  ((status == 0))
  logged 'python3.11 -m venv'
}

@test "no suitable Python, or none with venv: says what to install" {
  export FAKE_LACKS=torch
  FAKE_VERSION=3.9 run ensure
  ((status == 1))
  says 'python3 is 3.9'
  says 'apt install python3 python3-venv'
  FAKE_BROKEN=1 run ensure
  ((status == 1))
  says 'no Python 3.10, 3.11 or 3.12 found'
  FAKE_NO_VENV=1 run ensure
  ((status == 1))
  says 'sudo apt install python3.11-venv'
  [[ ! -e $LOG ]]
}

@test "the environment's own torchrun and ninja are found first" {
  export FAKE_LACKS=torch
  gpus 1
  ensure
  cp "$SOURCE/tests/helpers/fake_torchrun.bash" "$KIT/.venv/bin/torchrun"
  rm "$BIN/torchrun"
  run "$SINGLE" --output_dir out
  ((status == 0)) || fail "$output"
  logged 'word m3kit.training'
  # and without the command, its module
  rm "$KIT/.venv/bin/torchrun" "$LOG"
  run "$SINGLE" --output_dir out
  ((status == 0))
  logged 'python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc_per_node 1 --shutdown-timeout 600 -m m3kit.training'
}
