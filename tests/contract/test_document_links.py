"""Links of the repository's Markdown files lead somewhere: the file is there, and so is the heading."""

import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
_ELSEWHERE = {"node_modules", "build", "dist", "results"}
"""Folders of what is installed or made here. Those that begin with a dot are left out as well."""
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", flags=re.IGNORECASE)


def _files(pattern: str) -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob(pattern)
        if not any(part in _ELSEWHERE or part[0] == "." for part in path.relative_to(ROOT).parts[:-1])
    )


DOCUMENTS = _files("*.md")


@cache
def _prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def _anchors(path: Path) -> frozenset[str]:
    """Of every heading, as GitHub makes them: small letters, no punctuation, hyphens for blanks, `-1` at the second."""
    seen: Counter[str] = Counter()
    anchors = []
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", _prose(path), flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = "".join(each for each in shown if each in " -_" or unicodedata.category(each)[0] in "LNM")
        slug = slug.replace(" ", "-")
        anchors.append(slug if not seen[slug] else f"{slug}-{seen[slug]}")
        seen[slug] += 1
    return frozenset(anchors)


def _links(path: Path) -> list[str]:
    return _LINK.findall(re.sub(r"`[^`\n]*`", "code", _prose(path)))


def _problem(document: Path, link: str, root: Path = ROOT) -> str | None:
    where, _, anchor = unquote(link).partition("#")
    target = (document.parent / where).resolve() if where else document
    if not target.is_relative_to(root) or not target.exists():
        return f"{link}: there is no such file"
    if anchor and target.suffix == ".md" and anchor not in _anchors(target):
        return f"{link}: that file has the headings {', '.join(sorted(_anchors(target)))}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    relative = [link for link in _links(document) if not _SCHEME.match(link)]
    assert [problem for link in relative if (problem := _problem(document, link))] == []


def test_every_document_is_linked_from_the_readme() -> None:
    readme = ROOT / "README.md"
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in _links(readme) if not _SCHEME.match(link)}
    assert set(DOCUMENTS) - linked - {readme} == set()


def test_documents_that_code_speaks_of_are_there() -> None:
    named = {
        (name, path.relative_to(ROOT))
        for pattern in ("*.py", "*.toml", "*.yaml", "*.yml", "*.proto", "*.Dockerfile", "*.json", "*.tpl")
        for path in _files(pattern)
        for name in re.findall(r"\b(?:docs|deploy|benchmarks)/[\w./-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert {name for name, _ in named} >= {"docs/configuration.md", "docs/training.md", "deploy/README.md"}
    assert [f"{path}: {name}" for name, path in named if not (ROOT / name).is_file()] == []


def test_anchors_are_made_as_github_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The paper's `mf` & co.\n## A dial: α\n```\n# no heading\n```\n## A dial: α\n### [Linked](x.md) too\n"
    )
    assert _anchors(page) == {"the-papers-mf--co", "a-dial-α", "a-dial-α-1", "linked-too"}


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](gone.md) [`b`](#nowhere) `[c](code.md)` ![d](gone.png)\n# There\n[e](#there) [f](https://x.org)\n"
    )
    assert _links(page) == ["gone.md", "#nowhere", "gone.png", "#there", "https://x.org"]
    assert _problem(page, "#there", tmp_path) is None
    assert _problem(page, "#nowhere", tmp_path) == "#nowhere: that file has the headings there"
