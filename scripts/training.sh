# What the two training scripts share: from the variables at their top to a trained and evaluated model.
# Sourced after lib.sh, never run. The variables of the calling script are used by their names.
# shellcheck shell=bash disable=SC2154  # those variables

# shellcheck source=scripts/python.sh
source "$KIT_DIR/scripts/python.sh"

LIBRARY_ENTRYPOINT=FlagEmbedding.finetune.embedder.encoder_only.m3
STARTER=$KIT_DIR/cache/starter
# Passed to the trainer under the same name, in this order; those that a script does not have, or has empty, are left out.
TRAINER_VARIABLES=(
  model_name_or_path output_dir cache_dir
  learning_rate num_train_epochs per_device_train_batch_size gradient_accumulation_steps warmup_steps
  dataloader_drop_last seed
  train_group_size query_max_len passage_max_len pad_to_multiple_of same_dataset_within_batch
  query_instruction_for_retrieval
  sentence_pooling_method normalize_embeddings temperature unified_finetuning use_self_distill
  self_distill_start_step fix_encoder knowledge_distillation kd_loss_type negatives_cross_device
  gradient_checkpointing save_steps save_total_limit logging_steps report_to
)
# The same, but the untouched library does not know them.
KIT_TRAINER_VARIABLES=(
  overwrite_output_dir eval_steps mixing_temperature unified_negatives_cross_device sub_batch_tokens
  label_negatives
)
# Settings too, but not the trainer's, or not as they are.
KIT_VARIABLES=(
  train_data eval_data holdout columns task classification_positives sts_max_score sts_as skip_bad_rows strict
  num_gpus allow_cpu precision entrypoint deepspeed recipe mine_negatives "${KIT_TRAINER_VARIABLES[@]}"
)
SWITCHES=(
  overwrite_output_dir allow_cpu gradient_checkpointing negatives_cross_device unified_negatives_cross_device
  dataloader_drop_last fix_encoder
  same_dataset_within_batch normalize_embeddings unified_finetuning use_self_distill knowledge_distillation
  skip_bad_rows strict mine_negatives
)
# One of these makes a folder one of test data.
EVAL_FILES=(corpus.jsonl sts/test.jsonl classification/test.jsonl clustering/test.jsonl)

# usage: run_training single|multi ARGUMENTS…
run_training() {
  kind=$1
  shift
  smoke=false dry_run=false
  declare -gA given=()       # settings given as arguments
  given_train_data=() extra=() chosen=()  # chosen: what the recipe adds to the trainer's arguments
  read_arguments "$@"
  settle_variables
  settle_device
  settle_precision
  settle_deepspeed
  settle_eval_data
  guard_output

  [[ $KIT_DIR != *:* ]] || die "the folder $KIT_DIR has a ':' in its name, with which Python cannot work; rename it"
  # The caller's folder is not searched for modules: a datasets.py in it must not stand in for the real one.
  export PYTHONPATH=$KIT_DIR${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
  if $dry_run; then
    show_plan
  else
    train
  fi
}

read_arguments() {
  local name
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "$0"
        exit 0
        ;;
      --smoke) smoke=true ;;
      --dry-run | --dry_run) dry_run=true ;;
      --*)
        name=${1#--} && name=${name%%=*} && name=${name//-/_}
        if ! is_setting "$name"; then
          extra+=("$1")
        elif [[ $name == train_data ]]; then
          [[ $1 != *=* ]] || given_train_data=("${1#*=}")
          while (($# > 1)) && [[ $2 != --* ]]; do
            given_train_data+=("$2")
            shift
          done
          ((${#given_train_data[@]})) || die '--train_data needs one or more folders or files'
        elif [[ $1 == *=* ]]; then
          given[$name]=${1#*=}
        elif (($# > 1)) && [[ $2 != --* ]]; then
          given[$name]=$2
          shift
        elif is_one_of "$name" "${SWITCHES[@]}"; then
          given[$name]=True
        else
          die "--$name needs a value"
        fi
        ;;
      *) extra+=("$1") ;;
    esac
    shift
  done
}

# The scripts set every variable, so one that is not set is no setting of this script.
is_setting() { is_one_of "$1" "${TRAINER_VARIABLES[@]}" "${KIT_VARIABLES[@]}" && [[ -v $1 ]]; }

is_one_of() {
  local wanted=$1 one
  shift
  for one; do
    [[ $one != "$wanted" ]] || return 0
  done
  return 1
}

# Arguments win over the environment and the file; --smoke only takes the place of what nobody has set.
settle_variables() {
  local name of_kind=''
  [[ -z ${TRAIN_DATA:-} ]] || IFS=: read -r -a train_data <<<"$TRAIN_DATA"
  ((${#given_train_data[@]} == 0)) || train_data=("${given_train_data[@]}")
  if $smoke; then
    [[ $kind == multi ]] || of_kind=_single_gpu
    smoke_default model_name_or_path BAAI/bge-m3 "$STARTER"
    smoke_default output_dir "$KIT_DIR/outputs/test_encoder_only_m3_bge-m3$of_kind" "$KIT_DIR/outputs/smoke$of_kind"
    smoke_default overwrite_output_dir False True
    smoke_default allow_cpu False True
    # A rate at which a model without any knowledge learns would ruin a real one.
    [[ ${given[model_name_or_path]:-$model_name_or_path} != "$STARTER" ]] || smoke_default learning_rate 1e-5 2e-4
    smoke_default per_device_train_batch_size 2 8
    smoke_default query_max_len 512 128
    smoke_default passage_max_len 512 128
    smoke_default gradient_checkpointing True False
  fi
  for name in "${!given[@]}"; do
    printf -v "$name" %s "${given[$name]}"
  done
  output_dir=${output_dir%/}
  [[ $sts_as == @(graded|contrastive) ]] || die "sts_as is graded or contrastive, not '$sts_as'"
  if [[ $sts_as == graded ]] && { [[ $entrypoint == "$LIBRARY_ENTRYPOINT" ]] || ! is_true "$same_dataset_within_batch"; }; then
    sts_as=contrastive  # graded pairs need batches of their own, and a loss that only the kit has
  fi
  [[ $precision == @(auto|fp16|bf16|fp32) ]] || die "precision is auto, fp16, bf16 or fp32, not '$precision'"
  [[ $num_gpus == auto || $num_gpus =~ ^[1-9][0-9]*$ ]] || die "num_gpus is a number or auto, not '$num_gpus'"
  [[ $per_device_train_batch_size == auto || $per_device_train_batch_size =~ ^[1-9][0-9]*$ ]] ||
    die "per_device_train_batch_size is auto or a whole number above 0, not '$per_device_train_batch_size'"
  [[ $per_device_train_batch_size != auto || $entrypoint != "$LIBRARY_ENTRYPOINT" ]] ||
    die "per_device_train_batch_size is auto, which is found for the kit's own trainer; with the untouched library (entrypoint) give a number"
  [[ $recipe == @(classic|best) ]] || die "recipe is classic or best, not '$recipe'"
  [[ $recipe == classic || $per_device_train_batch_size != auto ]] ||
    die "recipe is best, which chooses the batch itself; leave per_device_train_batch_size=auto out, or give a number"
  [[ $recipe == classic || $entrypoint != "$LIBRARY_ENTRYPOINT" ]] ||
    die "recipe is best, whose settings the untouched library (entrypoint) does not know; give --recipe classic"
  [[ $holdout =~ ^(0|0?\.[0-9]+)$ ]] || die "holdout is a share of the queries, from 0 to below 1 (0.05), not '$holdout'"
  [[ $kind == multi || $num_gpus == @(auto|1) ]] ||
    die "this script trains in one process, and num_gpus is $num_gpus; for several: ./run_flagembedding_training.sh"
}

# usage: smoke_default NAME SHIPPED VALUE    only when neither the environment nor an edit of the file has changed it
smoke_default() {
  local in_environment=${1^^}
  [[ -n ${!in_environment:-} || ${!1} != "$2" ]] || printf -v "$1" %s "$3"
}

# Sets trained: whether all that is missing is the evaluation or the report. An unfinished run the trainer goes on with.
guard_output() {
  local mark held='' record=$output_dir/run.json
  trained=false
  ! is_true "$overwrite_output_dir" || return 0
  if [[ -f $record && $entrypoint != "$LIBRARY_ENTRYPOINT" ]]; then
    if ! grep -qs '"status": "finished"' "$record"; then
      say "Output: $output_dir holds a run that was not finished; it goes on."
    elif [[ -n $eval_data && ! -e $output_dir/metrics.json ]] && is_eval_folder "$eval_data"; then
      trained=true
      say "Output: $output_dir holds a finished run; only its evaluation is missing."
    elif [[ ! -e $output_dir/report.html ]]; then
      trained=true
      say "Output: $output_dir holds a finished run; only its report is missing."
    else
      held='a finished training run'
    fi
  else
    for mark in "$output_dir"/{run.json,model.safetensors} "$output_dir"/checkpoint-*; do
      [[ ! -e $mark ]] || held="a training run (${mark##*/})"
    done
  fi
  [[ -n $held ]] || return 0
  held="$output_dir already holds $held; give another --output_dir, or --overwrite_output_dir True to delete that run"
  $dry_run || die "$held"
  warn "$held"
}

# Sets device, processes and OMP_NUM_THREADS.
settle_device() {
  count_gpus
  device=cuda processes=1
  if ((gpu_count == 0)); then
    if is_true "$allow_cpu"; then
      device=cpu
      [[ $kind == single ]] || processes=${num_gpus/auto/2}
      say "Device: the CPU, for there is no GPU ($gpu_reason); processes: $processes."
    elif $dry_run; then
      [[ $kind == single ]] || processes=${num_gpus/auto/2}
      say "Device: no GPU here ($gpu_reason), so this is what would run on one with GPUs (processes: $processes); on this one it would stop."
    else
      die "no GPU ($gpu_reason), so $model_name_or_path would be trained on the CPU, which takes days rather than hours.
To try the kit in a few minutes:  $(quote "$0") --smoke
To train on the CPU all the same: ALLOW_CPU=true $(quote "$0")"
    fi
  elif [[ $kind == single ]]; then
    say "Device: one GPU ($gpu_reason)."
  elif ((gpu_count == 1)); then
    die "only one GPU ($gpu_reason), and this script is for several; use ./run_flagembedding_training_single_gpu.sh"
  elif [[ $num_gpus == auto ]]; then
    processes=$gpu_count
    say "Device: $processes GPUs ($gpu_reason)."
  elif ((num_gpus > gpu_count)); then
    die "num_gpus is $num_gpus, but there are $gpu_count ($gpu_reason); give --num_gpus auto"
  elif ((num_gpus == 1)); then
    die "num_gpus is 1, and this script is for several; use ./run_flagembedding_training_single_gpu.sh"
  else
    processes=$num_gpus
    say "Device: $processes GPUs, as num_gpus says ($gpu_reason)."
  fi
  [[ -z ${OMP_NUM_THREADS:-} ]] || return 0
  local cores
  cores=$(nproc)
  export OMP_NUM_THREADS=$((cores > processes ? cores / processes : 1))
  say "Threads: $OMP_NUM_THREADS a process, for $cores cores."
}

settle_precision() {
  local word
  for word in "${extra[@]}"; do
    if [[ $word == --@(fp16|bf16)?(=*) ]]; then
      precision=fp32  # nothing of ours: the two exclude each other
      say "Precision: as your argument $word says."
      return
    fi
  done
  if [[ $device == cpu && $precision == fp16 ]]; then
    precision=fp32
    say 'Precision: fp32, for fp16 does not train on a CPU.'
  elif [[ $precision == auto && $entrypoint == "$LIBRARY_ENTRYPOINT" ]]; then
    die "precision is auto, which the untouched library (entrypoint) does not know; give --precision bf16, fp16 or fp32"
  fi
}

# Empties deepspeed where it is not to be used.
settle_deepspeed() {
  [[ -v deepspeed ]] || declare -g deepspeed=''
  [[ ${deepspeed,,} != @(none|off|false) ]] || deepspeed=''
  [[ -n $deepspeed ]] || return 0
  [[ -f $deepspeed ]] || die "no DeepSpeed configuration $deepspeed; give --deepspeed a file, or none"
  if [[ $device == cpu ]] && ! { have g++ && has_python_headers; }; then
    say 'DeepSpeed: off, for on a CPU it compiles a part, and g++ or python3-dev is not installed; plain DDP instead.'
    deepspeed=''
  elif [[ $device == cpu ]]; then
    say 'DeepSpeed: on; on a CPU it compiles a part the first time, which takes a minute or two.'
  fi
}

# Empties eval_data where nothing is evaluated; held_out: whether prepare is to keep rows back and make that folder.
settle_eval_data() {
  local path folder nothing
  held_out=false
  if [[ $eval_data == none ]]; then
    eval_data=''
    say 'Evaluation: none, as eval_data says.'
    return
  elif [[ $eval_data != auto ]]; then
    is_eval_folder "$eval_data" && return
    # Otherwise `evaluate` would say so, after all the training.
    nothing="the folder $eval_data of eval_data has nothing to evaluate with: none of ${EVAL_FILES[*]}"
    $dry_run || die "$nothing; give --eval_data another, auto or none"
    warn "$nothing"
    return
  fi
  for path in "${train_data[@]}"; do
    # In a folder of task folders, or beside a task folder.
    [[ ! -f $path ]] || path=$(dirname -- "$path")
    for folder in "${path%/}/eval" "$(dirname -- "$path")/eval"; do
      is_eval_folder "$folder" || continue
      eval_data=$folder
      say "Evaluation: with $folder, which lies beside the training data."
      return
    done
  done
  if [[ $holdout == *[1-9]* ]]; then
    held_out=true eval_data=$output_dir/prepared/eval
    say "Evaluation: with a share of $holdout of the queries (holdout), kept back from training where there are enough, for no folder eval/ lies beside the training data."
  else
    eval_data=''
    say 'Evaluation: none, for no folder eval/ lies beside the training data, and holdout is 0; whether the model got better stays unknown.'
  fi
}

# usage: is_eval_folder FOLDER    true when there is something in it that `evaluate` reads
is_eval_folder() {
  local name
  for name in "${EVAL_FILES[@]}"; do
    [[ ! -f $1/$name ]] || return 0
  done
  return 1
}

# shellcheck source=scripts/steps.sh
source "$KIT_DIR/scripts/steps.sh"
