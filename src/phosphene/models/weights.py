"""Weights in files: read without running code, match to a network by name and shape, save, hash."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import secrets
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from phosphene.errors import OutputError, WeightsError

PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.", "net.", "network.")
NESTED = ("state_dict", "model_state_dict", "model")
_LISTED = 3  # tensors of each kind that the message about a misfit lists
_DEPTH = 3  # prefixes that may lie inside one another ("module.model.backbone.")
_ALLOWED = "Phosphene loads only safetensors or torch state dicts (weights_only)"


# -- reading -------------------------------------------------------------------------------------------------


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch state dict, on the CPU. No code of the file is run.

    A torch file may hold the state dict under `state_dict`, `model_state_dict` or `model`; what is not a
    tensor in it is left out.

    Raises:
        WeightsError: the file is missing, empty, damaged, or anything else than tensors by name.
    """
    file = Path(path)
    form = _form(file)
    if form == "safetensors":
        return _read_safetensors(file)
    if form == "torch":
        return _read_torch(file)
    raise WeightsError(f"{file} is neither a safetensors file nor a torch state dict; {_ALLOWED}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty where it has none, and for a torch file.

    Raises:
        WeightsError: the file is missing, empty or damaged.
    """
    file = Path(path)
    if _form(file) != "safetensors":
        return {}
    try:
        with safe_open(str(file), framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as problem:
        raise _damaged(file, problem) from problem


def _form(file: Path) -> str:
    """What the first bytes of `file` say that it is: "safetensors", "torch" or "unknown"."""
    if file.is_dir():
        raise WeightsError(f"{file} is a folder: give the weights file in it")
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except FileNotFoundError as problem:
        raise WeightsError(f"there is no weights file {file}") from problem
    except OSError as problem:
        raise WeightsError(f"can't read {file}: {problem.strerror or problem}") from problem
    if not start:
        raise WeightsError(f"{file} is empty")
    if start[8:] == b"{" or file.suffix == ".safetensors":
        return "safetensors"
    return "torch" if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" else "unknown"


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return _only_tensors(load_file(str(file), device="cpu"), file)
    except (SafetensorError, OSError) as problem:
        raise _damaged(file, problem) from problem


def _read_torch(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused here, in one line
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise WeightsError(_refused(file, str(problem))) from problem
    except Exception as problem:  # torch raises what the damage happens to break
        if "TorchScript" in str(problem):
            raise WeightsError(f"{file} is a TorchScript program; {_ALLOWED}") from problem
        raise _damaged(file, problem) from problem
    return _only_tensors(_inner(loaded), file)


def _inner(loaded: Any) -> Any:
    """The state dict inside a checkpoint."""
    if isinstance(loaded, Mapping):
        for key in NESTED:
            if isinstance(loaded.get(key), Mapping):
                return _inner(loaded[key])
    return loaded


def _only_tensors(loaded: Any, file: Path) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{file} holds a {type(loaded).__name__}, not tensors by name (a state dict)")
    state = {
        name: value.detach() for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        raise WeightsError(f"{file} holds no tensors; a state dict has one for each parameter")
    return state


def _refused(file: Path, message: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", message)
    name = asked.group(1) if asked else ""
    if name.startswith("torch.nn."):
        return f"{file} is a whole pickled model ({name}): save its state_dict(); {_ALLOWED}"
    return f"{file} is a pickle that would run code{f' ({name})' if name else ''}; {_ALLOWED}"


def _damaged(file: Path, problem: Exception) -> WeightsError:
    lines = str(problem).strip().splitlines()
    detail = lines[0].removeprefix("Error while deserializing header: ") if lines else type(problem).__name__
    return WeightsError(f"{file} is damaged or cut short ({detail[:100]})")


# -- matching ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """How the tensors of a file meet those of a network.

    Attributes:
        mapped: the network's name -> the file's tensor, where name and shape fit.
        missing: the network's tensors that the file lacks (`num_batches_tracked` may be lacking).
        unexpected: the file's tensors that the network lacks, under the file's names.
        mismatched: (the network's name, the file's shape, the network's shape) where only the name fits.
    """

    mapped: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    @property
    def fits(self) -> bool:
        """Whether the file has every tensor of the network, in its shape, and no other."""
        return not (self.missing or self.unexpected or self.mismatched)


def match(module: nn.Module, state: Mapping[str, Tensor]) -> Match:
    """Compare `state` with `module` under the renaming that fits best; changes neither.

    Renamings: the names as they are; without the prefixes that wrappers add (`module.`, `model.`,
        `backbone.`,
    `_orig_mod.`, `net.`, `network.`, also inside one another); each of these with `features.` added or
    removed.
    """
    needed = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    compared = [_compare(needed, state, renamed) for renamed in _renamings(state)]
    return max(compared, key=lambda found: (len(found.mapped), len(found.mismatched)))


def fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> list[str]:
    """Load `state` into `module` in place and return the names of the tensors that were loaded.

    Names may differ as `match` says. Nothing is changed unless everything fits.

    Args:
        module: the network.
        state: tensors by name.
        source: what to call the weights in the message (a path).

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape; the module is untouched.
    """
    found = match(module, state)
    if not found.fits:
        raise WeightsError(f"{source} does not fit the network: {_misfit(found)}")
    module.load_state_dict(found.mapped, strict=False)
    return list(found.mapped)


def _renamings(state: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """Maps from the file's names to new ones, the least change first."""
    seen: set[tuple[str, ...]] = set()
    layer = [tuple(state)]
    for _ in range(_DEPTH + 1):
        for names in layer:
            for variant in (names, tuple(f"features.{n}" for n in names), _without(names, "features.")):
                if variant not in seen and len(set(variant)) == len(variant):
                    seen.add(variant)
                    yield dict(zip(state, variant, strict=True))
        layer = list(dict.fromkeys(_without(names, prefix) for names in layer for prefix in PREFIXES))


def _without(names: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in names)


def _compare(needed: Mapping[str, Tensor], state: Mapping[str, Tensor], renamed: Mapping[str, str]) -> Match:
    given = {new: old for old, new in renamed.items()}
    shared = [name for name in needed if name in given]
    right = {name: needed[name].shape == state[given[name]].shape for name in shared}
    return Match(
        mapped={name: state[given[name]] for name in shared if right[name]},
        missing=[name for name in needed if name not in given and not name.endswith("num_batches_tracked")],
        unexpected=[old for new, old in given.items() if new not in needed],
        mismatched=[
            (name, tuple(state[given[name]].shape), tuple(needed[name].shape)) for name in shared if not right[name]
        ],
    )


def _misfit(found: Match) -> str:
    shapes = [f"{n} is {list(has)}, the network needs {list(needs)}" for n, has, needs in found.mismatched]
    kinds = (("", shapes), ("missing ", found.missing), ("unexpected ", found.unexpected))
    return "; ".join(what + _first(items) for what, items in kinds if items)


def _first(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


# -- saving and hashing --------------------------------------------------------------------------------------


def save_state_dict(state: Mapping[str, Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> Path:
    """Write tensors as a safetensors file, atomically: `path` is the whole file or what it was before.

    Missing folders are made. Returns the path.

    Raises:
        OutputError: the file can't be written.
    """
    file = Path(path)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode & 0o777
        save_file(_independent(state), str(part), metadata)
        part.chmod(mode)  # safetensors makes files that only their owner can read
        os.replace(part, file)
    except (OSError, SafetensorError) as problem:
        raise OutputError(f"can't write weights to {file}: {_why(problem)}") from problem
    finally:
        if part.is_file():
            part.unlink()
    return file


def digest(source: str | Path | Mapping[str, Tensor]) -> str:
    """The SHA-256 (64 hex digits) of tensors: of their sorted names, dtypes, shapes and bytes.

    The same for the same tensors in any order, in any file format and on any device.

    Raises:
        WeightsError: `source` is a path that `read_state_dict` refuses.
    """
    state = read_state_dict(source) if isinstance(source, (str, Path)) else source
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _independent(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own, as safetensors wants them."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        shared = plain.untyped_storage().data_ptr() in seen
        apart[name] = plain.clone() if shared else plain
        seen.add(plain.untyped_storage().data_ptr())
    return apart


def _why(problem: Exception) -> str:
    text = getattr(problem, "strerror", None) or str(problem)
    return text.removeprefix("Error while serializing: ").split(" at path ")[0]
