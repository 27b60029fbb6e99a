#!/usr/bin/env bats
# What the two training scripts decide, and the commands that come of it. All with fakes.
# shellcheck disable=SC2154  # output, status and words are set by run and by torchrun_words

bats_require_minimum_version 1.5.0
load helpers/kit.bash

setup() { make_kit; }

# ---- what they train with ---------------------------------------------------------------------------------------------

@test "every default of the training" {
  gpus 2
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --dry-run
    ((status == 0))
    torchrun_words
    expect model_name_or_path BAAI/bge-m3
    expect learning_rate 1e-5
    expect num_train_epochs 4
    expect per_device_train_batch_size 2
    expect gradient_accumulation_steps 1
    expect query_max_len 512
    expect passage_max_len 512
    expect train_group_size 8
    expect sentence_pooling_method cls
    expect normalize_embeddings True
    expect temperature 0.02
    expect fp16 True
    expect gradient_checkpointing True
    expect unified_finetuning True
    expect use_self_distill True
    expect self_distill_start_step 0
    expect kd_loss_type m3_kd_loss
    expect knowledge_distillation False
    expect fix_encoder False
    expect warmup_steps 0.1
    expect save_steps 1000
    expect logging_steps 10
    expect seed 42
    expect same_dataset_within_batch True
    expect pad_to_multiple_of 8
    expect dataloader_drop_last True
    expect overwrite_output_dir False
    expect report_to tensorboard
    expect_no bf16
    expect_no use_cpu
    expect_no cache_dir
    expect_no query_instruction_for_retrieval
  done
}

@test "one process without DeepSpeed here, all GPUs with cross-device negatives and DeepSpeed there" {
  gpus 4
  run --separate-stderr "$SINGLE" --dry-run
  torchrun_words
  expect nproc_per_node 1
  expect output_dir "$KIT/outputs/test_encoder_only_m3_bge-m3_single_gpu"
  expect_no deepspeed
  expect_no negatives_cross_device
  run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 4
  expect output_dir "$KIT/outputs/test_encoder_only_m3_bge-m3"
  expect deepspeed "$KIT/ds_stage0.json"
  expect negatives_cross_device True
  expect_no gradient_checkpointing_kwargs
}

@test "the default data are the four example folders, and eval/ beside them" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run
  torchrun_words
  prepared=$KIT/outputs/test_encoder_only_m3_bge-m3_single_gpu/prepared
  [[ " ${words[*]} " == *" --train_data $prepared/retrieval $prepared/sts $prepared/classification-no_in_batch_neg $prepared/clustering-no_in_batch_neg --"* ]]
  says "m3kit evaluate"
  [[ $stderr == *"with $KIT/example_data/eval, which lies beside"* ]]
}

@test "environment wins over the file, an argument over both" {
  gpus 1
  LEARNING_RATE=2e-5 SEED=7 run --separate-stderr "$SINGLE" --dry-run --learning_rate=3e-5 --query_max_len 64
  torchrun_words
  expect learning_rate 3e-5
  expect seed 7
  expect query_max_len 64
  # prepare and evaluate see it too
  says '--seed 7'
  [[ $output == *"m3kit evaluate"*"--query_max_len 64"* ]]
}

@test "every variable at the top is also one of the environment, and an argument" {
  gpus 3
  for script in "$SINGLE" "$MULTI"; do
    names=$(grep -oE '^[a-z_]+="\$\{' "$script" | grep -oE '^[a-z_]+')
    [[ $(grep -c . <<<"$names") -ge 33 ]]
    for name in $names; do
      grep -qE "^$name=\"\\$\{${name^^}:-" "$script" || fail "$name and its upper case differ"
    done
    run --separate-stderr "$script" --dry-run --cache-dir=c --query_instruction_for_retrieval 'find it: '
    torchrun_words
    expect cache_dir c
    expect query_instruction_for_retrieval 'find it: '
    [[ $output == *"m3kit prepare"*"--query_instruction_for_retrieval 'find it: '"* ]]
  done
}

@test "other arguments reach the trainer untouched and in order" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --weight_decay 0.1 --seed 1 --run_name 'a b(c"d' --max_steps=5 -x '' --weight_decay 0.2
  torchrun_words
  count=${#words[@]}
  expected=(--weight_decay 0.1 --run_name 'a b(c"d' --max_steps=5 -x '' --weight_decay 0.2)
  [[ "${words[*]:count - 9}" == "${expected[*]}" ]]
  [[ ${words[count - 3]} == '' ]]
  expect seed 1
}

@test "a switch needs no value, another variable does" {
  gpus 1
  run --separate-stderr "$SINGLE" --dry-run --overwrite_output_dir --fix_encoder --seed 3
  torchrun_words
  expect overwrite_output_dir True
  expect fix_encoder True
  run "$SINGLE" --dry-run --learning_rate --seed 3
  ((status == 1))
  says '--learning_rate needs a value'
}

@test "training data: several arguments, or several in the environment, of any name" {
  gpus 1
  make_rows "data [x]/my retrieval"
  make_rows "data [x]/ärzte's \"sts\""
  make_rows "data [x]/classification"
  run --separate-stderr "$SINGLE" --dry-run --train_data "data [x]/my retrieval" "data [x]/ärzte's \"sts\"" --output_dir 'out [1]' --seed 5
  torchrun_words
  [[ " ${words[*]} " == *" --train_data out [1]/prepared/my retrieval out [1]/prepared/ärzte's \"sts\" --model"* ]]
  expect output_dir 'out [1]'
  TRAIN_DATA="data [x]/my retrieval:data [x]/classification" run --separate-stderr "$SINGLE" --dry-run --output_dir=o
  torchrun_words
  [[ " ${words[*]} " == *" --train_data o/prepared/my retrieval o/prepared/classification-no_in_batch_neg --model"* ]]
  [[ $stderr == *"Evaluation: none, for no folder eval/ lies beside"* ]]
  says_not 'm3kit evaluate'
  # a folder of task folders, and its eval/ in it
  make_eval "data [x]/eval"
  run --separate-stderr "$SINGLE" --dry-run --train_data "data [x]"
  torchrun_words
  [[ ${#words[@]} -gt 10 && " ${words[*]} " == *"prepared/classification-no_in_batch_neg "*"prepared/my retrieval "* ]]
  says "'data [x]/eval'"
  run --separate-stderr "$SINGLE" --dry-run --train_data "data [x]" --eval_data none
  says_not 'm3kit evaluate'
}

# ---- --smoke ----------------------------------------------------------------------------------------------------------

@test "--smoke: starter model, own folder, small and on the CPU" {
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --smoke --dry-run
    ((status == 0))
    torchrun_words
    expect model_name_or_path "$KIT/cache/starter"
    [[ $(value_of output_dir) == "$KIT"/outputs/smoke?(_single_gpu) ]]
    expect learning_rate 2e-4
    expect per_device_train_batch_size 8
    expect query_max_len 128
    expect passage_max_len 128
    expect gradient_checkpointing False
    expect logging_steps 10
    expect overwrite_output_dir True
    expect use_cpu True
    expect_no fp16
    says "m3kit starter --output_dir"
  done
}

@test "--smoke changes defaults only: an edit, the environment and arguments win" {
  sed='s/NUM_TRAIN_EPOCHS:-4/NUM_TRAIN_EPOCHS:-9/; s/LEARNING_RATE:-1e-5/LEARNING_RATE:-7e-5/'
  "$(PATH=/usr/bin:/bin type -P sed)" -i "$sed" "$SINGLE"
  QUERY_MAX_LEN=32 OUTPUT_DIR=mine run --separate-stderr "$SINGLE" --smoke --dry-run --per_device_train_batch_size 3 --allow_cpu
  torchrun_words
  expect num_train_epochs 9
  expect learning_rate 7e-5
  expect query_max_len 32
  expect output_dir mine
  expect per_device_train_batch_size 3
  expect passage_max_len 128
}

@test "--smoke with a real model keeps the learning rate of a real one" {
  run --separate-stderr "$SINGLE" --smoke --dry-run --model_name_or_path BAAI/bge-m3
  torchrun_words
  expect learning_rate 1e-5
  says_not 'm3kit starter'
}

@test "--smoke uses a GPU where there is one" {
  gpus 1
  run --separate-stderr "$SINGLE" --smoke --dry-run
  torchrun_words
  expect fp16 True
  expect_no use_cpu
}

# ---- the machine ------------------------------------------------------------------------------------------------------

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
  ((status == 1))
  says 'num_gpus is 3, but there are 2'
  gpus 4
  NUM_GPUS=2 run --separate-stderr "$MULTI" --dry-run
  torchrun_words
  expect nproc_per_node 2
  NUM_GPUS=2 run "$SINGLE" --dry-run
  ((status == 1))
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
  ((status == 1))
  says 'no DeepSpeed configuration nowhere.json'
}

@test "precision: three names, and the trainer's own argument replaces it" {
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
  ((status == 1))
  says 'fp16, bf16 or fp32'
}

@test "threads: the cores shared out, unless set" {
  gpus 4
  run --separate-stderr "$MULTI" --dry-run
  says OMP_NUM_THREADS=2
  OMP_NUM_THREADS=5 run --separate-stderr "$MULTI" --dry-run
  says OMP_NUM_THREADS=5
}

@test "--help is the comment at the top" {
  for script in "$SINGLE" "$MULTI"; do
    run --separate-stderr "$script" --help
    ((status == 0))
    says 'Usage: run_flagembedding_training'
    says '--smoke'
    says 'LEARNING_RATE=5e-6'
    says_not shellcheck
  done
}
