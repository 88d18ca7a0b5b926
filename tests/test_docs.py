"""Docs say what the code does."""

import re
from pathlib import Path

import scripts.reference

ROOT = Path(__file__).parents[1]


def test_settings_page_is_current() -> None:
    """`python scripts/reference.py` writes it anew."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == scripts.reference.page()


def test_links_and_paths_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    seen = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        named = {page.parent / link for link in re.findall(r"\]\(([\w./-]+)\)", text)}
        named |= {
            ROOT / path for path in re.findall(r"`((?:configs|examples|benchmarks|scripts|tests)/[\w./-]+)`", text)
        }
        for path in named:
            seen += 1
            assert path.exists(), f"{page.name} names {path}"
    assert seen >= 15
