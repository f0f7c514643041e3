"""A run as a JUnit report, which CI systems read: its validity is a test case, and so is each expectation.

The form is what their readers have in common (Jenkins' junit-10.xsd, GitLab, what pytest writes): `testsuites` around
one `testsuite` with its counts and `properties`, then `testcase`s with at most one of `error`, `failure` and `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from testbed.results.judge.verdict import ExpectationResult
from testbed.results.show.summary import Summary

JUNIT_FILE = "junit.xml"
_VALIDITY = "the run is valid"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, escaped or not (its section 2.2)."""


@dataclass(frozen=True, slots=True)
class _Case:
    """`ended` is None for one that passed."""

    name: str
    ended: Literal["error", "failure", "skipped"] | None = None
    message: str = ""
    details: str = ""


def junit(summary: Summary) -> bytes:
    """The content of `junit.xml`. Expectations that were not judged are skipped, and the validity has the error."""
    if summary.interrupted:
        validity = _Case(_VALIDITY, "error", "interrupted: it is not judged")
    elif summary.invalid_reasons:
        validity = _Case(_VALIDITY, "error", summary.invalid_reasons[0], "\n".join(summary.invalid_reasons))
    else:
        validity = _Case(_VALIDITY)
    properties = {"verdict": summary.verdict, "seed": str(summary.seed), "profile": summary.profile}
    end_s = max((phase.end_s for phase in summary.phases), default=0.0)
    return _report(summary.name, [validity, *map(_case, summary.expectations)], properties, summary.ready_s + end_s)


def junit_without_results(name: str, expectations: Sequence[str], why: str) -> bytes:
    """The same for a run that came to nothing that could be measured."""
    skipped = [_Case(expectation, "skipped", "not judged") for expectation in expectations]
    return _report(
        name, [_Case(_VALIDITY, "error", why.partition("\n")[0], why), *skipped], {"verdict": "invalid"}, 0.0
    )


def _case(result: ExpectationResult) -> _Case:
    if result.held is None:
        return _Case(result.text, "skipped", "not judged")
    if result.held:
        return _Case(result.text)
    return _Case(result.text, "failure", f"measured {result.shown}, expected {result.bound}")


def _report(name: str, cases: Sequence[_Case], properties: Mapping[str, str], seconds: float) -> bytes:
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.ended == "failure" for case in cases)),
        "errors": str(sum(case.ended == "error" for case in cases)),
        "skipped": str(sum(case.ended == "skipped" for case in cases)),
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(name), **counts})
    held = ElementTree.SubElement(suite, "properties")
    for key, value in properties.items():
        ElementTree.SubElement(held, "property", {"name": key, "value": _xml(value)})
    for case in cases:
        named = {"classname": _xml(f"testbed.{name}"), "name": _xml(case.name), "time": "0"}
        element = ElementTree.SubElement(suite, "testcase", named)
        if case.ended is not None:
            ended = ElementTree.SubElement(element, case.ended, {"message": _xml(case.message)})
            ended.text = _xml(case.details) or None
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
