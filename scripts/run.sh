# What the two training scripts share: Python plans the steps, this runs them. Sourced after lib.sh, never run.
# shellcheck shell=bash disable=SC2154  # gpu_count and gpu_reason are set by count_gpus

# shellcheck source=scripts/python.sh
source "$KIT_DIR/scripts/python.sh"

# usage: run_training single|multi ARGUMENTS…
run_training() {
  local word dry_run=false
  script=$1 && shift
  for word; do
    case $word in
      -h | --help)
        print_help "$0"
        planner=$(plan_python) && echo && PYTHONPATH=$KIT_DIR "$planner" -m m3kit plan --settings --script "$script"
        exit 0
        ;;
      --dry-run | --dry_run) dry_run=true ;;
    esac
  done
  [[ $KIT_DIR != *:* ]] || die "the folder $KIT_DIR has a ':' in its name, with which Python cannot work; rename it"
  planner=$(plan_python) ||
    die 'no Python 3.11 or newer found; install one (sudo apt install python3 python3-venv), or set PYTHON to its path'
  # The caller's folder is not searched for modules: a datasets.py in it must not stand in for the real one.
  export PYTHONPATH=$KIT_DIR${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
  set_plan
  if $dry_run; then
    show "$@"
  else
    train "$@"
  fi
}

# usage: set_plan        sets plan: what makes the plan, but for the arguments that the user typed
set_plan() {
  local name value values
  count_gpus
  plan=(-m m3kit plan --script "$script" --program "$0" --gpus "$gpu_count" --gpu_reason "$gpu_reason" --cores "$(nproc)")
  ! have g++ || ! has_python_headers || plan+=(--compiles)
  # The variables at the top of the script.
  while IFS= read -r name; do
    values="${name}[@]"
    for value in "${!values}"; do
      plan+=(--block "$name=$value")
    done
  done < <(grep -oE '^[a-z_]+=' "$0" | tr -d =)
}

# usage: show ARGUMENTS…    the commands that train would run, as a script on stdout: every line can be pasted
show() {
  local found=true
  find_python || found=false
  $found || use_python "$VENV_DIR/bin/python"
  # shellcheck disable=SC2016  # the PATH is that of the shell it is pasted into
  printf 'export PATH=%s:"$PATH" %s\n' "$(quote "${PYTHON%/*}")" "$(quote PYTHONPATH="$PYTHONPATH" PYTHONSAFEPATH=1)"
  $found || { plan_venv && plan+=(--not_installed); }
  "$planner" "${plan[@]}" --python "$PYTHON" -- "$@"
}

# usage: train ARGUMENTS…
train() {
  # What is wrong is said before anything is installed or run.
  "$planner" "${plan[@]}" --check -- "$@"
  ensure_python
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
    attend "$PYTHON" "${plan[@]}" --python "$PYTHON" --found "$scratch" -- "$@" >"$scratch/steps" || stop "$?" planning
    run_steps
  done
}

# Runs the steps in $scratch/steps: threads, then of each step its title, where its output goes, and its command.
run_steps() {
  local -a words
  local output count place=1
  mapfile -d '' -t words <"$scratch/steps"
  export OMP_NUM_THREADS=${words[0]}
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
