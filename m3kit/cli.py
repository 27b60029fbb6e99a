"""The kit's command line: ``m3kit VERB``, or ``python -m m3kit VERB``. It parses, calls one function and prints.

Starts with the standard library alone, so that a Python without the packages gets a sentence.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import io
import logging
import os
import sys
from pathlib import Path

from m3kit.errors import KitError

# A verb's module has add_arguments(parser) and run(args); the first line of its docstring is the verb's help. It is
# imported only when the verb is called: `prepare` must not wait for torch.
VERBS = {
    "doctor": "m3kit.doctor",
    "check": "m3kit.data.check",
    "prepare": "m3kit.data.prepare",
    "mine": "m3kit.mining.mine",
    "score": "m3kit.score",
    "plan": "m3kit.planning.command",
    "recipe": "m3kit.recipe.command",
    "evaluate": "m3kit.evaluation.evaluate",
    "report": "m3kit.report.command",
    "search": "m3kit.search.command",
    "merge": "m3kit.merge",
    "starter": "m3kit.starter",
}
WRONG_USE = 2


def main(argv: list[str] | None = None) -> int:
    """Run the verb and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if sys.version_info < (3, 11):
        return _refuse(f"m3kit: this Python ({sys.executable}) is {sys.version.split()[0]}, and 3.11 is needed")
    if not words:
        print(_help(), file=sys.stderr)
        return WRONG_USE
    if words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, 1)
        meant = f"did you mean {near[0]}? The verbs" if near else "the verbs"
        print(f"m3kit: there is no verb {words[0]!r}; {meant}: {', '.join(VERBS)}", file=sys.stderr)
        return WRONG_USE
    try:
        return _run(words[0], words[1:])
    except KitError as error:
        print(f"m3kit {words[0]}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("m3kit"):
            raise
        return _refuse(f"m3kit {words[0]}: this Python ({sys.executable}) has no package {error.name.split('.')[0]}")
    except KeyboardInterrupt:
        print(f"m3kit {words[0]}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads the output (head, less) has seen enough. Python must not try to write the rest at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(verb: str, words: list[str]) -> int:
    module = importlib.import_module(VERBS[verb])
    parser = argparse.ArgumentParser(prog=f"m3kit {verb}", description=_summary(VERBS[verb]))
    module.add_arguments(parser)
    args = parser.parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label or a path may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    # DeepSpeed warns of every CPU as soon as it is imported; the doctor has said it already.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    return module.run(args) or 0


def _help() -> str:
    program = "m3kit" if Path(sys.argv[0]).name == "m3kit" else "python -m m3kit"
    indent = max(map(len, VERBS)) + 4
    lines = [f"usage: {program} VERB [ARGUMENTS]", ""]
    lines += [
        f"  {verb}".ljust(indent) + _summary(module).partition(": ")[0].rstrip(".") for verb, module in VERBS.items()
    ]
    return "\n".join([*lines, "", f"What each takes: {program} VERB --help"])


def _summary(module: str) -> str:
    """The first line of a module's docstring, read without importing the module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_bytes())) or ""
    return docstring.partition("\n")[0]


def _refuse(what: str) -> int:
    """Say what this Python lacks, and which to use or what to install."""
    kit = Path(__file__).resolve().parents[1]
    owned = [kit / folder / "bin" / "python" for folder in (".venv", ".venv-m3kit")]
    ready = [python for python in owned if python.with_name("torchrun").exists() and str(python) != sys.executable]
    if ready:
        cure = f"use the kit's own: {ready[0]} -m m3kit"
    elif (kit / "requirements.txt").exists():
        cure = f"install them: python3 -m pip install -r {kit}/requirements.txt -c {kit}/constraints.txt"
    else:
        cure = "pip check names all that are missing"
    print(f"{what}; {cure}", file=sys.stderr)
    return 1
