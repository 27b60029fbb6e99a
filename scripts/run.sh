# What the two training scripts share: Python plans the steps, this runs them. Sourced after lib.sh, never run.
# shellcheck shell=bash disable=SC2154  # planner is set by find_planner

# usage: run_training single|multi ARGUMENTS…
run_training() {
  local word name value values
  local -a plan=(-m m3kit plan --script "$1" --program "$0")
  [[ $KIT_DIR != *:* ]] || die "the folder $KIT_DIR has a ':' in its name, with which Python cannot work; rename it"
  shift
  # The caller's folder is not searched for modules: a datasets.py in it must not stand in for the real one.
  export PYTHONPATH=$KIT_DIR${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
  for word; do
    [[ $word != @(-h|--help) ]] || { print_help "$0" && find_planner && echo && exec "$planner" "${plan[@]}" --settings; }
  done
  find_planner
  # The variables at the top of the script.
  while IFS= read -r name; do
    values="${name}[@]"
    for value in "${!values}"; do
      plan+=(--block "$name=$value")
    done
  done < <(grep -oE '^[a-z_]+=' "$0" | tr -d =)
  for word; do
    [[ $word != --dry[-_]run ]] || exec "$planner" "${plan[@]}" -- "$@"
  done
  train "$@"
}

# usage: train ARGUMENTS…
train() {
  # What is wrong is said before anything is installed or run.
  "$planner" "${plan[@]}" --check -- "$@"
  ensure_python
  plan+=(--python "$PYTHON")
  scratch=$(mktemp -d)
  trap 'rm -rf -- "$scratch"' EXIT
  # The trainer's own sentence about what is wrong, which torchrun buries under a page of its own.
  export M3KIT_ERROR_FILE=$scratch/error
  title='' child='' caught=''
  # From here to the end, also between two steps. Each is passed on once: torchrun takes a second one as the order to stop
  # waiting for its workers.
  trap 'forward TERM 143' TERM
  trap 'forward INT 130' INT
  trap 'forward HUP 129' HUP
  # The rest of the plan depends on what the steps before have found.
  until [[ $title == End ]]; do
    attend "$PYTHON" "${plan[@]}" --found "$scratch" -- "$@" >"$scratch/steps" || stop "$?" planning
    run_steps
  done
}

# Runs the steps in $scratch/steps: variables, then of each step its title, where its output goes, and its command.
run_steps() {
  local -a words
  local output count place
  mapfile -d '' -t words <"$scratch/steps"
  place=$((words[0] + 1))
  export "${words[@]:1:words[0]}"
  while ((place < ${#words[@]})); do
    title=${words[place]} output=${words[place + 1]} count=${words[place + 2]}
    step "$title" "$output" "${words[@]:place + 3:count}"
    ((place += 3 + count))
  done
}

# usage: step TITLE OUTPUT COMMAND…    runs it, and ends the script with its status when it fails or is stopped
step() {
  local title=$1 output=$2 status=0
  shift 2
  [[ -z $title || $title == End ]] || say "== $title"
  case $output in
    /dev/stdout) attend "$@" || status=$? ;;
    /dev/stderr) attend "$@" >&2 || status=$? ;;
    screen:*) attend_on_screen "${output#screen:}" "$@" || status=$? ;;
    *) attend "$@" >"$output" || status=$? ;;
  esac
  ((status == 0)) && return
  [[ -z $caught ]] || stop "$status" "${title,}"
  if [[ -s $M3KIT_ERROR_FILE ]]; then
    say "$PROGRAM: this step failed: $title. $(<"$M3KIT_ERROR_FILE")"
  else
    say "$PROGRAM: this step failed (exit code $status): $title. What is wrong stands in the lines above; put it right and run the same command again."
  fi
  exit "$status"
}

# usage: stop STATUS WHILE    ends the script; says why where a signal came
stop() {
  local told='to go on, run the same command again'
  [[ ! -s $M3KIT_ERROR_FILE ]] || told=$(<"$M3KIT_ERROR_FILE")
  [[ -z $caught ]] || say "$PROGRAM: stopped by a signal while: $2; $told."
  exit "$1"
}

# usage: attend_on_screen LOG COMMAND…    shows the kit's own sentences, and puts what libraries say into LOG
attend_on_screen() {
  local log=$1 status=0 screen
  shift
  mkfifo -- "$scratch/screen"
  "$PYTHON" -m m3kit.screen "$log" <"$scratch/screen" &
  screen=$!
  M3KIT_SCREEN=1 attend "$@" >"$scratch/screen" 2>&1 || status=$?
  wait "$screen" || true
  rm -f -- "$scratch/screen"
  ((status == 0)) || [[ -n $caught || -s $M3KIT_ERROR_FILE || ! -f $log ]] || tail -n 15 -- "$log" >&2
  return "$status"
}

# usage: attend COMMAND…    runs it with TERM, INT and HUP passed on, and waits for it; 128 + the signal's number then
attend() {
  local status=0
  [[ -z $caught ]] || return "$caught"
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
  child=''
  return "${caught:-$status}"
}

forward() {
  caught=${caught:-$2}
  trap '' "$1"
  [[ $1 != INT ]] || trap end_at_once INT
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null || true
}

# Ctrl-C for the second time.
end_at_once() { [[ -z $child ]] || kill -s KILL -- "-$child" 2>/dev/null || true; }
