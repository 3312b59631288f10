"""How far the outputs of two networks are apart, over many batches, and how many samples each classifies correctly."""

from dataclasses import dataclass, field

import torch

from slimnet.accuracy import Accuracy, Hits
from slimnet.errors import CertificateError
from slimnet.surgery.equivalence import Distances, same_shapes
from slimnet.surgery.watched_forward import Ran


@dataclass
class Difference:
    """A running largest difference between two networks' outputs, and the accuracy of each."""

    measured: Distances = field(default_factory=Distances)
    agreeing: int = 0
    samples: int = 0
    logits: bool = True
    results: Distances = field(default_factory=Distances)
    results_unlike: int = 0
    hits: tuple[Hits, Hits] = field(default_factory=lambda: (Hits(), Hits()))

    def add(self, expected: Ran, actual: Ran, labels: torch.Tensor | None = None) -> None:
        """Compare what two networks computed on one batch: `add_outputs`, and their results, which may differ.

        Raises:
            CertificateError: the networks return different numbers or shapes of tensors.
        """
        self.add_outputs(expected.outputs, actual.outputs, None if expected.results else labels)
        self.logits = self.logits and not expected.results
        if not same_shapes(expected.results, actual.results):
            self.results_unlike += 1
            return
        self.results = self.results.joined(expected.results, actual.results)

    def add_outputs(
        self, expected: list[torch.Tensor], actual: list[torch.Tensor], labels: torch.Tensor | None = None
    ) -> None:
        """Compare the outputs of one batch; with `labels` `(N,)`, logits with the right classes as well.

        Raises:
            CertificateError: they differ in number or shape.
        """
        if not same_shapes(expected, actual):
            shapes = [tuple(tensor.shape) for tensor in expected]
            raise CertificateError(f"the slim network returns other shapes than the dense one, which returns {shapes}")
        self.measured = self.measured.joined(expected, actual)
        first, second = expected[0], actual[0]
        self.logits = self.logits and first.is_floating_point() and first.ndim == 2 and first.shape[1] > 1
        if self.logits:
            self.agreeing += int((first.argmax(1) == second.argmax(1)).sum())
            self.samples += first.shape[0]
            if labels is not None and len(labels) == first.shape[0]:
                for hits, scores in zip(self.hits, (first, second), strict=True):
                    hits.add(scores, labels)

    def results_within(self, tolerance: float) -> bool:
        """Whether the results of all batches have the same shapes and values."""
        return not self.results_unlike and self.results.relative <= tolerance

    @property
    def agreement(self) -> float | None:
        """The fraction of samples with the same prediction."""
        return self.agreeing / self.samples if self.logits and self.samples else None

    @property
    def accuracies(self) -> tuple[Accuracy, Accuracy] | None:
        """The accuracy of each network, if labels were given."""
        expected, actual = (hits.accuracy for hits in self.hits)
        return (expected, actual) if self.logits and expected and actual else None
