"""The kit's command line: ``python -m m3kit VERB``. It parses, calls one function and prints."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys

from m3kit.errors import KitError

# A verb's module is imported only when it is called: `prepare` must not wait for torch.
VERBS = {
    "doctor": "m3kit.doctor",
    "memory": "m3kit.memory",
    "starter": "m3kit.starter",
    "check": "m3kit.data.check",
    "prepare": "m3kit.data.prepare",
    "recipe": "m3kit.recipe.command",
    "score": "m3kit.score",
    "merge": "m3kit.merge",
    "mine": "m3kit.mining.mine",
    "evaluate": "m3kit.evaluation.evaluate",
    "report": "m3kit.report.command",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    usage = f"usage: python -m m3kit {{{','.join(VERBS)}}} [--help]"
    if not argv or argv[0] not in VERBS:
        wanted_help = bool(argv) and argv[0] in ("-h", "--help")
        print(usage, file=sys.stdout if wanted_help else sys.stderr)
        return 0 if wanted_help else 2
    module = importlib.import_module(VERBS[argv[0]])
    summary = (module.__doc__ or "").strip().splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"m3kit {argv[0]}", description=summary)
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label or a path may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return module.run(args) or 0
    except KitError as error:
        print(f"m3kit {argv[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"m3kit {argv[0]}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads the output (head, less) has seen enough. Python must not try to write the rest at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
