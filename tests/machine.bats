#!/usr/bin/env bats
# What the two training scripts make of the machine: GPUs, the CPU, precision, DeepSpeed, threads. All with fakes.
# shellcheck disable=SC2154  # output, status and words are set by run and by torchrun_words

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

@test "no GPU: says what would happen and how to go on, and does nothing" {
  for script in "$SINGLE" "$MULTI"; do
    run "$script"
    ((status == 1))
    says 'no GPU (nvidia-smi is not installed)'
    says 'days rather than hours'
    says '--smoke'
    says 'ALLOW_CPU=true'
    [[ ! -e $LOG && ! -e $KIT/outputs ]]
  done
}

@test "no GPU: a dry run shows what a machine with GPUs would run, and says so" {
  run --separate-stderr "$MULTI" --dry-run
  ((status == 0))
  torchrun_words
  expect nproc_per_node 2
  expect fp16 True
  expect deepspeed "$KIT/ds_stage0.json"
  expect_no use_cpu
  [[ $stderr == *'no GPU here'*'on this one it would stop'* ]]
}

@test "a broken driver counts as no GPU, and its message is shown" {
  fake nvidia-smi 'echo "Failed to initialize NVML"; exit 9'
  run "$SINGLE"
  ((status == 1))
  says 'nvidia-smi failed: Failed to initialize NVML'
}

@test "CUDA_VISIBLE_DEVICES chooses, and can hide all" {
  gpus 4
  CUDA_VISIBLE_DEVICES=1,3 run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 2
  for none in '' -1; do
    CUDA_VISIBLE_DEVICES=$none run "$MULTI"
    ((status == 1))
    says 'no GPU (CUDA_VISIBLE_DEVICES='
  done
  CUDA_VISIBLE_DEVICES=GPU-aa,GPU-bb,MIG-cc run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 3
  # CUDA stops at the first number that is none
  CUDA_VISIBLE_DEVICES=0,1,9,2 run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 2
}

@test "several processes: one GPU is sent to the single script, more than there are is refused" {
  gpus 1
  run "$MULTI" --dry-run
  ((status == 1))
  says run_flagembedding_training_single_gpu.sh
  gpus 2
  run "$MULTI" --dry-run --num_gpus 3
  ((status == 2))
  says 'num_gpus is 3, but there are 2'
  gpus 4
  NUM_GPUS=2 run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 2
  NUM_GPUS=2 run "$SINGLE" --dry-run
  ((status == 2))
  says './run_flagembedding_training.sh'
}

@test "the CPU when allowed: fp16 becomes fp32, bf16 stays, two processes" {
  ALLOW_CPU=true run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect use_cpu True
  expect nproc_per_node 2
  expect_no fp16
  [[ $stderr == *'fp32, for fp16 does not train on a CPU'* ]]
  run --separate-stderr "$SINGLE" --dry-run --allow_cpu yes --precision bf16
  torchrun_words
  expect bf16 True
  expect_no fp16
}

@test "DeepSpeed on a CPU only with g++ and Python's headers, and only if wanted" {
  run --separate-stderr "$MULTI" --dry-run --smoke
  torchrun_words
  expect deepspeed "$KIT/ds_stage0.json"
  FAKE_NO_HEADERS=1 run --separate-stderr "$MULTI" --dry-run --smoke
  torchrun_words
  expect_no deepspeed
  rm "$BIN/g++"
  run --separate-stderr "$MULTI" --dry-run --smoke --gradient_checkpointing True
  torchrun_words
  expect_no deepspeed
  [[ $stderr == *'DeepSpeed: off, for on a CPU it compiles a part'* ]]
  gpus 2
  DEEPSPEED=none run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect_no deepspeed
  run "$MULTI" --dry-run --deepspeed nowhere.json
  ((status == 2))
  says 'no DeepSpeed configuration nowhere.json'
}

@test "precision auto: the trainer decides, for it knows the device, on a GPU and on a CPU" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --precision auto
  ((status == 0))
  torchrun_words
  expect precision auto
  expect_no fp16
  expect_no bf16
  gpus 0
  ALLOW_CPU=true PRECISION=auto run --separate-stderr "$MULTI" --dry-run
  ((status == 0))
  torchrun_words
  expect precision auto
  expect use_cpu True
  expect_no bf16
  [[ $stderr != *'fp16 does not train'* ]]
}

@test "precision auto: not for the untouched library, and an argument of the trainer replaces it" {
  gpus 1
  export ENTRYPOINT=FlagEmbedding.finetune.embedder.encoder_only.m3
  run "$SINGLE" --dry-run --precision auto
  ((status == 2))
  says 'does not know; give --precision bf16, fp16 or fp32'
  run --separate-stderr "$SINGLE" --dry-run --precision auto --bf16 True
  ((status == 0))
  torchrun_words
  expect bf16 True
  expect_no precision
}

@test "precision: four names, and the trainer's own argument replaces it" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --precision fp32
  torchrun_words
  expect_no fp16
  expect_no bf16
  run --separate-stderr "$SINGLE" --dry-run --bf16 True
  torchrun_words
  expect bf16 True
  expect_no fp16
  run "$SINGLE" --dry-run --precision half
  ((status == 2))
  says 'auto, fp16, bf16 or fp32'
}

@test "threads: the cores shared out, unless set" {
  gpus 4
  cores=$(PATH=$REAL_PATH nproc)
  run --separate-stderr "$MULTI" --dry-run
  says "OMP_NUM_THREADS=$((cores < 4 ? 1 : cores / 4))"
  OMP_NUM_THREADS=5 run --separate-stderr "$MULTI" --dry-run
  says OMP_NUM_THREADS=5
}

@test "memory of GPUs: in segments that grow, unless the user says otherwise" {
  gpus 2
  run "$MULTI" --output_dir out
  ((status == 0))
  logged ' PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True'
  rm -r out "$LOG"
  PYTORCH_CUDA_ALLOC_CONF=backend:native run "$MULTI" --output_dir out
  logged ' PYTORCH_CUDA_ALLOC_CONF=backend:native'
  rm -r out "$LOG"
  PYTORCH_ALLOC_CONF=backend:native run "$MULTI" --output_dir out
  logged ' PYTORCH_CUDA_ALLOC_CONF=unset'
  run --separate-stderr "$MULTI" --dry-run
  says 'export OMP_NUM_THREADS='
  says ' PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True'
  gpus 0
  ALLOW_CPU=true run --separate-stderr "$MULTI" --dry-run
  says_not PYTORCH_CUDA_ALLOC_CONF
}

@test "doctor is told of the processes, and where it stops nothing is trained" {
  gpus 2
  FAKE_FAILS=doctor run "$MULTI" --output_dir out
  ((status == 3))
  logged 'm3kit doctor --device cuda --processes 2'
  run ! grep -q '^torchrun' "$LOG"
}
