"""Errors of the device in evaluation: FlagEmbedding takes each for too large a batch, and ends in another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import WORDS

from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.errors import KitError


@pytest.fixture
def failing(model_folder):
    """An encoder that raises what ``fails(texts)`` returns; and how many texts each forward had."""
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(batch_size=8))
    tried: list[int] = []

    def before(module, args, kwargs):
        tried.append(len(args[0]["input_ids"]))
        if error := encoder.fails(tried[-1]):
            raise error

    encoder.fails = lambda texts: None
    encoder.flag_model.model.model.register_forward_pre_hook(before, with_kwargs=True)
    yield encoder, tried
    encoder.close()


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_lasting_error_reaches_the_user_at_once(failing):
    encoder, tried = failing
    encoder.fails = lambda texts: RuntimeError("CUDA error: no kernel image is available\nFor debugging consider …")
    said = r"m: cannot encode at 8 texts of 5 tokens on cpu: RuntimeError: CUDA error: no kernel image is available$"
    with pytest.raises(KitError, match=said):
        encoder.passages(["river stone cloud"] * 9)
    assert tried == [8]


def test_where_memory_runs_out_smaller_batches_are_tried(failing):
    encoder, tried = failing
    texts = [" ".join(WORDS[: 1 + count % 7]) for count in range(9)]
    whole = encoder.passages(texts)
    encoder.flag_model.model.largest = 0
    tried.clear()
    encoder.fails = lambda texts: NO_MEMORY if texts > 4 else None
    parts = encoder.passages(texts)
    assert tried == [8, 6, 4, 4, 4, 1]
    np.testing.assert_allclose(parts.dense, whole.dense, atol=1e-6)


CURE = "end what else takes memory there, or give"


def test_where_one_text_is_too_much_for_the_memory_it_is_said(failing):
    encoder, tried = failing
    encoder.fails = lambda texts: NO_MEMORY
    with pytest.raises(
        KitError, match=rf"m: out of memory at 1 text of 4 tokens on cpu \(CUDA out.*; {CURE} a smaller --query_max"
    ):
        encoder.passages(["river stone"] * 3)
    # Three quarters of 8, of 6, of 4, …
    assert tried == [3, 3, 3, 3, 2, 1]


def test_where_a_batch_is_too_much_that_was_not_tried_it_is_said(failing):
    encoder, _ = failing
    encoder.passages(["river stone cloud"] * 8)
    encoder.fails = lambda texts: NO_MEMORY
    with pytest.raises(
        KitError, match=rf"m: out of memory at 8 texts of 4 tokens on cpu .*{CURE} a smaller --batch_size"
    ):
        encoder.passages(["river stone"] * 8)


def test_where_the_model_itself_is_too_much_for_the_memory_it_is_said(failing, monkeypatch):
    encoder, _ = failing

    def full(*_):
        raise NO_MEMORY

    monkeypatch.setattr(encoder.flag_model.model, "to", full)
    with pytest.raises(KitError, match=rf"m: out of memory on cpu .*{CURE} --device cpu"):
        encoder.queries(["river"])


def test_cudnns_attention_is_not_used_either(model_folder):
    torch.backends.cuda.enable_cudnn_sdp(True)
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings())
    encoder.dense(["river"])
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    encoder.close()
