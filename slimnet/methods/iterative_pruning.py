"""climb: several compact networks from one trained network, each saved as a bundle; the first one is exact."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from slimnet.accuracy import Accuracy
from slimnet.bundle.bundle import save
from slimnet.bundle.manifest import read_manifest
from slimnet.counting import count_parameters
from slimnet.data import Batches, ImageData
from slimnet.errors import SlimnetError, UsageError
from slimnet.methods.batchnorm_measure import ENOUGH
from slimnet.methods.budget import Budget, Unit, select_within_budget
from slimnet.methods.remove import Selection, remove_selected
from slimnet.methods.scores import Ranking
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.planning.width_rounding import Rounding
from slimnet.storage.conditions import change_in_words
from slimnet.storage.field_types import Amount, Count, Share
from slimnet.storage.files import held, whole_file
from slimnet.storage.records import read_record
from slimnet.storage.written_folders import LADDER
from slimnet.surgery.certificate_data import DENSE
from slimnet.training import evaluate

RECORD, PAGE = "ladder.json", "ladder.html"
MAKER = "slimnet ladder"
EXACT = "exact"


@dataclass(frozen=True)
class Rung:
    """One network of a ladder: the dense one, a compact one, or a budget without a network (`note` is the reason).

    `name` is also its bundle's folder. `reference` is the reference of the certificate, and `difference` the largest
    relative difference to it. `accuracy` and `top5` are those on `images` test images, before any fine-tuning.
    """

    name: str
    params: Count | None = None
    macs: Count | None = None
    removed: Count = 0
    reference: str = DENSE
    difference: Amount | None = None
    accuracy: Share | None = None
    images: Count = 0
    note: str = ""
    top5: Share | None = None

    def __post_init__(self) -> None:
        if self.params is None and not self.note:
            raise UsageError(f"the rung {self.name} has neither parameters nor a note")

    @property
    def exact(self) -> bool:
        """Whether no live channel was removed."""
        return self.reference == DENSE and not self.note

    @property
    def measured(self) -> Accuracy | None:
        """Its accuracy; None if it was not measured, or by a version that did not store all of it."""
        if self.accuracy is None or self.top5 is None:
            return None
        return Accuracy(self.accuracy, self.top5, self.images)


@dataclass(frozen=True)
class LadderRecord:
    """The content of `ladder.json`: the conditions of the ladder, and its rungs so far."""

    conditions: Mapping[str, Any]
    rungs: tuple[Rung, ...]

    def __post_init__(self) -> None:
        if any(rung.name == "dense" and rung.note for rung in self.rungs):
            raise UsageError("its dense network has a note in place of what it costs")


@dataclass(frozen=True)
class Ladder:
    """The folder of a network's rungs, and their creation; all of them share the `conditions`.

    With `images`, the remaining weights are fitted on training images without labels. `watch` is called with the name
    of the current rung, the number of test images so far, and their total. `round_to` is that of `slimnet.slim`, in
    each rung.
    """

    folder: Path
    model: nn.Module
    inputs: ExampleInputs
    images: ImageData | None
    conditions: Mapping[str, Any]
    source: str | None = None
    watch: Callable[[str, int, int], None] | None = None
    round_to: int | Rounding | None = None

    def climb(
        self, steps: Sequence[float], unit: Unit, threshold: float, ranking: Callable[[], Ranking]
    ) -> Iterator[Rung]:
        """Yield the dense network, the exact rung, and one for each step; stored rungs are reused.

        `steps` are budgets in `unit`. A step that cannot be met, or that the exact rung meets, has no network.

        Raises:
            UsageError: a step is no budget, or the folder holds other files.
        """
        budgets = [Budget(unit, step) for step in sorted(set(steps), reverse=True)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder, SlimnetError, "climbing a ladder"):
            kept = self.begun()
            dense = kept.get("dense") or self.keep(kept, self.dense())
            yield dense
            exact = Selection("implicit", {}, threshold)
            yield self.rung(kept, EXACT, lambda: exact)
            ranked: list[Ranking] = []
            for budget in budgets:

                def choose(budget: Budget = budget) -> Selection:
                    if not ranked:
                        ranked.append(ranking())
                    return select_within_budget(self.model, self.inputs, ranked[0], budget, round_to=self.round_to)

                yield self.rung(kept, f"{unit}-{budget.left:g}", choose)

    def rung(self, kept: dict[str, Rung], name: str, choose: Callable[[], Selection]) -> Rung:
        """One rung: the stored one, or a new one."""
        if name in kept and (kept[name].note or self.is_whole(name)):
            return kept[name]
        try:
            selection = choose()
        except UsageError as error:
            return self.keep(kept, Rung(name, note=str(error)))
        if name != EXACT and not selection.count:
            return self.keep(kept, Rung(name, note=f"the rung {EXACT} is within it"))
        loader = None if self.images is None else Batches(self.images, progress=self.counting(name))
        shown = None if self.images is None else self.images.sample(ENOUGH)
        fitted = shown is not None and selection.count > 0
        given: dict[str, Any] = {"loader": loader, "images": shown, "refit": fitted, "round_to": self.round_to}
        slimmed = remove_selected(self.model, self.inputs, selection, **given)
        if slimmed.certificate.is_of_masked and "dense" in kept:
            certificate = replace(slimmed.certificate, dense_accuracy=kept["dense"].measured)
            slimmed = replace(slimmed, certificate=certificate)
        rung = described(
            name,
            slimmed.model,
            slimmed.certificate.accuracies and slimmed.certificate.accuracies[1],
            removed=slimmed.plan.removed_channels,
            reference=slimmed.certificate.reference,
            difference=slimmed.certificate.max_rel_difference,
            macs=slimmed.plan.macs_after,
        )
        if "dense" in kept and kept["dense"].macs is None:
            self.keep(kept, Rung(**asdict(kept["dense"]) | {"macs": slimmed.plan.macs_before}))
        # A stored rung is valid only if its bundle exists too.
        self.keep(kept, rung)
        save(slimmed, self.folder / name, source=self.source, images=None if self.images is None else self.images.spec)
        return rung

    def dense(self) -> Rung:
        """The rung of the given network."""
        if self.images is None:
            return described("dense", self.model, None)
        return described("dense", self.model, evaluate(self.model, self.images, progress=self.counting("dense")))

    def counting(self, name: str) -> Callable[[int, int], None] | None:
        """The progress callback of a rung."""
        return None if self.watch is None else functools.partial(self.watch, name)

    def is_whole(self, name: str) -> bool:
        """Whether a rung's bundle is stored and unchanged."""
        if not (self.folder / name).is_dir():
            return False
        read_manifest(self.folder / name)
        return True

    def begun(self) -> dict[str, Rung]:
        """The stored rungs, by name.

        Raises:
            UsageError: the folder holds another ladder, or other files.
        """
        file = self.folder / RECORD
        LADDER.refuse_taken(self.folder, UsageError)
        if not file.exists():
            return {}
        record = read_record(LadderRecord, file, UsageError, advice="name another folder", others_ignored=True)
        change = change_in_words(record.conditions, json.loads(json.dumps(self.conditions)))
        if change is not None:
            raise UsageError(f"{self.folder} is a ladder with {change}; go on with that, or name another folder")
        return {rung.name: rung for rung in record.rungs}

    def keep(self, kept: dict[str, Rung], rung: Rung) -> Rung:
        """Add a rung to the stored ones."""
        kept[rung.name] = rung
        document = {"made_by": MAKER, "conditions": self.conditions, "rungs": [asdict(each) for each in kept.values()]}
        with whole_file(self.folder / RECORD, SlimnetError) as file:
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return rung


def described(name: str, model: nn.Module, accuracy: Accuracy | None, **values: Any) -> Rung:
    """A rung with its size, and its accuracy if it was measured."""
    if accuracy is not None:
        values |= {"accuracy": accuracy.top1, "top5": accuracy.top5, "images": accuracy.n}
    return Rung(name, params=count_parameters(model), **values)


def front(rungs: Sequence[Rung]) -> set[str]:
    """The names of the Pareto-optimal networks: those for which none with fewer MACs has an error as low."""
    known = [rung for rung in rungs if rung.macs is not None and rung.accuracy is not None]

    def betters(other: Rung, one: Rung) -> bool:
        ours, theirs = (one.macs or 0, -(one.accuracy or 0)), (other.macs or 0, -(other.accuracy or 0))
        return theirs != ours and theirs[0] <= ours[0] and theirs[1] <= ours[1]

    return {one.name for one in known if not any(betters(other, one) for other in known)}
