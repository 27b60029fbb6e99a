# Fakes that every shell test may need, put into the folder BIN. Loaded by the other helpers.
# shellcheck shell=bash

# usage: fake NAME SCRIPT
fake() {
  printf '#!/usr/bin/env bash\n%s\n' "$2" >"$BIN/$1"
  chmod +x "$BIN/$1"
}

# usage: gpus N          a machine with N GPUs
gpus() {
  local number lines=''
  for ((number = 0; number < $1; number++)); do
    lines+="echo 'GPU $number: NVIDIA H200 (UUID: GPU-$number)'; "
  done
  fake nvidia-smi "$lines"
}

# usage: link_tools NAME…    into tools/
link_tools() {
  local found
  mapfile -t found < <(type -P "$@")
  ln -sf "${found[@]}" "$BATS_TEST_TMPDIR/tools"
}

# usage: unset_settings    what the machine of the tests has set must not count; the list is that of m3kit/settings.py
unset_settings() {
  local names
  mapfile -t names < <(sed -nE 's/^ +- ([A-Z_]+)$/\1/p' "$SOURCE/docker-compose.yml")
  unset "${names[@]}"
}
