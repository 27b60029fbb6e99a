#!/usr/bin/env bash
# Stands in for Python: writes each call to LOG and answers as the kit's verbs do.
# FAKE_VERSION, FAKE_LACKS, FAKE_LACKS_MODULE, FAKE_NO_VENV, FAKE_NO_HEADERS, FAKE_BROKEN, FAKE_FAILS=verb or pip: what is wrong with it.
# FAKE_HELD_OUT: the file of test data that prepare makes, where it is to keep rows back.
me=${0##*/}
[[ -z ${FAKE_BROKEN:-} || $0 == */.venv/* ]] || exit 127
# FAKE_SIGNAL: it comes to the script while the next steps are planned.
[[ -z ${FAKE_SIGNAL:-} || "$2 ${3:-}" != 'm3kit plan' || " $* " != *' --found '* ]] || kill -s "$FAKE_SIGNAL" "$PPID"
# What makes the plan is real, and no step.
[[ "$1 $2 ${3:-}" != '-m m3kit plan' && "$1 $2" != '-m m3kit.'@(screen|environment) ]] || exec "$REAL_PYTHON" "$@"
[[ $1 == -c ]] || printf '%s %s\n' "$me" "$*" >>"$LOG"

case "$1 $2 ${3:-}" in
  *find_spec*) [[ $3 != "${FAKE_LACKS_MODULE:-}" ]] || exit 1 ;;
  *PackageNotFoundError*)
    if [[ -n ${FAKE_LACKS:-} ]]; then
      echo "it has no $FAKE_LACKS"
      exit 1
    fi
    echo "$(cd -- "$(dirname -- "$0")" && pwd)/$me"
    ;;
  *version_info*)
    echo "${FAKE_VERSION:-3.11}"
    [[ $2 != *ensurepip* ]] || exit "${FAKE_NO_VENV:-0}"
    ;;
  *Python.h*) exit "${FAKE_NO_HEADERS:-0}" ;;
  '-m venv '*)
    mkdir -p "${!#}/bin"
    cp -- "$0" "${!#}/bin/python"
    ;;
  '-m pip --version') ;;
  '-m pip install')
    sleep "${FAKE_PIP_SECONDS:-0}"
    [[ ${FAKE_FAILS:-} != pip ]] || exit 1
    ;;
  "-m m3kit ${FAKE_FAILS:-no}") exit 3 ;;
  '-m m3kit prepare')
    holdout=false
    while (($#)); do
      [[ $1 != --output_dir ]] || folder=$2
      [[ $1 != --holdout ]] || holdout=true
      shift
    done
    echo "$folder/retrieval"
    echo "$folder/sts [2]"
    if $holdout && [[ -n ${FAKE_HELD_OUT:-} ]]; then
      mkdir -p "$(dirname -- "$folder/eval/$FAKE_HELD_OUT")"
      echo '{}' >"$folder/eval/$FAKE_HELD_OUT"
    fi
    ;;
  '-m m3kit recipe') printf '%s\n' --learning_rate 5e-05 --merge_shares 0.5 0.7 ;;
  '-m m3kit evaluate') echo 'the table' ;;
esac
