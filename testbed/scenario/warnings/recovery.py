"""A rule of recovery that nothing is judged by, or that the cluster cannot keep when nothing goes wrong."""

from __future__ import annotations

from testbed.documents.quantities import DURATION, PERCENTAGE
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import RecoveryModel, ScenarioModel
from testbed.scenario.warnings.load import answers_of, services_asked


def warn_of_recovery(model: ScenarioModel, findings: Findings) -> None:
    spec, rule = model.spec, model.spec.recovery
    if not spec.faults and not spec.operations:
        if rule != RecoveryModel():
            message = "there are no faults and no operations, so that there is nothing to recover from"
            findings.warn(("spec", "recovery"), message)
        return
    for index, fault in enumerate(spec.faults):
        if fault.for_ is not None and fault.for_ < rule.window:
            message = f"is shorter than a window of spec.recovery, {DURATION.format(rule.window)}"
            findings.warn(
                ("spec", "faults", index, "for"), f"{message}: while it lasts, all of it is judged as one window"
            )
    _warn_of_error_rates(model, findings)


def _warn_of_error_rates(model: ScenarioModel, findings: Findings) -> None:
    """Only where it is sure: no policy may retry on the status of a declared error."""
    spec = model.spec
    asked = services_asked(model)
    retried = any("5" in (policy.retries.retry_on or "") for policy in spec.mesh.policies)
    if not asked or retried:
        return
    answers = answers_of(model)
    ok = sum(answers[service].ok * weight for service, weight in asked.items()) / sum(asked.values())
    if ok < spec.recovery.at_least - 1e-9:
        share, asks = PERCENTAGE.format(round(ok, 5)), PERCENTAGE.format(spec.recovery.at_least)
        meaning = "recovered means no worse than that" if spec.recovery.relative_to_steady else "nothing ever recovers"
        message = f"by the declared error rates {share} of all requests are ok when nothing goes wrong, and it asks for"
        findings.warn(("spec", "recovery", "atLeast"), f"{message} {asks}: {meaning}")
