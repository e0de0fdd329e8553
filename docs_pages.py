"""The pages of the documentation that nobody writes: the README, every command with its options, every public name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
# What lies outside the documentation is named, not linked.
OUTSIDE_README = re.compile(r"\[([^\]]+)\]\((?!https?:|#|docs/)[^)]+\)")
OUTSIDE_DOCS = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, text in (("index.md", front_page()), ("commands.md", command_pages()), ("api.md", api_pages())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep links to what is on the site."""
    return OUTSIDE_DOCS.sub(r"\1", markdown)


def front_page() -> str:
    """The README, with the links that a page of this site has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", OUTSIDE_README.sub(r"\1", text))


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


def api_pages() -> str:
    """Every public module of the library with what its docstrings say."""
    parts = ["# Library", "The public names of `vdmini`, from their docstrings."]
    for module in _modules(ROOT / "vdmini"):
        parts.append(f"::: {module}")
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
