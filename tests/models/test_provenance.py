from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from phosphene.models import provenance
from phosphene.models.bundled import packaged_file
from phosphene.models.provenance import TABLE, Provenance, of

BUNDLED = [entry for entry in TABLE if entry.kind == "bundled"]


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_entry_says_where_it_comes_from_and_under_which_licence(entry: Provenance):
    assert entry.source
    assert entry.licence
    assert entry.citation
    assert entry.kind in ("bundled", "fetched")
    assert entry.sha256 is None or len(entry.sha256) == 64
    assert (entry.sha256 is None) == (entry.size is None) == (entry.file is None) == (entry.package is None)


def test_names_are_unique():
    assert len({entry.name for entry in TABLE}) == len(TABLE)


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda entry: entry.name)
def test_the_installed_files_are_the_ones_recorded(entry: Provenance):
    path = packaged_file((entry.package or "").split("==")[0], entry.file or "")
    assert path.stat().st_size == entry.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256


def test_every_name_belongs_to_an_entry():
    assert of("vgg16") is provenance.VGG16
    assert of("squeezenet1_1").licence.startswith("MIT")
    assert of("resnet18") is provenance.TORCHVISION
    assert of("timm:resnet18") is provenance.TIMM


def test_the_table_needs_no_torch():
    code = (
        "import sys, importlib.util as u; sys.modules['torch'] = None\n"
        f"spec = u.spec_from_file_location('p', {provenance.__file__!r}); p = u.module_from_spec(spec)\n"
        "sys.modules['p'] = p; spec.loader.exec_module(p); print(len(p.TABLE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(len(TABLE)), done.stderr
