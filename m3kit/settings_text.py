"""What is written of the settings: the scripts' ``--help``, docs/settings.md, and the list in docker-compose.yml.

python -m m3kit.settings_text       brings the last two up to date
"""

from __future__ import annotations

from pathlib import Path

from m3kit.settings import SETTINGS, Setting

# Between these lines stands the list that docker-compose.yml passes on.
COMPOSE_FROM = "      # The settings of the training scripts, as in m3kit/settings.py\n"
COMPOSE_TO = "      # The machine\n"


def help_text(script: str) -> str:
    """The settings by section, with the script's defaults: the second half of its ``--help``."""
    lines = []
    for section in dict.fromkeys(setting.section for setting in SETTINGS):
        lines += ["", f"{section}:"]
        for setting in SETTINGS:
            if setting.section == section and (script == "multi" or not setting.several):
                default = setting.default_of(script)
                lines.append(f"  --{setting.name} {default}".rstrip())
                lines.append(f"      {setting.help}")
    return "\n".join(lines).lstrip("\n")


def markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `m3kit/settings.py` by `python -m m3kit.settings_text`. Each is an argument of both",
        "training scripts (`--learning_rate 5e-6`) and a variable of the environment (`LEARNING_RATE=5e-6`); the first",
        "ones stand at the top of the scripts, to be edited there. All further arguments of transformers' and",
        "FlagEmbedding's trainer are taken too, such as `--weight_decay 0.01` or `--max_steps 100`.",
    ]
    for section in dict.fromkeys(setting.section for setting in SETTINGS):
        lines += ["", f"## {section}", "", "| setting | default | values | what for |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(_cells(setting)) + " |" for setting in SETTINGS if setting.section == section]
    return "\n".join(lines)


def _cells(setting: Setting) -> list[str]:
    default = f"`{setting.default}`" if setting.default else ""
    if setting.multi is not None:
        default += f"; several GPUs: `{setting.multi}`"
    if setting.environment:
        default += f" (environment: `{setting.environment}`)"
    name = f"`{setting.name}`" + (" (several GPUs only)" if setting.several else "")
    return [name, default.strip(), setting.kind.words, setting.help]


def compose(text: str) -> str:
    """docker-compose.yml with the settings' variables in its list, between COMPOSE_FROM and COMPOSE_TO."""
    before, _, rest = text.partition(COMPOSE_FROM)
    _, _, after = rest.partition(COMPOSE_TO)
    variables = "".join(f"      - {setting.variable}\n" for setting in SETTINGS)
    return f"{before}{COMPOSE_FROM}{variables}{COMPOSE_TO}{after}"


def write(kit: Path) -> None:
    """Bring what is made from the settings up to date."""
    (kit / "docs" / "settings.md").write_text(markdown() + "\n", "utf-8")
    file = kit / "docker-compose.yml"
    file.write_text(compose(file.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1])
