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
