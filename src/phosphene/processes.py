"""The processes that share a job: the one place that knows about torchrun.

    torchrun --nproc-per-node 2 -m phosphene predict FOLDER

runs the same command in several processes, which tell each other what they found: chunk k of a job's work is done by process
k mod P. Chunks are those of a single process, so the results are the same to the last bit. All processes come to each
`gather`; after `leave` only the first is there, and works alone.

Importing this imports no torch.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from phosphene.errors import PhospheneError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

Part = TypeVar("Part")
Value = TypeVar("Value")

MEETING = timedelta(minutes=5)
"""How long processes wait for one another to start."""

PATIENCE = timedelta(hours=2)
"""How long a process waits for the work of the others. torchrun ends all when one fails; this is for other launchers."""


class Spectator(Exception):
    """This process has done its part: it ends here, silently and well. The first goes on."""


@dataclass
class _Meeting:
    """What this process knows of the others."""

    store: Store | None = None
    group: ProcessGroup | None = None
    begun: bool = False
    ours: bool = False  # the connection; a caller's own is not ours to end
    alone: bool = False


_meeting = _Meeting()


def count() -> int:
    """How many processes share the work: 1 without torchrun, and for the first after `leave`."""
    return 1 if _meeting.alone else started()


def started() -> int:
    """How many processes torchrun has started, also where only the first is left."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, from 0."""
    return 0 if _meeting.alone else _number("RANK", 0)


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0: it takes the GPU of this number."""
    return _number("LOCAL_RANK", 0)


def restarted() -> bool:
    """Whether torchrun has started this process again, because one of them had failed (`--max-restarts`)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def mine(total: int, together: int) -> list[range]:
    """The chunks of `range(total)`, each `together` long, that are this process's work; all of them for one process."""
    if together < 1:
        raise ValueError(f"chunks of {together} things")
    every = [range(start, min(start + together, total)) for start in range(0, total, together)]
    return every[rank() :: count()]


def begin() -> None:
    """Meet the other processes, once; returns when all are there. Nothing happens where there are none.

    Raises:
        PhospheneError: there is no address to meet at, or the others don't come.
    """
    if _meeting.begun or count() == 1:
        return
    import torch

    # Imported later, its functions would have the group as a default and keep it, with its threads, to Python's very end:
    # gloo's then now and then abort the process.
    import torch.distributed.nn.functional
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore

    with others():
        if not distributed.is_initialized():
            cuda = torch.cuda.is_available() and distributed.is_nccl_available() and _own_gpus()
            if cuda:
                torch.cuda.set_device(local_rank())
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=PrefixStore("group", _store()),
                rank=rank(), world_size=count(), timeout=PATIENCE,
            )  # fmt: skip
            _meeting.ours = True
            atexit.register(_at_exit)
        elif distributed.get_backend() == "nccl":  # the caller's own, which can't carry what lies on the CPU
            _meeting.group = distributed.new_group(backend="gloo", timeout=PATIENCE)  # pyright: ignore (its annotation names a stub)
        _meeting.begun = True
        wait()


def gather(part: Part) -> list[Part]:
    """The parts of all processes, in order of their rank; `[part]` for one. Tensors in a part lie on the CPU.

    Raises:
        PhospheneError: another process ended before it came here.
    """
    if count() == 1:
        return [part]
    begin()
    from torch import distributed

    parts: list[Any] = [None] * count()
    with others():
        distributed.all_gather_object(parts, part, group=_meeting.group)
    return parts


def merged(part: Mapping[int, Value]) -> dict[int, Value]:
    """The entries of all processes, by ascending key: what each found, by place.

    Raises:
        PhospheneError: two have the same key; or as `gather` does.
    """
    items = [item for found in gather(dict(part)) for item in found.items()]
    every = dict(sorted(items, key=lambda item: item[0]))
    if len(every) < len(items):
        raise PhospheneError("two processes did the same work: give all of them the same kind of --device")
    return every


def total(values: Sequence[float]) -> list[float]:
    """The sums over all processes of each value, in float64. Raises PhospheneError as `gather` does."""
    return [float(sum(column)) for column in zip(*gather([float(value) for value in values]), strict=True)]


def wait() -> None:
    """Return when all processes are here."""
    gather(None)


def leave() -> None:
    """The work is gathered: the first process goes on alone, the others end here.

    Raises:
        Spectator: in all but the first.
    """
    if count() == 1:
        return
    wait()
    spectator = not first()
    _end()
    _meeting.alone = not spectator
    if spectator:
        raise Spectator


def tells() -> bool:
    """Whether this process is the one to print why all end: the first that asks, and one only."""
    if count() == 1:
        return True
    try:
        return _store().add("told", 1) == 1
    except (PhospheneError, RuntimeError):  # no others that one could ask
        return first()


def _store() -> Store:
    """What all processes can write into, also before they have met."""
    if _meeting.store is None:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "RANK") if not os.environ.get(name)]
        if missing:
            raise PhospheneError(
                f"WORLD_SIZE asks for {count()} processes, but {missing[0]} is not set, without which they can't meet: start"
                " them with torchrun --nproc-per-node N -m phosphene ..., or unset WORLD_SIZE"
            )
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        found, _, _ = next(rendezvous("env://", timeout=MEETING))
        # torchrun's store outlives a restart: without the number, processes would look for those that are gone.
        _meeting.store = PrefixStore(f"phosphene-{_number('TORCHELASTIC_RESTART_COUNT', 0)}", found)
    return _meeting.store


@contextmanager
def others() -> Iterator[None]:
    """Failures of the connection as one clear message; the process that failed has told its own."""
    try:
        yield
    except RuntimeError as problem:
        why = re.sub(r"^\[\S*\] ", "", " ".join(str(problem).split())).split(". ")[0][:200]
        raise PhospheneError(f"another process ended before its work was done, or can't be reached: {why}") from problem


def _own_gpus() -> bool:
    """Whether each process of this machine can have a GPU of its own, without which NCCL refuses to work."""
    import torch

    return _number("LOCAL_WORLD_SIZE", 1) <= torch.cuda.device_count()


def _at_exit() -> None:
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it ends already: nothing is left to take back
    _end()


def _end() -> None:
    from torch import distributed

    if _meeting.ours and distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()
        gc.collect()  # a DistributedDataParallel that lies about in a cycle keeps the group, too


def _number(name: str, otherwise: int) -> int:
    """An environment variable as a number. Raises PhospheneError if it is none."""
    text = os.environ.get(name, "")
    if not text.strip():
        return otherwise
    if not text.strip().isdigit():
        raise PhospheneError(f"the environment variable {name} is '{text}': torchrun sets it to a number")
    return int(text)
