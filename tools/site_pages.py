"""Gathers the pages of the documentation's site in site/pages, where `make docs` builds from.

The pages stand where a reader of the repository looks for them, README.md and others beside the
code, the rest in docs/. A site wants them in one folder with links that lead from page to page, so
they are copied and their links rewritten. A link to a file that is no page, such as a
configuration, becomes plain words.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "site/pages"
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/RESULTS.md": "RESULTS.md",
    "config/README.md": "MODULE.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def pages() -> dict[Path, str]:
    """Return the pages: file in the repository -> name in the site."""
    in_docs = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    return {ROOT / path: name for path, name in BESIDE.items()} | in_docs


def for_site(text: str, page: Path, names: dict[Path, str]) -> str:
    """Return a page's text with the links of the site.

    Args:
        text: the page in Markdown.
        page: its file, which the links in ``text`` are relative to.
        names: file -> name in the site, of all pages.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target, anchor = found.groups(default="")
        file = (page.parent / target).resolve()
        if file in names:
            return f"[{words}]({names[file]}{anchor})"
        return f"![{words}]({file.relative_to(ROOT / 'docs')})" if mark else words

    return LINK.sub(link, text)


def main() -> None:
    """Write all pages and their images."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    names = pages()
    for page, name in names.items():
        text = for_site(page.read_text(encoding="utf-8"), page, names)
        (TARGET / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs/images", TARGET / "images")


if __name__ == "__main__":
    main()
