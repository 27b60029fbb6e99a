"""Processes of tests, forked from one that has imported what most of them need: once, and not in each.

There is one such server for all of them. It does not import DeepSpeed: when that is imported makes a difference.
"""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["equivalence", "m3kit.training.__main__"])
