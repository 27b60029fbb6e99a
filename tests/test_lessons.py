"""Steps that teach nothing are counted and told, with the cure."""

from __future__ import annotations

from m3kit.training.guards import tell_empty


def history(*losses: float) -> list[dict]:
    return [{"step": number, "loss": 1.0, "loss_dense": loss} for number, loss in enumerate(losses, start=1)]


def test_only_steps_with_a_dense_loss_near_0_count():
    entries = [*history(0.5, 0.009, 0.0), {"step": 3, "eval_dense_nDCG@10": 0.8}, {"step": 3, "train_loss": 0.001}]
    assert tell_empty(entries, 2).startswith("In 2 of 3 steps")


def test_told_where_they_are_most_of_all():
    assert tell_empty(history(0.001, 0.5), 2) is None
    assert tell_empty([], 2) is None
    told = tell_empty(history(0.001, 0.5, 0.001), 2)
    assert told.startswith("In 2 of 3 steps the dense loss was below 0.01")
    assert "per_device_train_batch_size; now 2 queries" in told and "recipe=best" in told


def test_a_large_batch_is_not_asked_to_be_larger():
    told = tell_empty(history(0.001), 64)
    assert "mine" in told and "per_device_train_batch_size" not in told and "recipe" not in told
