# The image in which the training scripts run; docker-compose.yml builds it as bge-m3-training. It needs no BuildKit, so that
# an old engine builds it too.
#
# Any base of the Debian family with Python 3.11 to 3.14 will do, also one named by its digest (ubuntu@sha256:…). It need
# not have CUDA: PyTorch's packages bring the libraries of CUDA 13.0, the GPU's driver comes from the machine (580 or newer),
# and neither PyTorch nor DeepSpeed with ds_stage0.json ("torch_adam": true) compiles CUDA code. For an older driver there are
#   TORCH_INDEX_URL=…                                    PyTorch's package index for an older CUDA, or
#   BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04       NVIDIA's compatibility libraries, for data-centre GPUs only.
# Who uses a DeepSpeed configuration with FusedAdam, which is compiled with nvcc of the very CUDA version of PyTorch, builds with
#   BASE_IMAGE=nvidia/cuda:13.0.3-devel-ubuntu24.04
ARG BASE_IMAGE=ubuntu:24.04

# The code, of root and readable by everyone, whatever the builder's umask was. A stage of its own, for a chmod after COPY
# would store all of it twice.
FROM ${BASE_IMAGE} AS code
COPY . /workspace
RUN chmod -R u=rwX,go=rX /workspace && chmod a+x /workspace/*.sh

FROM ${BASE_IMAGE}

# A pipe fails when its first command does.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# g++ and the Python headers are for what is compiled while training: by DeepSpeed for the CPU (also the optimizer that a
# configuration keeps there), by Triton for torch.compile.
# No versions are pinned here: Debian and Ubuntu take old ones away, and the build would fail.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates g++ python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# The large layer: made again only when a requirement changes, not when the code does.
# Another index has another CUDA, whose parts constraints.txt does not name: those lines must go.
ARG TORCH_INDEX_URL=
COPY requirements.txt constraints.txt /tmp/
RUN python3 -m venv /opt/venv \
 && if [ -n "$TORCH_INDEX_URL" ]; then \
      pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' /tmp/requirements.txt)" \
      && sed -i -E '/^(triton|nvidia-|cuda-)/d' /tmp/constraints.txt \
      && export PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL"; \
    fi \
 && pip install --no-cache-dir -r /tmp/requirements.txt -c /tmp/constraints.txt \
 && rm /tmp/requirements.txt /tmp/constraints.txt

# An image that cannot work must not be built. A step of its own: what was downloaded stays when it fails, and an edit of
# the code does not repeat it. Caches written here would be root's, so they go elsewhere.
RUN export HOME=/tmp/check XDG_CACHE_HOME=/tmp/check \
 && pip check \
 && python -c 'import sys, FlagEmbedding, deepspeed, torch, transformers; \
print("Python", sys.version.split()[0], "torch", torch.__version__, "CUDA", torch.version.cuda, \
      "transformers", transformers.__version__, "deepspeed", deepspeed.__version__)' \
 && rm -rf /tmp/check

# Compose starts the container with the caller's uid, which this system does not know: it has no name and no home.
# The caches lie in a folder that is mounted; XDG_CACHE_HOME is where PyTorch keeps what DeepSpeed compiles, by versions.
# The last two are what NVIDIA's container toolkit asks for: which GPUs, and CUDA (compute) with nvidia-smi (utility).
ENV HOME=/home/trainer \
    USER=trainer \
    XDG_CACHE_HOME=/workspace/cache \
    HF_HOME=/workspace/cache/huggingface \
    MPLCONFIGDIR=/workspace/cache/matplotlib \
    TRITON_CACHE_DIR=/workspace/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/workspace/cache/torchinductor \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The mounted folders are open to any uid, for who runs the image without mounting anything.
WORKDIR /workspace
RUN mkdir -m 1777 data custom_data outputs cache "$HOME" \
 && echo "PS1='bge-m3:\w\$ '" >"$HOME/.bashrc"
COPY --from=code /workspace ./

# The kit's own part of that check: the scripts are whole, and they find the packages. A Python that lacked one would make an
# environment of its own at every start.
RUN export HOME=/tmp/check XDG_CACHE_HOME=/tmp/check HF_HOME=/tmp/check TRITON_CACHE_DIR=/tmp/check PYTHONDONTWRITEBYTECODE=1 \
 && python -m m3kit --help \
 && ./run_flagembedding_training_single_gpu.sh --smoke --dry-run | grep '^export PATH=/opt/venv/bin:' \
 && rm -rf /tmp/check

# Numbers, for no base has the same names: Ubuntu's first user is already 1000.
USER 1000:1000
# Some bases have an entrypoint that prints a banner in front of every command's output.
ENTRYPOINT []
CMD ["bash"]
# torchrun and the scripts save and end on it. A first process that reaps and passes signals on comes from compose (init).
STOPSIGNAL SIGTERM

# Last, for they change with every commit. The stamp is what the wrapper compares to see whether the image must be built again.
ARG BASE_IMAGE
ARG REVISION=
ARG KIT_STAMP=
LABEL org.opencontainers.image.title="bge-m3-training" \
      org.opencontainers.image.description="Fine-tunes BAAI/bge-m3 with FlagEmbedding" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="$BASE_IMAGE" \
      m3kit.stamp="$KIT_STAMP"
