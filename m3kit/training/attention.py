"""Which kernel computes attention: the fastest that machine, precision and model have."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from m3kit.errors import KitError
from m3kit.training.precision import CAPABILITY, weakest_gpu

FLASH, OWN, PLAIN = "flash_attention_2", "sdpa", "eager"
NAMES = ("auto", FLASH, OWN, PLAIN)


def set_attention(encoder: PreTrainedModel, wanted: str, device: str, precision: str) -> str:
    """Have ``encoder`` use the kernel ``wanted``, or the best with ``auto``; a sentence about it for the log.

    Raises ``KitError`` for one that is not to be had here.
    """
    if wanted not in NAMES:
        raise KitError(f"attn_implementation is {', '.join(NAMES[:-1])} or {NAMES[-1]}, not {wanted!r}")
    missing = {
        FLASH: _missing_for_flash(encoder, device, precision),
        OWN: "" if encoder._supports_sdpa else _not_known_to(encoder),
        PLAIN: "",
    }
    kernel = next(name for name, why in missing.items() if not why) if wanted == "auto" else wanted
    if missing[kernel]:
        others = " or ".join(["auto", *(name for name, why in missing.items() if not why)])
        raise KitError(f"attn_implementation {kernel} is not to be had: {missing[kernel]}; give {others}")
    encoder.set_attn_implementation(kernel)
    # Code that comes with a model may keep to a kernel of its own; transformers leaves it with a warning.
    kept = encoder.config._attn_implementation
    if kept != kernel:
        if wanted != "auto":
            raise KitError(
                f"attn_implementation {kernel} is not to be had: the model's code keeps to {kept}; give auto"
            )
        return f"Attention: {kept}, to which the model's code keeps"
    hindered = wanted == "auto" and missing[FLASH]
    return f"Attention: {kernel}" + (f"; not {FLASH}, for {hindered}" if hindered else "")


def _missing_for_flash(encoder: PreTrainedModel, device: str, precision: str) -> str:
    if device != "cuda":
        return "it needs a GPU"
    if precision == "fp32":
        return "it computes in 16 bits only, and the precision is fp32"
    capability, name = weakest_gpu()
    if capability < CAPABILITY:
        return f"it needs a GPU newer than {name}"
    if not encoder._supports_flash_attn:
        return _not_known_to(encoder)
    return "" if is_flash_attn_2_available() else "the package flash-attn is not installed"


def _not_known_to(encoder: PreTrainedModel) -> str:
    return f"{type(encoder).__name__} has no way to use it"
