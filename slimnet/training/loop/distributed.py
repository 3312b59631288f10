"""Several processes that train one network together: their ranks, and their communication.

The batch size of a recipe is that of the whole batch, however many processes share it, since sparsity depends
on it: each takes its part of the very batch that one process alone would see, and gradients are averaged. Only
BatchNorm tells the difference. Each process normalises its part by that part's own statistics (unless the
recipe synchronises them), and the running statistics that are kept are the first process's.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from slimnet.errors import SlimnetError, UsageError, reason
from slimnet.torch_state.devices import usable
from slimnet.training.recipe.recipe import Recipe

COURTESY = timedelta(seconds=10)
"""How long a process waits for another one to report an error."""

PATIENCE = timedelta(days=7)
"""How long the others wait for the one that prepares something; decoding a large data set takes hours."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together; by default it is alone.

    Attributes:
        number: of this process, from 0; only number 0 writes.
        count: of the processes.
        local: number of this process among those of its machine, which is that of its GPU.
        device: where the tensors lie through which they talk.
        store: where the processes leave notes for each other; None where there is one process.
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
        """Which part of a batch is this process's, of how many."""
        return self.number, self.count

    def check(self, recipe: Recipe, device: torch.device) -> None:
        """Refuse a recipe that so many processes cannot share.

        Raises:
            UsageError: a batch that does not divide, or synchronised BatchNorm without GPUs.
        """
        if recipe.batch_size % self.count:
            raise UsageError(
                f"a batch of {recipe.batch_size} images cannot be shared by {self.count} processes; the batch size "
                "is that of all of them together: choose one that they divide, or another number of processes"
            )
        if recipe.sync_batchnorm and self.count > 1 and device.type == "cpu":
            raise UsageError("sync_batchnorm needs GPUs; leave it out on the CPU")

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network as it is called in training: its gradients are averaged over the processes."""
        if self.count == 1:
            return model
        parallel = nn.parallel.DistributedDataParallel
        # Running statistics are only read in evaluation, so they need not go around in every step.
        names = inspect.signature(parallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        settings: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True, "static_graph": True}
        return parallel(model, device_ids=[device] if device.type == "cuda" else None, **settings)

    def add_up(self, *numbers: torch.Tensor) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count > 1:
            for each in numbers:
                distributed.all_reduce(each)

    def any(self, wish: bool) -> bool:
        """Whether `wish` is true in any of the processes; all of them get the same answer."""
        if self.count == 1:
            return wish
        answer = torch.tensor(int(wish), device=self.device)
        distributed.all_reduce(answer, distributed.ReduceOp.MAX)
        return bool(answer)

    def first_says(self, wish: bool) -> bool:
        """Whether `wish` is true in the first process; all of them get the same answer."""
        return self.any(wish and self.first)

    def as_first(self, value: Any) -> Any:
        """The value of the first process; those of the others are ignored."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in order, in every one of them."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def one_before_the_others(self, what: str) -> Iterator[None]:
        """Let one process of each machine do something first, such as filling a cache, and then the others.

        If it fails the others are not notified: torchrun ends them, once the first has reported why.
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

        Whoever is the first to leave has torchrun end the others, who might not have come to a word.
        """
        if self.store is None:
            say()
            return
        try:
            if int(self.store.add("about to say", 1)) > 1:
                self.store.wait(["said"], COURTESY)
                return
        except RuntimeError:
            # The notes were kept by a process that is gone, or the one that was to say it is.
            pass
        say()
        with suppress(RuntimeError):
            self.store.set("said", "")


ALONE = Ranks()


@contextmanager
def joined(device: torch.device | str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did; GPUs talk through NCCL, CPUs through gloo.

    Raises:
        SlimnetError: the processes do not find each other.
        UsageError: a process has no GPU of its own.
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
    # Not where the run failed: taking leave of a process that is gone would wait for it.
    distributed.destroy_process_group()


@contextmanager
def lost_ones_told(ranks: Ranks) -> Iterator[None]:
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
