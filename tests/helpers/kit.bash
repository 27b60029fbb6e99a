# A throw-away copy of the kit, and fakes of all that its scripts call. Loaded by scripts, data, machine and steps.bats.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used there, and output is set by run

SOURCE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

# shellcheck source=tests/helpers/fakes.bash
source "$SOURCE/tests/helpers/fakes.bash"

# usage: make_kit        sets KIT, SINGLE, MULTI, LOG; leaves PATH with the fakes and a few real tools, and nothing else
make_kit() {
  local name
  # Every test runs in a folder whose name needs quoting.
  KIT="$BATS_TEST_TMPDIR/my kit [1] d'été"
  REAL_PATH=$PATH
  local caller="$BATS_TEST_TMPDIR/caller's folder"
  LOG=$BATS_TEST_TMPDIR/log
  BIN=$BATS_TEST_TMPDIR/bin
  mkdir -p "$KIT" "$caller" "$BIN" "$BATS_TEST_TMPDIR/tools"
  # With their times, so that what Python has compiled counts.
  cp -rp "$SOURCE"/run_flagembedding_training*.sh "$SOURCE/scripts" "$SOURCE/m3kit" "$SOURCE/ds_stage0.json" "$SOURCE"/{requirements,constraints}.txt "$KIT"
  for name in retrieval sts classification-no_in_batch_neg clustering-no_in_batch_neg; do
    make_rows "$KIT/example_data/$name"
  done
  make_eval "$KIT/example_data/eval"

  link_tools bash env cat dirname mktemp mkdir rm cp sed sleep chmod grep sort tr printf mkfifo tail
  for name in python3 torchrun; do
    cp "$SOURCE/tests/helpers/fake_$name.bash" "$BIN/$name"
  done
  fake g++ 'exit 0'
  PATH=$BIN:$BATS_TEST_TMPDIR/tools
  # What makes the plan is real.
  REAL_PYTHON=$(PATH=$REAL_PATH type -P python3)
  export LOG PATH REAL_PYTHON
  # What the machine of the tests has set must not count.
  unset CUDA_VISIBLE_DEVICES PYTHON PYTHONPATH OMP_NUM_THREADS
  unset_settings
  cd "$caller" || return
  SINGLE=$KIT/run_flagembedding_training_single_gpu.sh
  MULTI=$KIT/run_flagembedding_training.sh
}

# usage: make_rows FOLDER [FILE…]
make_rows() {
  local file folder=$1
  shift
  (($#)) || set -- train.jsonl
  mkdir -p "$folder"
  for file; do
    echo '{}' >"$folder/$file"
  done
}

make_eval() {
  mkdir -p "$1"
  echo '{}' >"$1/corpus.jsonl"
}

# usage: torchrun_words  sets words to the torchrun command that `run` has seen, read back as a shell reads it
torchrun_words() { command_words 'torchrun '; }

# usage: command_words START    the same of the last command that has START in it, such as 'm3kit prepare '
command_words() {
  local line
  words=()
  while IFS= read -r line; do
    [[ $line != *"$1"* ]] || eval "words=($line)"
  done <<<"$output"
  ((${#words[@]})) || fail "no command with '$1' in: $output"
}

# usage: value_of NAME   the value after --NAME in words; fails when it is not there exactly once
value_of() {
  local found
  # bats traces every command of a loop, which takes long.
  mapfile -t found < <(printf '%s\n' "${words[@]}" | grep -Fx -A1 -e "--$1")
  ((${#found[@]} == 2)) || fail "--$1 is not there once in: ${words[*]}"
  printf '%s\n' "${found[1]}"
}

# usage: expect NAME VALUE
expect() {
  local value
  value=$(value_of "$1") || fail "$value"
  [[ $value == "$2" ]] || fail "--$1 is '$value', not '$2'"
}

# usage: expect_no NAME
expect_no() {
  ! printf '%s\n' "${words[@]}" | grep -Eq -e "^--$1(=|$)" || fail "--$1 is in: ${words[*]}"
}

# usage: says TEXT       the output of `run` holds it
says() { [[ $output == *"$1"* ]] || fail "no '$1' in: $output"; }

says_not() { [[ $output != *"$1"* ]] || fail "'$1' in: $output"; }

logged() { grep -qF -- "$1" "$LOG" || fail "no '$1' in: $(cat "$LOG")"; }

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}
