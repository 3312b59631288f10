"""When a run is evaluated while it trains."""

from slimnet.training.loop.training_run import TrainingRun


class EvaluationPoints:
    """The points of a run at which it is evaluated: `count` of them, evenly spread, the last one at its end.

    Each is at a regular report, a multiple of the run's `every`. Reports that are early because steps take long are
    passed over, so that the points depend neither on the machine nor on interruptions.
    """

    def __init__(self, run: TrainingRun, count: int) -> None:
        self._run, self._count = run, count
        self._passed = self._due()

    def reached(self) -> bool:
        """Whether the last report is at another point."""
        before, self._passed = self._passed, self._due()
        return self._passed > before

    def _due(self) -> int:
        """The number of points up to the last regular report."""
        now, total = self._run.iteration, self._run.recipe.iterations
        regular = now if now == total else now // self._run.every * self._run.every
        return regular * self._count // total
