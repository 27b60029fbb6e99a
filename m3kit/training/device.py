"""What the device computes with: its type, the precision, the kernel of attention; as asked, or the fastest it has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from transformers.utils import is_flash_attn_2_available

from m3kit.device import too_few_devices, without_cudnn_attention
from m3kit.errors import KitError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRECISIONS = ("auto", "bf16", "fp16", "fp32")
FLASH, OWN, PLAIN = "flash_attention_2", "sdpa", "eager"
# From here on (Ampere) a GPU has matrix units for bfloat16, and flash-attn has kernels for it. Older ones emulate it.
CAPABILITY = (8, 0)


def device_to_train_on(use_cpu: bool) -> str:
    """Its type: cpu, cuda, … Raises ``KitError`` where there are more processes here than CUDA shows devices."""
    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    device = accelerator.type if accelerator else "cpu"
    if device == "cuda" and (told := too_few_devices(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))):
        raise KitError(told)
    return device


def settle_precision(asked: str | None, fp16: bool, bf16: bool, device: str) -> tuple[str, str]:
    """The precision, and a sentence about it for the log. ``asked`` may be None: then the two switches tell.

    Raises ``KitError`` where these contradict one another, or ask for what ``device`` (cpu, cuda, …) does not do.
    """
    switched = [name for name, on in (("fp16", fp16), ("bf16", bf16)) if on]
    if asked not in (None, *PRECISIONS):
        raise KitError(f"precision is auto, bf16, fp16 or fp32, not {asked!r}")
    if len(switched) == 2:
        raise KitError("--fp16 and --bf16 exclude each other; give one of them, or --precision auto")
    if asked and switched and switched != [asked]:
        raise KitError(f"--precision {asked} and --{switched[0]} True contradict each other; leave one of them out")
    if asked == "auto":
        if has_bf16_units(device):
            return "bf16", f"Precision: bf16, for which {_who_has(device)} matrix units"
        precision = "fp16" if device == "cuda" else "fp32"
        return precision, f"Precision: {precision}, for {_who_has(device)} no matrix units for bf16"
    precision = asked or (switched[0] if switched else "fp32")
    if precision == "fp16" and device == "cpu":
        raise KitError("fp16 does not train on a CPU; give --precision fp32, or auto")
    told = f"Precision: {precision}" + (", as asked" if asked or switched else "")
    if precision == "bf16" and not has_bf16_units(device):
        lacking = f"{_who_has(device)} no matrix units for it"
        if device == "cuda":
            raise KitError(f"precision bf16: {lacking}; give --precision fp16, or auto")
        told += f", though {lacking}: fp32 may be far faster"
    return precision, told


def has_bf16_units(device: str) -> bool:
    if device == "cuda":
        return weakest_gpu()[0] >= CAPABILITY
    # Not avx512_bf16: where there is nothing more, bf16 takes half as long again as fp32. Without either, many times.
    return device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def weakest_gpu() -> tuple[tuple[int, int], str]:
    """Compute capability and name of the least able of those that are trained on, for all must compute alike."""
    count = torch.cuda.device_count()
    used = range(min(count, int(os.environ.get("LOCAL_WORLD_SIZE", count))))
    return min((torch.cuda.get_device_capability(number), torch.cuda.get_device_name(number)) for number in used)


def _who_has(device: str) -> str:
    if device == "cuda":
        return f"this GPU ({weakest_gpu()[1]}) has"
    return "these cores have" if device == "cpu" else f"this device ({device}) has"


def set_attention(encoder: PreTrainedModel, wanted: str, device: str, precision: str) -> str:
    """Have ``encoder`` use the kernel ``wanted``, or the best with ``auto``; a sentence about it for the log.

    Raises ``KitError`` for one that is not to be had here.
    """
    unknown = f"{type(encoder).__name__} has no way to use it"
    missing = {
        FLASH: _missing_for_flash(device, precision) or ("" if encoder._supports_flash_attn else unknown),
        OWN: "" if encoder._supports_sdpa else unknown,
        PLAIN: "",
    }
    kernel = next(name for name, why in missing.items() if not why) if wanted == "auto" else wanted
    if missing[kernel]:
        others = " or ".join(["auto", *(name for name, why in missing.items() if not why)])
        raise KitError(f"attn_implementation {kernel} is not to be had: {missing[kernel]}; give {others}")
    encoder.set_attn_implementation(kernel)
    without_cudnn_attention()
    # Code that comes with a model may keep to a kernel of its own: transformers leaves it, with a warning.
    kept = encoder.config._attn_implementation
    if kept != kernel and wanted != "auto":
        raise KitError(f"attn_implementation {kernel} is not to be had: the model's code keeps to {kept}; give auto")
    told = f"Attention: {kept}"
    return told + (f"; not {FLASH}, for {missing[FLASH]}" if wanted == "auto" and missing[FLASH] else "")


def _missing_for_flash(device: str, precision: str) -> str:
    if device != "cuda":
        return "it needs a GPU"
    if precision == "fp32":
        return "it computes in 16 bits only, and the precision is fp32"
    capability, name = weakest_gpu()
    if capability < CAPABILITY:
        return f"it needs a GPU newer than {name}"
    return "" if is_flash_attn_2_available() else "the package flash-attn is not installed"
