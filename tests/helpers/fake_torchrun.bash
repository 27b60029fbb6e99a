#!/usr/bin/env bash
# Stands in for torchrun: writes its words to LOG; with FAKE_TRAINING it trains until a signal comes.
{
  printf 'torchrun\n'
  printf 'word %s\n' "$@"
  printf 'environment PYTHONPATH=%s OMP_NUM_THREADS=%s PYTORCH_CUDA_ALLOC_CONF=%s\n' "$PYTHONPATH" "$OMP_NUM_THREADS" \
    "${PYTORCH_CUDA_ALLOC_CONF-unset}"
} >>"$LOG"
if [[ -n ${FAKE_TRAINING:-} ]]; then
  # As torchrun: it lets its workers save, and exits with 1.
  trap 'echo "got TERM" >>"$LOG"; sleep 0.5; echo "saved" >>"$LOG"; exit 1' TERM
  trap 'echo "got INT" >>"$LOG"; sleep 0.5; echo "saved" >>"$LOG"; exit 1' INT
  for ((tick = 0; tick < 300; tick++)); do
    sleep 0.1
  done
fi
exit "${FAKE_STATUS:-0}"
