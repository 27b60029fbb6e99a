# The steps of a training script: as commands to show, or to run. Sourced by training.sh, never run.
# shellcheck shell=bash disable=SC2153,SC2154  # the variables of the calling script and of training.sh

# usage: set_commands    sets starter, doctor, prepare, evaluate, report: arrays, empty where a step is not needed
set_commands() {
  starter=() evaluate=()
  [[ $model_name_or_path != "$STARTER" ]] || starter_is_ready ||
    starter=("$PYTHON" -m m3kit starter --output_dir "$STARTER")
  doctor=("$PYTHON" -m m3kit doctor --device "$device")
  set_prepare
  [[ -z $eval_data ]] || set_evaluate "$eval_data"
  report=("$PYTHON" -m m3kit report "$output_dir")
}

set_prepare() {
  local name
  prepare=("$PYTHON" -m m3kit prepare --train_data "${train_data[@]}" --output_dir "$output_dir/prepared"
    --train_group_size "$train_group_size" --seed "$seed")
  for name in query_instruction_for_retrieval columns task; do
    [[ -z ${!name} ]] || prepare+=("--$name" "${!name}")
  done
  [[ $classification_positives == labels ]] || prepare+=(--classification_positives "$classification_positives")
  [[ $sts_max_score == 1 ]] || prepare+=(--sts_max_score "$sts_max_score")
  [[ $sts_as == graded ]] || prepare+=(--sts_as "$sts_as")
  ! is_true "$skip_bad_rows" || prepare+=(--skip-bad-rows)
  ! is_true "$strict" || prepare+=(--strict)
  if $held_out; then
    prepare+=(--holdout "$holdout")
  elif [[ -n $eval_data ]]; then
    prepare+=(--eval_data "$eval_data")
  fi
  # For what only shows in training: texts that are cut, batches that a set is too small for.
  prepare+=(--tokenizer "$model_name_or_path" --query_max_len "$query_max_len" --passage_max_len "$passage_max_len")
  # What is found for auto leaves the largest set steps enough.
  [[ $per_device_train_batch_size == auto ]] || prepare+=(--batch_size "$((per_device_train_batch_size * processes))")
  [[ -z $cache_dir ]] || prepare+=(--cache_dir "$cache_dir")
}

# True when the starter model is there and newer than all that it is made of.
starter_is_ready() {
  local origin
  for origin in "$KIT_DIR/m3kit/starter.py" "$KIT_DIR"/example_data/*/*.jsonl; do
    [[ $STARTER/starter.json -nt $origin ]] || return 1
  done
}

# usage: set_evaluate FOLDER
set_evaluate() {
  evaluate=("$PYTHON" -m m3kit evaluate --models "base=$model_name_or_path" "tuned=$output_dir" --eval_data "$1"
    --output_dir "$output_dir" --query_max_len "$query_max_len" --passage_max_len "$passage_max_len"
    --pooling_method "$sentence_pooling_method" --normalize_embeddings "$normalize_embeddings" --device "$device")
  [[ -z $query_instruction_for_retrieval ]] ||
    evaluate+=(--query_instruction_for_retrieval "$query_instruction_for_retrieval")
  [[ -z $cache_dir ]] || evaluate+=(--cache_dir "$cache_dir")
}

# usage: set_torchrun PREPARED…    sets torchrun
set_torchrun() {
  torchrun=(torchrun)
  # The folder of PYTHON is first on PATH; in a dry run there may be nothing in it yet.
  have torchrun || [[ ! -x $PYTHON ]] || torchrun=("$PYTHON" -m torch.distributed.run)
  set_trainer_arguments "$@"
  # After a signal a step is finished and a checkpoint written before the processes go: torchrun would kill them first.
  # The processes meet on this machine: by its name, as torchrun has it, they wait for ever where that is not resolved.
  torchrun+=(--standalone --local-addr 127.0.0.1 --nproc_per_node "$processes" --shutdown-timeout 600
    -m "$entrypoint" "${trainer_arguments[@]}")
}

# usage: set_probe PREPARED…    sets probe: what finds the numbers for per_device_train_batch_size=auto
set_probe() {
  local per_device_train_batch_size=1
  set_trainer_arguments "$@"
  probe=("$PYTHON" -m m3kit.training.batch_size --processes "$processes" "${trainer_arguments[@]}")
}

# usage: set_recipe PREPARED…    sets recipe_command: what prints the settings that are put behind the trainer's own
set_recipe() {
  local name word
  local -a kept=("${!given[@]}")
  for name in "${TRAINER_VARIABLES[@]}" "${KIT_TRAINER_VARIABLES[@]}"; do
    local in_environment=${name^^}
    [[ -z ${!in_environment:-} ]] || kept+=("$name")
  done
  for word in "${extra[@]}"; do
    [[ $word != --* ]] || { word=${word#--} && word=${word%%=*} && kept+=("${word//-/_}"); }
  done
  set_trainer_arguments "$@"
  recipe_command=("$PYTHON" -m m3kit recipe --output_dir "$output_dir/recipe" --processes "$processes" --device "$device")
  ! is_true "$mine_negatives" || recipe_command+=(--mine_negatives)
  ((${#kept[@]} == 0)) || recipe_command+=(--kept "${kept[@]}")
  recipe_command+=(-- "${trainer_arguments[@]}")
}

# usage: set_trainer_arguments PREPARED…    sets trainer_arguments
set_trainer_arguments() {
  local name
  trainer_arguments=(--train_data "$@")
  for name in "${TRAINER_VARIABLES[@]}"; do
    [[ -z ${!name:-} ]] || trainer_arguments+=("--$name" "${!name}")
  done
  if [[ $entrypoint != "$LIBRARY_ENTRYPOINT" ]]; then
    for name in "${KIT_TRAINER_VARIABLES[@]}"; do
      [[ -z ${!name:-} ]] || trainer_arguments+=("--$name" "${!name}")
    done
    ((${#evaluate[@]} == 0)) || trainer_arguments+=(--eval_data "$eval_data")
  fi
  case $precision in
    auto) trainer_arguments+=(--precision auto) ;;
    fp16 | bf16) trainer_arguments+=("--$precision" True) ;;
  esac
  [[ $device != cpu ]] || trainer_arguments+=(--use_cpu True)
  [[ -z $deepspeed ]] || trainer_arguments+=(--deepspeed "$deepspeed")
  # What the recipe chose is never what is set here.
  trainer_arguments+=("${extra[@]}" "${chosen[@]}")
}

# What train would run, as a script on stdout: every line can be pasted.
show_plan() {
  local found=true
  find_python || found=false
  $found || use_python "$VENV_DIR/bin/python"
  say 'Nothing is run. The commands:'
  # shellcheck disable=SC2016  # the PATH is that of the shell it is pasted into
  printf 'export PATH=%s:"$PATH" %s\n' "$(quote "${PYTHON%/*}")" \
    "$(quote PYTHONPATH="$PYTHONPATH" PYTHONSAFEPATH=1 OMP_NUM_THREADS="$OMP_NUM_THREADS")"
  $found || plan_venv
  set_commands
  ((${#starter[@]} == 0)) || quote "${starter[@]}"
  quote "${doctor[@]}"
  quote "${prepare[@]}"
  expected_folders
  show_training
  ((${#evaluate[@]} == 0)) || quote "${evaluate[@]}"
  quote "${report[@]}"
  show_memory "$found"
}

# The commands from the prepared data to a model.
show_training() {
  local line name
  if [[ $per_device_train_batch_size != auto ]]; then
    set_torchrun "${expected[@]}"
    line=$(quote "${torchrun[@]}")
    if [[ $recipe == best ]]; then
      set_recipe "${expected[@]}"
      printf 'mapfile -t chosen < <(%s)\n' "$(quote "${recipe_command[@]}")"
      # shellcheck disable=SC2016  # a variable of the shell it is pasted into
      line+=' "${chosen[@]}"'
    fi
    printf '%s\n' "$line"
    return
  fi
  set_probe "${expected[@]}"
  printf 'read -r batch_size sub_batch_tokens < <(%s)\n' "$(quote "${probe[@]}")"
  # shellcheck disable=SC2016  # variables of the shell it is pasted into
  local per_device_train_batch_size='$batch_size' sub_batch_tokens='$sub_batch_tokens'
  set_torchrun "${expected[@]}"
  line=$(quote "${torchrun[@]}")
  for name in batch_size sub_batch_tokens; do
    line=${line//"'\$$name'"/"\"\$$name\""}
  done
  printf '%s\n' "$line"
}

# usage: show_memory RUN    what training will take of it, on stderr; unless RUN is true only the command that says it
show_memory() {
  local name
  local -a memory=("$PYTHON" -m m3kit memory --device "$device" --processes "$processes" --precision "$precision")
  for name in model_name_or_path cache_dir per_device_train_batch_size train_group_size query_max_len passage_max_len \
    sub_batch_tokens gradient_checkpointing unified_finetuning fix_encoder unified_negatives_cross_device; do
    [[ -z ${!name:-} ]] || memory+=("--$name" "${!name}")
  done
  [[ -z $deepspeed ]] || memory+=(--deepspeed)
  if ! $1; then
    say "How much memory it will take, once the packages are there: $(quote "${memory[@]}")"
  else
    # A plan that cannot be made is no reason for a dry run to fail.
    "${memory[@]}" >&2 || true
  fi
}

# usage: expected_folders    sets expected: what prepare will name the folders, without reading a row
expected_folders() {
  local path file name labelled found
  local -a files
  local -A seen=()
  expected=()
  for path in "${train_data[@]}"; do
    files=("$path")
    [[ ! -d $path ]] || files=("$path"/* "$path"/*/*)
    found=false
    for file in "${files[@]}"; do
      is_data_file "$file" "$path" || continue
      found=true
      name=$(cd -- "$(dirname -- "$file")" && pwd -P)
      name=${name##*/}
      # Who says the task has labelled rows in folders of other names.
      [[ -z $task || $name == @(retrieval|sts|classification|clustering)* ]] || name=$task
      # Rows of one label must not be each other's negatives; prepare adds the suffix where it is missing.
      for labelled in classification clustering; do
        [[ $name != "$labelled"* || $name == *no_in_batch_neg ]] || name=$labelled-no_in_batch_neg
      done
      [[ -n ${seen[$name]:-} ]] || expected+=("$output_dir/prepared/$name")
      seen[$name]=1
    done
    $found || say "Not there, or without a data file: $path"
  done
}

# usage: is_data_file FILE GIVEN    true when prepare reads FILE, which is GIVEN or lies in it
is_data_file() {
  local name=${1##*/}
  [[ -f $1 && $1 != "$2"/eval/* && $name != @(labels.json|rejected.jsonl) ]] || return 1
  # What is given by its own name is read whatever its ending.
  [[ $1 == "$2" || ${name,,} =~ .\.(jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|zst))?$ ]]
}

train() {
  local prepared=()
  ensure_python
  set_commands
  mkdir -p -- "$output_dir" || die "cannot make the folder $output_dir; give another --output_dir"
  if ((${#starter[@]})); then
    step 'Making the starter model' "${starter[@]}" >&2
  fi
  step 'Checking this machine' "${doctor[@]}" >&2
  scratch=$(mktemp -d)
  trap 'rm -rf -- "$scratch"' EXIT
  # The trainer's own sentence about what is wrong, which torchrun buries under a page of its own.
  export M3KIT_ERROR_FILE=$scratch/error
  if $trained; then
    evaluate_and_report
    return
  fi
  step 'Preparing the data' "${prepare[@]}" >"$scratch/prepared"
  mapfile -t prepared <"$scratch/prepared"
  if $held_out && ! is_eval_folder "$eval_data"; then
    evaluate=()
    say 'Evaluation: none, for nothing was held out (the reason is above); whether the model got better stays unknown.'
  fi
  if [[ $per_device_train_batch_size == auto ]]; then
    set_probe "${prepared[@]}"
    step 'Finding the batch size' "${probe[@]}" >"$scratch/numbers"
    # shellcheck disable=SC2034  # set_torchrun has it by its name
    read -r per_device_train_batch_size sub_batch_tokens <"$scratch/numbers"
  fi
  if [[ $recipe == best ]]; then
    set_recipe "${prepared[@]}"
    step 'Choosing the settings (recipe=best)' "${recipe_command[@]}" >"$scratch/chosen"
    mapfile -t chosen <"$scratch/chosen"
  fi
  set_torchrun "${prepared[@]}"
  say "$(quote "${torchrun[@]}")"
  step 'Training' "${torchrun[@]}" >&2
  rm -f -- "$output_dir"/{metrics,hybrid}.json  # of another training, by the untouched library
  evaluate_and_report
}

evaluate_and_report() {
  if ((${#evaluate[@]})) && [[ ! -e $output_dir/metrics.json ]]; then
    step 'Evaluating' "${evaluate[@]}"
  fi
  step 'Writing the report' "${report[@]}" >/dev/null
  tell_end
}

# usage: step TITLE COMMAND…    runs it, and ends the script with its status when it fails or is stopped
step() {
  local title=$1 status=0
  shift
  say "== $title"
  attend "$@" || status=$?
  ((status == 0)) && return
  if [[ -n $caught ]]; then
    local told='to go on, run the same command again'
    [[ ! -s ${M3KIT_ERROR_FILE:-} ]] || told=$(<"$M3KIT_ERROR_FILE")
    say "$PROGRAM: stopped by a signal while: ${title,}; $told."
  elif [[ -s ${M3KIT_ERROR_FILE:-} ]]; then
    say "$PROGRAM: this step failed: $title. $(<"$M3KIT_ERROR_FILE")"
  else
    say "$PROGRAM: this step failed (exit code $status): $title. What is wrong stands in the lines above; put it right and run the same command again."
  fi
  exit "$status"
}

# usage: attend COMMAND…    runs it with TERM, INT and HUP passed on, and waits for it; 128 + the signal's number then
attend() {
  local status=0
  child='' caught=''
  # Each is passed on once: torchrun takes a second one as the order to stop waiting for its workers.
  trap 'forward TERM 143' TERM
  trap 'forward INT 130' INT
  trap 'forward HUP 129' HUP
  # In a process group of its own, or Bash would start it with INT ignored.
  set -m
  "$@" &
  child=$!
  set +m
  [[ -z $caught ]] || kill -s TERM "$child" 2>/dev/null || true
  wait "$child" || status=$?
  # A trap cuts wait short while the command is still ending.
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  trap - TERM INT HUP
  return "${caught:-$status}"
}

forward() {
  caught=${caught:-$2}
  trap '' "$1"
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null || true
}

tell_end() {
  local try='import sys; from FlagEmbedding import BGEM3FlagModel; print(BGEM3FlagModel(sys.argv[1]).encode(["a text"])["dense_vecs"])'
  local shown=$output_dir
  # In a container the kit's folder has another name than outside, and outputs/ is the same on both sides.
  [[ $PWD != "$KIT_DIR" ]] || shown=${shown#"$KIT_DIR/"}
  printf '\nThe model is in %s, the report in %s\n' "$shown" "$shown/report.html"
  if $smoke; then
    printf 'Next, with data of yours: %s\n' "$(to_type "$0" --recipe best --train_data YOUR_FOLDER)"
  elif ((${#evaluate[@]})); then
    printf 'Next, to use it: %s\n' "$(to_type "$PYTHON" -c "$try" "$shown")"
  else
    set_evaluate YOUR_EVAL_FOLDER
    printf 'Next, to see whether it got better: %s\n' "$(to_type env "PYTHONPATH=$KIT_DIR" "${evaluate[@]}")"
  fi
}

# usage: to_type COMMAND…    prints it as it is typed: in a container of the wrapper, from outside
to_type() {
  local what=multi
  if [[ -z ${M3KIT_WRAPPER:-} ]]; then
    quote "$@"
  elif [[ $1 == "$0" ]]; then
    [[ $0 != *single* ]] || what=single
    quote "$M3KIT_WRAPPER" "$what" "${@:2}"
  else
    quote "$M3KIT_WRAPPER" -- "$@"
  fi
}
