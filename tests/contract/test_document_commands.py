"""What the documents tell a reader to type is there: commands with their options, files, configurations, requests."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from dispatcher_service import tenants
from pointsman.cli import build_parser
from pointsman.dispatcher.v1.dispatcher_pb2 import CompleteRequest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "deploy/README.md",
    ROOT / "benchmarks/README.md",
]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_EXTENSIONS = "py|md|toml|yaml|yml|proto|json|png|mjs"


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _blocks(path: Path, language: str) -> list[str]:
    return [block for found, block in _FENCED.findall(_text(path)) if found == language]


def _commands(start: str) -> Iterator[tuple[str, str]]:
    """(document, command) of every line of a block and every inline code that begins so, without prompt and path."""
    for path in DOCUMENTS:
        lines = [line for block in _blocks(path, "") for line in block.replace("\\\n", " ").splitlines()]
        inline = re.findall(r"`([^`]+)`", _FENCED.sub("", _text(path)))
        for code in [*lines, *inline]:
            command = re.sub(r"^(\$ |(?:[A-Z_]+=\S+ )+|\.venv/bin/)*", "", " ".join(code.split()))
            if command.startswith(start):
                yield str(path.relative_to(ROOT)), command.partition(" #")[0]


def test_options_of_pointsmans_commands_are_those_of_its_help() -> None:
    problems = []
    checked = 0
    for document, command in _commands("pointsman "):
        words = command.split()[1:]
        parser = build_parser()[0]
        while (choices := _subcommands(parser)) and words and not words[0].startswith("-"):
            if words[0] not in choices:
                problems.append(f"{document}: {command}: no command {words[0]!r}")
                break
            parser = choices[words.pop(0)]
        known = {option for action in parser._actions for option in action.option_strings}
        unknown = [word for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(words)) if word not in known]
        problems += [f"{document}: {command}: no option {word}" for word in unknown]
        checked += 1
    assert problems == []
    assert checked > 40


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_modules_to_run_and_targets_to_make_exist() -> None:
    modules = {(document, match[1]) for document, line in _commands("python -m ") if (match := _module(line))}
    assert {name for _, name in modules} >= {"scorer_service", "dispatcher_service", "benchmarks.capacity"}
    assert [each for each in modules if importlib.util.find_spec(each[1]) is None] == []
    makefile = _text(ROOT / "Makefile")
    targets = {(document, word) for document, line in _commands("make ") for word in re.findall(r"(?<= )[a-z-]+", line)}
    assert [each for each in targets if not re.search(rf"^{each[1]}:", makefile, flags=re.MULTILINE)] == []


def _module(line: str) -> re.Match[str] | None:
    return re.match(r"python -m ([\w.]+)", line)


def test_files_that_documents_name_exist() -> None:
    named = {
        (path, name)
        for path in DOCUMENTS
        for name in re.findall(rf"`(?:pytest (?:-\w+ )*)?((?:[\w.-]+/)+[\w.-]+\.(?:{_EXTENSIONS}))`", _text(path))
    }
    made_here = "results/"
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in named
        if not name.startswith(made_here) and not (ROOT / name).exists() and not (path.parent / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_are_what_check_config_takes(document: Path, tmp_path: Path) -> None:
    for block in _blocks(document, "toml"):
        written: dict[str, Any] = tomllib.loads(block)
        if "…" in block:
            continue  # Something is left out, such as a hash.
        file = tmp_path / "dispatcher.toml"
        file.write_text(block + _rest(written), encoding="utf-8")
        tenants.load_catalogue(file)


def _rest(written: dict[str, Any]) -> str:
    """What a part of a configuration needs beside itself: the models that its tenants name, served, and some tenant."""
    tenants_ = written.get("tenants", {"t": {"strong_model": "dear", "weak_model": "cheap"}})
    own = {model["name"] for model in written.get("models", [])}
    named = {name for tenant in tenants_.values() for name in tenant.get("models", [])}
    named |= {tenant[key] for tenant in tenants_.values() for key in ("strong_model", "weak_model") if key in tenant}
    lines = []
    for name in sorted(named - own):
        lines += ["[[models]]", f'name = "{name}"', "price = { input = 1, output = 1 }", "max_output_tokens = 9"]
    if "deployments" not in written:
        for name in sorted(named | own):
            lines += ["[[deployments]]", f'name = "{name}"', f'model = "{name}"', 'base_url = "http://localhost/v1"']
    if "tenants" not in written:
        lines += ["[tenants.t]", 'strong_model = "dear"', 'weak_model = "cheap"', "alpha = 0.5"]
    return "\n" + "\n".join(lines)


def test_requests_in_json_are_the_contracts() -> None:
    bodies = [
        body for path in DOCUMENTS for block in _blocks(path, "") for body in re.findall(r"-d '(\{.*?\})'", block)
    ]
    assert len(bodies) >= 2
    for body in bodies:
        request = json_format.ParseDict(json.loads(body), CompleteRequest())
        assert request.chat.messages[0].content[0].text


def test_metrics_that_documents_name_are_made() -> None:
    named = {
        (str(path.relative_to(ROOT)), service, name)
        for path in DOCUMENTS
        for service, name in re.findall(r"\bpointsman_(dispatcher|scorer)_([a-z][a-z_]*[a-z])\b", _text(path))
    }
    assert len(named) > 20
    made = {
        service: "".join(_text(file) for file in sorted(places))
        for service, places in {
            "dispatcher": [*(ROOT / "dispatcher_service").rglob("*.py"), *(ROOT / "pointsman/runtime").rglob("*.py")],
            "scorer": [*(ROOT / "scorer_service").rglob("*.py"), *(ROOT / "pointsman/runtime").rglob("*.py")],
        }.items()
    }
    # Prometheus' clients add these endings.
    stems = {each: re.sub(r"_(total|count|sum|bucket)$", "", each[2]) for each in named}
    unknown = [each for each, stem in stems.items() if not re.search(rf'["_]{stem}"', made[each[1]])]
    assert unknown == []


def test_python_parses_and_imports_what_is_there() -> None:
    blocks = [(path, block) for path in DOCUMENTS for block in _blocks(path, "python")]
    assert len(blocks) >= 4
    for path, block in blocks:
        tree = compile(block, str(path), "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], path
