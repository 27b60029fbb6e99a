#!/usr/bin/env bash
# Stands in for docker and docker-compose: writes what matters of each call to LOG and answers as they do.
# FAKE_DAEMON=down, denied or odd, podman (at the socket) or shim (by the name of docker); FAKE_NVIDIA=1: the nvidia runtime; FAKE_ROOTLESS=1; FAKE_PLUGIN, FAKE_COMPOSE: versions, if
# there; FAKE_BUILD_FAILS, FAKE_GPU_FAILS: what is said then; FAKE_STATUS: what the command in the container exits with;
# FAKE_RUNS=1: it runs until it is stopped, FAKE_CLIENT=dies: and the client does not wait for it. STAMP: the image.
me=${0##*/}
[[ $me == docker-compose ]] || [[ $1 != compose ]] || { me='docker compose' && shift; }

note() { printf '%s%s\n' "$me" "$(printf ' <%s>' "$@")" >>"$LOG"; }

# What every build has: the stamp of the kit, which is kept as the image.
note_build() {
  local words=("$@") index
  for index in "${!words[@]}"; do
    [[ ${words[index]} == KIT_STAMP=* ]] || continue
    built=${words[index]#*=}
    unset 'words[index - 1]' 'words[index]'
  done
  note "${words[@]}"
}

# What every run has: a name, which is kept, and the wrapper's own.
note_run() {
  local words=()
  while (($#)); do
    case $1 in
      --name) printf '%s\n' "$2" >"$LOG.name" && shift ;;
      -e) shift ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  note "${words[@]}"
}

case "$me $1 ${2:-}" in
  'docker --version '*) [[ ${FAKE_DAEMON:-} == shim ]] && echo 'podman version 4.3.1' || echo 'Docker version 27.1.0, build 6312585' ;;
  'docker version '*)
    case ${FAKE_DAEMON:-} in
      down) echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2 && exit 1 ;;
      denied) echo 'Got permission denied while trying to connect to the Docker daemon socket' >&2 && exit 1 ;;
      odd) printf 'first\nthe engine is on fire\n' >&2 && exit 1 ;;
      podman) echo '4.3.1 Podman Engine Conmon OCI Runtime (crun)' && exit ;;
    esac
    echo '27.1.0 Engine containerd runc docker-init'
    ;;
  'docker info '*)
    printf '%s\n' "$DOCKER_ROOT"
    printf '{%s"runc":{"path":"runc"}}\n' "${FAKE_NVIDIA:+\"nvidia\":{\"path\":\"x\"\},}"
    printf '["name=seccomp"%s]\n' "${FAKE_ROOTLESS:+,\"name=rootless\"}"
    ;;
  'docker image inspect') cat "$STAMP" 2>/dev/null ;;
  'docker compose version --short') [[ -n ${FAKE_PLUGIN:-} ]] && echo "$FAKE_PLUGIN" ;;
  'docker-compose version --short') [[ -n ${FAKE_COMPOSE:-} ]] && echo "$FAKE_COMPOSE" ;;
  *' build '*)
    note_build "$@"
    echo 'talk of the build'
    [[ -z ${FAKE_BUILD_FAILS:-} ]] || { printf '%s\n' "$FAKE_BUILD_FAILS" >&2 && exit 1; }
    printf '%s\n' "$built" >"$STAMP"
    ;;
  'docker stop '*) note "$@" && [[ $2 == "$(<"$LOG.name")" ]] && : >"$LOG.stopped" ;;
  'docker container inspect') ;;
  'docker rm '* | 'docker logs '*) note "${@:1:$#-1}" ;;
  *' run '*)
    note_run "$@"
    if [[ " $* " == *' nvidia-smi '* ]]; then
      [[ -z ${FAKE_GPU_FAILS:-} ]] || { printf '%s\n' "$FAKE_GPU_FAILS" >&2 && exit 125; }
      echo 'GPU 0: seen from inside'
      exit
    fi
    echo 'out of the container'
    if [[ -n ${FAKE_RUNS:-} ]]; then
      echo runs >>"$LOG"
      [[ ${FAKE_CLIENT:-} != dies ]] || { sleep 0.5 && exit 130; }
      until [[ -e $LOG.stopped ]]; do sleep 0.1; done
      echo 'last words'
    fi
    exit "${FAKE_STATUS:-0}"
    ;;
  *)
    note "$@"
    exit 99
    ;;
esac
