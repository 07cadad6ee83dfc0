"""The names of a network's classes, and how to ask for one: by index, name, alias, synset or part."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import overload

from phosphene.errors import LabelError, did_you_mean

_IMAGENET = Path(__file__).parent / "data" / "imagenet_classes.tsv"
_LISTED = 6  # candidates that the message about an ambiguous name lists
_INDEX = re.compile(r"[+-]?[0-9]{1,9}")


class Labels(Sequence[str]):
    """One display name per class, with optional WordNet synset ids and aliases.

    A sequence of display names: `labels[207]`, `len(labels)`, `for name in labels`.

    >>> labels = Labels.imagenet()
    >>> labels[labels.resolve("station wagon")]
    'beach wagon'
    """

    def __init__(
        self,
        names: Iterable[str],
        synsets: Iterable[str] | None = None,
        aliases: Iterable[Iterable[str]] | None = None,
    ) -> None:
        """Name `len(names)` classes.

        Raises:
            LabelError: there is no name, or `synsets` or `aliases` has another length.
        """
        self._names = tuple(str(name) for name in names)
        self._synsets = None if synsets is None else tuple(synsets)
        self._aliases = None if aliases is None else tuple(tuple(some) for some in aliases)
        if not self._names:
            raise LabelError("a list of classes needs at least one name")
        for what, given in (("synset ids", self._synsets), ("lists of aliases", self._aliases)):
            if given is not None and len(given) != len(self._names):
                raise LabelError(f"there are {len(given)} {what} for {len(self._names)} class names")
        self._index_names()

    @classmethod
    def imagenet(cls) -> Labels:
        """The 1,000 classes of ImageNet in their usual order (by synset id), read once."""
        return _imagenet()

    @classmethod
    def generic(cls, count: int) -> Labels:
        """`count` classes that nobody named: "class 0", "class 1", ...

        Raises:
            LabelError: `count` is below 1.
        """
        if count < 1:
            raise LabelError(f"a network has at least one class, not {count}")
        return cls(f"class {index}" for index in range(count))

    def name(self, index: int) -> str:
        """The display name of class `index`.

        Raises:
            LabelError: the index is not one of 0 .. len - 1.
        """
        return self._names[self._checked(index)]

    def synset(self, index: int) -> str | None:
        """The WordNet synset id of class `index` ("n02099601"); None where the classes have none.

        Raises:
            LabelError: the index is not one of 0 .. len - 1.
        """
        return None if self._synsets is None else self._synsets[self._checked(index)]

    def aliases(self, index: int) -> tuple[str, ...]:
        """The other names of class `index`, without its display name.

        Raises:
            LabelError: the index is not one of 0 .. len - 1.
        """
        checked = self._checked(index)
        return () if self._aliases is None else self._aliases[checked]

    def resolve(self, query: str | int) -> int:
        """The index of the class that `query` means.

        Tried in this order: a display name as it is written, an index (`207` or `"207"`), a synset id, a
        display name, an alias, whole words of a name, any part of a name. Names are compared without case,
        spaces, hyphens, underscores, apostrophes and accents. The first kind of match that exists decides.

        Raises:
            LabelError: nothing matches, several classes match equally well, or the index is out of range.
        """
        if not isinstance(query, str):
            return self._checked(query)
        if query in self._verbatim:
            return self._verbatim[query]
        stripped = query.strip()
        if _INDEX.fullmatch(stripped):
            return self._checked(int(stripped))
        for matches in self._matches(stripped):
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise LabelError(self._ambiguous(query, matches))
        raise LabelError(f"no class is called '{query}'{did_you_mean(query, self._every_name())}")

    def _matches(self, query: str) -> Iterator[list[int]]:
        """The classes that match, from the strictest kind of match to the loosest."""
        words = _words(query)
        key = words.replace(" ", "")
        if not key:
            return
        yield [index for index, synset in enumerate(self._synsets or ()) if synset == query.lower()]
        yield self._by_display.get(key, [])
        yield self._by_name.get(key, [])
        yield self._having(lambda wording: f" {words} " in wording)
        yield self._having(lambda wording: key in wording.replace(" ", ""))

    def _having(self, test: Callable[[str], bool]) -> list[int]:
        return [index for index, wordings in enumerate(self._wordings) if any(map(test, wordings))]

    def _index_names(self) -> None:
        self._verbatim: dict[str, int] = {}
        self._by_display: defaultdict[str, list[int]] = defaultdict(list)
        self._by_name: defaultdict[str, list[int]] = defaultdict(list)
        self._wordings: list[list[str]] = []
        for index, display in enumerate(self._names):
            self._verbatim.setdefault(display, index)
            wordings = list(dict.fromkeys(_words(name) for name in (display, *self.aliases(index))))
            self._by_display[wordings[0].replace(" ", "")].append(index)
            for key in dict.fromkeys(wording.replace(" ", "") for wording in wordings):
                self._by_name[key].append(index)
            self._wordings.append([f" {wording} " for wording in wordings])

    def _checked(self, index: int) -> int:
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise LabelError(f"a class is given by its index or name, not by {index!r}")
        if not 0 <= index < len(self):
            raise LabelError(f"no class has index {index}: the {len(self)} classes are 0 to {len(self) - 1}")
        return int(index)

    def _ambiguous(self, query: str, matches: list[int]) -> str:
        listed = ", ".join(f"{index} {self._names[index]}" for index in matches[:_LISTED])
        more = f" and {len(matches) - _LISTED} more" if len(matches) > _LISTED else ""
        return f"'{query}' may mean {len(matches)} classes: {listed}{more}; give the index or the whole name"

    def _every_name(self) -> list[str]:
        return [*self._names, *(alias for some in self._aliases or () for alias in some)]

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Labels):
            return NotImplemented
        return (self._names, self._synsets, self._aliases) == (other._names, other._synsets, other._aliases)

    def __hash__(self) -> int:
        return hash(self._names)

    def __repr__(self) -> str:
        return f"Labels({len(self)} classes: {', '.join(self._names[:3])}{', ...' if len(self) > 3 else ''})"


def _words(name: str) -> str:
    """`name` in lower case, without accents and apostrophes, its words separated by one space."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char) and char not in "'’`.")
    return " ".join(re.findall(r"[^\W_]+", plain))


@cache
def _imagenet() -> Labels:
    rows = [line.split("\t") for line in _IMAGENET.read_text(encoding="utf-8").splitlines()]
    names = [row[2].split("|") for row in rows]
    return Labels(
        names=(some[0] for some in names),
        synsets=(row[1] for row in rows),
        aliases=(some[1:] for some in names),
    )
