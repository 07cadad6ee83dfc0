"""Names of files, made from names of things."""

from __future__ import annotations

from collections.abc import Iterable


def file_name(text: str) -> str:
    """`text` as a part of a file name: letters, digits, dots, plus signs and underscores stay, all else becomes a hyphen."""
    kept = "".join(letter if letter.isalnum() or letter in "._+" else "-" for letter in text)
    return "-".join(part for part in kept.split("-") if part) or "picture"


def file_names(texts: Iterable[str]) -> list[str]:
    """A `file_name` for each text, no two alike, not even on a disk that ignores case: the second `cat` is `cat-2`."""
    found: dict[str, str] = {}
    last: dict[str, int] = {}
    for text in texts:
        plain = name = file_name(text)
        while name.casefold() in found:
            last[plain] = last.get(plain, 1) + 1
            name = f"{plain}-{last[plain]}"
        found[name.casefold()] = name
    return list(found.values())
