"""The pages of the documentation that nobody writes: the README, commands with their options, suites, public names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
# What lies outside the documentation is named, not linked.
OUTSIDE_README = re.compile(r"\[([^\]]+)\]\((?!https?:|#|docs/)[^)]+\)")
# Where each suite's protocol is explained; a suite without an entry is an error.
PROTOCOLS = {
    "ucf101": "[presets, splits, metrics, uncertainty](ucf101.md); the rows: [the table](reading-the-table.md).",
    "vbench_t2v": "[prompts, dimensions, stills](vbench.md), [the synthetic data](embedded-teacher.md#text-to-video).",
    "vbench_i2v": "[prompts, images, dimensions](vbench.md).",
    "mlperf_t2v": "[the task, its files, what a pass means](vbench.md#mlperfs-text-to-video-task).",
    "speed": "[what is timed and how](speed.md).",
    "alternatives": "[the rows and how each is made](suites.md), [what can be on](acceleration.md).",
    "comparison": "[the rows and how each is made](suites.md); what it showed: [the evidence](results/evidence.md).",
    "ablation": "[rows, seeds, pairs](distillation.md#ablation); what it showed: [the evidence](results/evidence.md).",
    "plans": "[plans before any training](pruning.md#compare-plans-before-training).",
    "depth": "[hypotheses, measures, tests](results/depth.md).",
    "depth_plans": "[the students' test](results/depth.md).",
}
HARNESS = (
    "config.suite", "config.protocol", "config.thresholds", "results.score", "results.records", "results.leaderboard",
    "results.runs", "results.stats", "compare.result_sets", "compare.deltas", "compare.gate", "compare.history",
    "metrics.frechet", "metrics.kernel", "metrics.inception", "metrics.fvd", "metrics.flow",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    made = {"index.md": front_page(), "commands.md": command_pages(), "api.md": api_pages()}
    made |= {f"suite-{path.stem}.md": suite_page(path) for path in sorted((ROOT / "suites").glob("*.yaml"))}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep links to what is on the site, of which the README is the front page."""
    top = "../" * page.file.src_uri.count("/")
    markdown += preset_table() if page.file.src_uri == "sampling.md" else ""
    on_site = markdown.replace(f"]({top}../README.md", f"]({top}index.md")
    return re.sub(rf"\[([^\]]+)\]\({re.escape(top)}\.\./[^)]+\)", r"\1", on_site)


def front_page() -> str:
    """The README, with the links that a page of this site has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(\]\(|src=\")docs/", r"\1", OUTSIDE_README.sub(r"\1", text))


def preset_table() -> str:
    """Every preset of sampling: its settings, but for texts, and where they were read."""
    text = (ROOT / "vdmini_bench" / "config" / "sampling_presets.yaml").read_text(encoding="utf-8")
    lines = ["", "| preset | settings | source | not in these settings |", "|---|---|---|---|"]
    for name, preset in yaml.safe_load(text)["presets"].items():
        said = {key: "yes" if key == "negative_prompt" else value for key, value in preset["settings"].items()}
        cells = ", ".join(f"{key} {value}" for key, value in said.items())
        source = preset["source"]
        at = f"https://github.com/{source['repository']}/blob/{source['commit']}"
        files = ", ".join(f"[{file}]({at}/{file})" for file in source["files"])
        note = preset.get("note", "")
        lines.append(f"| `{name}`@{preset['version']} | {cells} | {source['repository']}: {files} | {note} |")
    return "\n".join(lines) + "\n"


def command_pages() -> str:
    """Every command: what it does, its arguments and options with their defaults, as the command line has them."""
    from vdmini_bench.cli import main

    parts = ["# Commands", "Made from the command line itself: what `vdmini-bench COMMAND --help` says."]
    for path, command in _commands(main, "vdmini-bench"):
        context = click.Context(command, info_name=path)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        parts += [f"## {path}", _plain(command.help or ""), f"```\n{usage}\n```"]
        options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
        records = [record for option in options if (record := option.get_help_record(context)) is not None]
        if records:
            lines = [f"| `{_cell(names)}` | {_plain(_cell(words))} |" for names, words in records]
            parts.append("\n".join(["| option | what |", "|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def suite_page(path: Path) -> str:
    """A suite: what it is for, how to run it, where its protocol is explained, and every setting as it ships.

    The file's own comments say what it and its profiles are.
    """
    text = path.read_text(encoding="utf-8")
    purpose = text.partition("\n")[0].removeprefix("# ")
    name = path.stem
    command = name if name in ("speed", "depth") else "run"
    profiles = re.findall(r"^  ([\w-]+):$", text.partition("\nprofiles:\n")[2], re.MULTILINE)
    usage = "\n".join(f"vdmini-bench {command} suites/{path.name} --profile {profile}" for profile in profiles)
    parts = [f"# Suite {name}", purpose, f"```sh\n{usage}\n```", f"Protocol: {PROTOCOLS[name]}"]
    if command == "run":
        parts += ["Any key can be changed for one run: `--set sample.steps=8`; `--dry-run` shows what would be done."]
    parts += ["## Every setting", f"```yaml\n{text}```"]
    return "\n\n".join(parts) + "\n"


def api_pages() -> str:
    """Every public module of the library, and what others may rely on of the harness, with their docstrings."""
    parts = ["# Library", "The public names of `vdmini`, from their docstrings."]
    parts += [f"::: {module}" for module in _modules(ROOT / "vdmini")]
    parts += ["# The harness", "What may be used of `vdmini_bench` without its command line."]
    parts += ["::: vdmini_bench", *(f"::: vdmini_bench.{module}" for module in HARNESS)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _modules(package: Path) -> list[str]:
    files = (path for path in package.rglob("*.py") if not path.name.startswith("_"))
    return sorted(".".join(path.relative_to(package.parent).with_suffix("").parts) for path in files)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    """Help as Markdown that shows it and does not take a placeholder for an element."""
    return re.sub(r"\s*\n(?!\n)\s*", " ", text).replace("<", "&lt;").replace("*", "\\*")
