"""LoRA: small adapters learn beside the frozen encoder, and are added to its weights in what is saved.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; peft does it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from m3kit.errors import KitError
from m3kit.run_folder.checkpoints import ADAPTERS, WEIGHTS

# An adapter begins at zero and has few numbers: it wants about ten times the rate of a whole encoder.
LOW_RATE = 5e-5


def add_adapters(encoder: PreTrainedModel, rank: int) -> None:
    """Give each linear layer W of attention and feed-forward, (m, n), an adapter: W + 2·B·A, B (m, rank), A (rank, n).

    Only the adapters are trained from now on. B is zero, so nothing changes yet.
    """
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    # No loss uses the pooler.
    targets = [name for name in linear if not name.startswith("pooler.")]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), encoder)


def tell_adapters(model: nn.Module, rank: int, learning_rate: float) -> str:
    """What is trained, and whether the rate is too low for it: for the log."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    told = f"LoRA: adapters of rank {rank}; of {total:,} parameters {trained:,} are trained"
    if learning_rate < LOW_RATE:
        told += f". They need about ten times the learning rate of full fine-tuning; {learning_rate:g} may be too low"
    return told


def merged(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder to save: on the CPU, in 32 bits, each adapter added to its layer; without adapters the one given.

    The live weights stay as they are: adding and taking away again would round them. In 16 bits most of what was
    learned would be rounded away.
    """
    if not _adapters(encoder):
        return encoder
    with torch.device("meta"):
        plain = type(encoder)(copy.deepcopy(encoder.config))
    state = {name.replace(".base_layer.", "."): value for name, value in encoder.state_dict().items()}
    state = {name: value.cpu().float() if value.is_floating_point() else value.cpu() for name, value in state.items()}
    for name, layer in encoder.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (state.pop(f"{name}.lora_{side}.default.weight") for side in "BA")
            state[f"{name}.weight"] = state[f"{name}.weight"] + layer.scaling["default"] * (up @ down)
    plain.load_state_dict(state, assign=True)
    return plain


def save_adapters(encoder: PreTrainedModel, folder: Path) -> None:
    """Beside the merged weights, to go on from."""
    # Not under peft's own name: transformers would add them a second time to the merged weights.
    save_file({name: value.contiguous() for name, value in _adapters(encoder).items()}, folder / ADAPTERS)


def load_adapters(encoder: PreTrainedModel, folder: Path) -> None:
    """Put a checkpoint's adapters into an ``encoder`` that has the base's weights: those of before, to the last bit.

    Raises ``KitError`` where the checkpoint has none, or is of another base model.
    """
    if not (folder / ADAPTERS).is_file():
        raise KitError(f"{folder} was trained without LoRA; leave --lora_rank out to go on with it")
    encoder.load_state_dict({**encoder.state_dict(), **load_file(folder / ADAPTERS)})
    saved, state = load_file(folder / WEIGHTS), merged(encoder).state_dict()
    # The sums may be made in another order on another machine.
    if not all(torch.allclose(saved[name], value, rtol=1e-5, atol=1e-6) for name, value in state.items()):
        raise KitError(
            f"the base model is another now than when {folder} was saved, and with LoRA a run goes on from the base; "
            "put that model back, or give --overwrite_output_dir True to train anew"
        )


def _adapters(encoder: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value for name, value in encoder.state_dict().items() if ".lora_" in name}
