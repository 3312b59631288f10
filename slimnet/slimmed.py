"""Slimmed: the result of `slim`."""

from dataclasses import dataclass

from torch import nn

from slimnet.models.architecture import Architecture
from slimnet.modules.digest import weights_digest
from slimnet.modules.example_inputs import Inputs
from slimnet.printable import Summarised
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.cut_history import plan_from_the_first
from slimnet.surgery.plan import SurgeryPlan


@dataclass(frozen=True, repr=False)
class Slimmed(Summarised):
    """The result of `slim`: a slim network with its plan and its certificate.

    `certificate` was measured when the network was made; after further training see `current_certificate`. `plan` is
    for the network that was passed to `slim`; if channels had been removed from that before, `whole_plan` is for the
    network as it was built.
    """

    model: nn.Module
    plan: SurgeryPlan
    certificate: Certificate
    example_inputs: Inputs
    architecture: Architecture | None

    @property
    def current_certificate(self) -> Certificate:
        """The certificate as it is for the weights that `model` has now: trained further, it is not certified."""
        return self.certificate.for_weights(weights_digest(self.model))

    @property
    def whole_plan(self) -> SurgeryPlan:
        """The plan from the network as it was built to the slim one, all earlier cuts included.

        Raises:
            PlanError: the plans do not compose.
        """
        return plan_from_the_first(self.model, self.plan)

    @property
    def summary(self) -> str:
        """What was removed, and whether the certificate holds."""
        return f"{self.plan.summary}; {self.current_certificate.verdict}"

    def __str__(self) -> str:
        return f"{self.plan}\n{self.current_certificate}"
