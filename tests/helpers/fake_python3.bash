#!/usr/bin/env bash
# Stands in for Python: writes each call to LOG and answers as the kit's verbs do.
# FAKE_VERSION, FAKE_LACKS, FAKE_NO_VENV, FAKE_NO_HEADERS, FAKE_BROKEN, FAKE_FAILS=verb or pip: what is wrong with it.
me=${0##*/}
[[ -z ${FAKE_BROKEN:-} || $0 == */.venv/* ]] || exit 127
[[ $1 == -c ]] || printf '%s %s\n' "$me" "$*" >>"$LOG"

case "$1 $2 ${3:-}" in
  *PackageNotFoundError*)
    if [[ -n ${FAKE_LACKS:-} ]]; then
      echo "it has no $FAKE_LACKS"
      exit 1
    fi
    echo "$(cd -- "$(dirname -- "$0")" && pwd)/$me"
    ;;
  *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
  *Python.h*) exit "${FAKE_NO_HEADERS:-0}" ;;
  *ensurepip*) exit "${FAKE_NO_VENV:-0}" ;;
  '-m venv '*)
    rm -rf -- "$4"
    mkdir -p "$4/bin"
    cp -- "$0" "$4/bin/python"
    ;;
  '-m pip --version') ;;
  '-m pip install')
    sleep "${FAKE_PIP_SECONDS:-0}"
    [[ ${FAKE_FAILS:-} != pip ]] || exit 1
    ;;
  "-m m3kit ${FAKE_FAILS:-no}") exit 3 ;;
  '-m m3kit prepare')
    for word; do
      [[ $word != */* ]] || folder=$word
    done
    echo "$folder/retrieval"
    echo "$folder/sts [2]"
    ;;
  '-m m3kit evaluate') echo 'the table' ;;
esac
