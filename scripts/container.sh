# The image and the container of the two Docker scripts. Sourced after docker.sh, whose settings it needs.
# shellcheck shell=bash disable=SC2154  # set by docker.sh

IMAGE=bge-m3-training
SERVICE=bge-m3-training

# usage: kit_stamp       prints a number for all that goes into the image
kit_stamp() {
  local line files=()
  while IFS= read -r line; do
    [[ $line != '!'* || ! -e $KIT_DIR/${line#!} ]] || files+=("${line#!}")
  done <"$KIT_DIR/.dockerignore"
  {
    printf '%s\n' "$(env_value BASE_IMAGE)" "$(env_value TORCH_INDEX_URL)"
    (cd -- "$KIT_DIR" && find "${files[@]}" -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 cksum)
  } | cksum | tr ' ' -
}

# usage: ensure_image    builds it when there is none, or when the kit has changed since
ensure_image() {
  local stamp built name log arguments=() status=0
  stamp=$(kit_stamp)
  if ! built=$(docker image inspect --format '{{index .Config.Labels "m3kit.stamp"}}' "$IMAGE" 2>/dev/null); then
    say "Image: there is no $IMAGE yet; building it. This is done once: about 7 GB to download, up to $IMAGE_GB GB on disk, 10 to 40 minutes."
  elif [[ $built != "$stamp" ]]; then
    say "Image: $IMAGE is older than the kit's files; bringing it up to date. That takes seconds when only code has changed."
  else
    say "Image: $IMAGE is up to date."
    return
  fi
  # Docker's client does not hand on the proxies of the environment by itself.
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
  done
  log=$(mktemp)
  KIT_STAMP=$stamp "${COMPOSE[@]}" build "${arguments[@]}" "$SERVICE" 2>&1 | tee -- "$log" >&2 || status=$?
  ((status == 0)) || problem=$(why_not_built "$(tail -n 200 -- "$log")")
  rm -f -- "$log"
  ((status == 0)) ||
    die "the image could not be built: $problem. Then run this again; finished steps are kept"
}

# usage: why_not_built LOG    prints what is wrong and the cure, as far as the messages of engine, apt and pip tell
why_not_built() {
  local log=${1,,} base free root=${docker_info%%$'\n'*} proxy=${https_proxy:-${HTTPS_PROXY:-${http_proxy:-${HTTP_PROXY:-}}}}
  base=$(env_value BASE_IMAGE)
  base=${base:-$(sed -n 's/^ARG BASE_IMAGE=//p' "$KIT_DIR/Dockerfile")}
  case $log in
    *'no space left on device'* | *'disk quota exceeded'* | *"don't have enough free space"*)
      free=$(free_gb "$root") || free=''
      printf '%s' "the disk is full${free:+ ($root: $free GB free)}. See what Docker holds: docker system df; free what no container uses: docker system prune"
      ;;
    *toomanyrequests*)
      printf '%s' "the registry hands out no more images to this address for now. Type: docker login, or wait some hours"
      ;;
    *'access denied'* | *'403 forbidden'* | *'authorization failed'* | *unauthorized* | *'manifest unknown'* | *"manifest for "*"not found"* | *"$base: not found"* | *'invalid reference format'*)
      printf '%s' "the registry does not hand out the base image $base. See whether BASE_IMAGE is spelt right; for a private one type: docker login"
      ;;
    *'proxyconnect'* | *'proxy authentication required'* | *'cannot connect to proxy'* | *'unable to connect to proxy'*)
      printf '%s' "the proxy does not answer or refuses (http_proxy, https_proxy${proxy:+: $proxy}). Correct it; the engine has one of its own for pulling images: docker info --format '{{.HTTPProxy}} {{.HTTPSProxy}}'"
      ;;
    *'certificate verify failed'* | *'certificate signed by unknown authority'* | *'unable to get local issuer'*)
      printf '%s' "a certificate is not trusted, as behind a proxy that opens TLS. Add its certificate to a base image of yours and give that as BASE_IMAGE; for pulling, to the engine's machine"
      ;;
    *'no such host'* | *'temporary failure'* | *'could not resolve'* | *'i/o timeout'* | *'connection refused'* | *'connection timed out'* | *'could not connect'* | *'network is unreachable'* | *'no route to host'* | *'tls handshake timeout'* | *'failed to establish a new connection'* | *'read timed out'* | *'context deadline exceeded'* | *'client.timeout'*)
      if [[ -n $proxy ]]; then
        printf '%s' "the network, or the proxy $proxy, does not answer. Correct http_proxy and https_proxy, or unset them"
      else
        printf '%s' "the network does not answer. Behind a proxy set http_proxy and https_proxy, and for pulling the engine's own (docs.docker.com/engine/daemon/proxy)"
      fi
      ;;
    *'no matching distribution'* | *'could not find a version'*)
      printf '%s' "pip found no fitting package (its message is above). See whether the base image has Python 3.10, 3.11 or 3.12, and TORCH_INDEX_URL is right"
      ;;
    *) printf '%s' "the reason stands above" ;;
  esac
}

# usage: try_gpu         a driver too old for the image, or a runtime in name only, shows here and not in the middle of a run
try_gpu() {
  local answer cure last
  if answer=$("${COMPOSE[@]}" run --rm -T "$SERVICE" nvidia-smi -L </dev/null 2>&1); then
    say "In the container: $(grep '^GPU ' <<<"$answer" || printf '%s' "${answer##*$'\n'}")"
    return
  fi
  case ${answer,,} in
    *'unsatisfied condition'* | *'update your driver'*)
      cure="the driver is too old for the CUDA of this image. Update it (580 or newer), or build for an older CUDA: see the head of Dockerfile"
      ;;
    *'could not select device driver'* | *'unknown or invalid runtime name'*)
      cure="Docker has no nvidia runtime. Install the NVIDIA Container Toolkit, then type: $CONFIGURE_NVIDIA"
      ;;
    *'driver/library version mismatch'* | *'driver not loaded'*)
      cure="the driver was updated or is not loaded. Restart this machine"
      ;;
    *) cure="see whether nvidia-smi works outside, then type: $CONFIGURE_NVIDIA" ;;
  esac
  last=$(grep -iE 'nvidia|nvml|error|driver' <<<"$answer" | tail -n 1) || last=${answer##*$'\n'}
  die "the container cannot use the GPU: $cure
What was said: $last
To go on without it: CUDA_VISIBLE_DEVICES= $(quote "$0" "${PROGRAM_ARGUMENTS[@]}")"
}

# usage: run_container SERVICE COMMAND…    runs it in the container, which is removed after it; returns its status
#
# Compose is not to be relied on with signals: its plugin ends at Ctrl-C and leaves the container running, or does not
# hear TERM at all. So it is waited for, and a signal stops the container as `docker stop` does: with a checkpoint.
run_container() {
  local service=$1 child caught='' status=0
  local -a run=("${COMPOSE[@]}" run --rm)
  shift
  printf -v container 'bge-m3-%(%Y%m%d-%H%M%S)T-%s' -1 $$
  run+=(--name "$container" -e "M3KIT_WRAPPER=./run_docker_training.sh")
  # Only `up` opens the ports by itself, and it leaves its container behind.
  [[ $service != tensorboard ]] || run+=(--service-ports)
  # With a pipe on either side a terminal would change what goes through it, and docker-compose 1.29 would refuse.
  [[ -t 0 && -t 1 ]] || run+=(-T)
  run+=("$service" "$@")
  say "$(quote "${run[@]}")"
  trap 'stop_container 143' TERM
  trap 'stop_container 130' INT
  trap 'stop_container 129' HUP
  # In the background, for Bash heeds a trap only while it waits; not in a process group of its own, which could not read
  # from the terminal.
  "${run[@]}" <&0 &
  child=$!
  wait "$child" || status=$?
  # A trap cuts wait short while the command is still ending.
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  wait
  trap - TERM INT HUP
  # What a client that is gone would have removed.
  [[ -z $caught ]] || docker rm --force "$container" >/dev/null 2>&1 || true
  return "${caught:-$status}"
}

# usage: stop_container STATUS    for a trap of run_container; only the first signal counts
stop_container() {
  local since
  caught=$1
  trap '' TERM INT HUP
  printf -v since '%(%s)T' -1
  say "$PROGRAM: stopping; training finishes its step and saves a checkpoint first. At once, and without: docker kill $container"
  # A newer client has gone by now, and with it what the container says.
  sleep 1
  if ! kill -0 "$child" 2>/dev/null && docker container inspect "$container" >/dev/null 2>&1; then
    docker logs --follow --since "$since" "$container" &
  fi
  # It may be asked for and not be there yet.
  until docker stop "$container" >/dev/null 2>&1 || ! kill -0 "$child" 2>/dev/null; do
    sleep 1
  done
}
