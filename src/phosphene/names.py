"""Names of files, made from names of things."""

from __future__ import annotations


def file_name(text: str) -> str:
    """`text` as a part of a file name: letters, digits, dots, plus signs and underscores stay, all else becomes a hyphen."""
    kept = "".join(letter if letter.isalnum() or letter in "._+" else "-" for letter in text)
    return "-".join(part for part in kept.split("-") if part) or "picture"
