"""Several processes that train one network together: their ranks, and their communication.

The batch size of a recipe is that of the whole batch, whatever the number of processes, since sparsity depends on it:
each process takes its part of the batch that a single process would have, and gradients are averaged. Only BatchNorm
differs: each process normalises its part by the statistics of that part (unless the recipe synchronises them), and
the running statistics are those of the first process.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from slimnet.errors import SlimnetError, UsageError, reason
from slimnet.torch_state.devices import usable
from slimnet.training.recipe.recipe import Recipe

COURTESY = timedelta(seconds=10)
"""The time that a process waits for another one to report an error."""

PATIENCE = timedelta(days=7)
"""The time that processes wait for the first one to prepare data; decoding a large data set takes hours."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among those that train together; by default there is only one.

    Attributes:
        number: rank of this process, from 0; only rank 0 writes files.
        count: number of processes.
        local: rank of this process on its machine, which is the index of its GPU.
        device: the device of the tensors by which they communicate.
        store: the key-value store that they share; None for a single process.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: distributed.Store | None = field(default=None, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    @property
    def part(self) -> tuple[int, int]:
        """The index of this process's part of a batch, and the number of parts."""
        return self.number, self.count

    def own_seed(self, seed: int) -> int:
        """A different seed for each process."""
        return int(np.random.SeedSequence((seed, self.number)).generate_state(1, np.uint64)[0] >> 1)

    def check(self, recipe: Recipe, device: torch.device) -> None:
        """Refuse a recipe that this number of processes cannot train.

        Raises:
            UsageError: the batch size is not divisible, or BatchNorm is synchronised without GPUs.
        """
        if recipe.batch_size % self.count:
            raise UsageError(
                f"a batch of {recipe.batch_size} images cannot be shared by {self.count} processes; the batch size "
                "is that of all of them together: choose one that they divide, or another number of processes"
            )
        if recipe.sync_batchnorm and self.count > 1 and device.type == "cpu":
            raise UsageError("sync_batchnorm needs GPUs; leave it out on the CPU")

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network wrapped for training, so that gradients are averaged over the processes."""
        if self.count == 1:
            return model
        parallel = nn.parallel.DistributedDataParallel
        # Running statistics are only read in evaluation, so they need not be broadcast in every step.
        names = inspect.signature(parallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        settings: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True, "static_graph": True}
        return parallel(model, device_ids=[device] if device.type == "cuda" else None, **settings)

    def add_up(self, *numbers: torch.Tensor) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count > 1:
            for each in numbers:
                distributed.all_reduce(each)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any of the processes; the result is the same in all of them."""
        if self.count == 1:
            return flag
        answer = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(answer, distributed.ReduceOp.MAX)
        return bool(answer)

    def first_says(self, flag: bool) -> bool:
        """Whether `flag` is true in the first process; the result is the same in all of them."""
        return self.any(flag and self.first)

    def as_first(self, value: Any) -> Any:
        """The value of the first process; those of the others are ignored."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def one_before_the_others(self, what: str) -> Iterator[None]:
        """Run the context in one process of each machine first, such as to fill a cache, then in the others.

        If it fails, the others are not notified: torchrun ends them once the first has reported the error.
        """
        if self.store is None:
            yield
            return
        key = f"{what} on machine {os.environ.get('GROUP_RANK', '0')}"
        if self.local:
            self.store.wait([key], PATIENCE)
        yield
        if not self.local:
            self.store.set(key, "done")

    def say_once(self, say: Callable[[], object]) -> None:
        """Call `say` in the first process that gets here; the others wait until it is done.

        When one process exits, torchrun ends the others, possibly before the message is printed.
        """
        if self.store is None:
            say()
            return
        try:
            if int(self.store.add("about to say", 1)) > 1:
                self.store.wait(["said"], COURTESY)
                return
        except RuntimeError:
            # The process that holds the store, or the one that was to report, has ended.
            pass
        say()
        with suppress(RuntimeError):
            self.store.set("said", "")


ALONE = Ranks()


@contextmanager
def joined(device: torch.device | str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if any; GPUs communicate by NCCL, CPUs by gloo.

    Raises:
        SlimnetError: the processes cannot connect.
        UsageError: there are fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device(device)
    if own.type == "cuda":
        own = usable(torch.device("cuda", local))
        torch.cuda.set_device(own)
    try:
        store, number, _ = next(distributed.rendezvous("env://"))
        backend = "nccl" if own.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise SlimnetError(
            f"the {count} processes do not find each other ({reason(error)}); start them with torchrun"
        ) from error
    yield Ranks(number, count, local, own, store)
    # Not after a failure: leaving the group would wait for a process that has ended.
    distributed.destroy_process_group()


@contextmanager
def lost_peers_reported(ranks: Ranks) -> Iterator[None]:
    """Report in one line that another process has ended.

    Raises:
        SlimnetError: instead of what the communication raised.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.count > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise SlimnetError(
                f"one of the {ranks.count} processes of this run has ended, so the others stop; "
                "resume a run in a folder with --resume, with any number of processes"
            ) from error
        raise
