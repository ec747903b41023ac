"""`upframe doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line
from upframe.cli.parser import SETTINGS, Reporting, app
from upframe.errors import VerifyError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upframe.diagnosis import Finding

MARKS = {"ok": " ", "absent": "-", "broken": "!"}


@app.command(group=SETTINGS, help_epilogue="", help_formatter=HelpPage())
def doctor(
    *,
    list_devices: Annotated[bool, Parameter(negative="")] = False,
    timeout: Annotated[float, Parameter()] = 30,
    reporting: Reporting = Reporting(),
) -> int:
    """Show what this installation has, and what is broken.

    Versions, processor and kernels, devices, codecs, extras, disk, and a picture whose right result is known. Drivers are asked
    in processes of their own. A line with - is about something that is not there, which is no fault; one with ! is about
    something broken, and then the exit code is 7.

    Args:
        list_devices: Show devices only.
        timeout: Seconds for each driver to answer.
    """
    reporting.start()
    from upframe.diagnosis import examine

    findings = examine(timeout_s=timeout, devices_only=list_devices)
    broken = [finding for finding in findings if finding.state == "broken"]
    if reporting.json:
        print_line(
            json.dumps({"event": "doctor", "healthy": not broken, "findings": [asdict(finding) for finding in findings]})
        )
    else:
        for line in _lines(broken if reporting.quiet else findings):
            print_line(line)
    return VerifyError.exit_code if broken else 0


def _lines(findings: Iterable[Finding]) -> list[str]:
    lines, part = [], ""
    for finding in findings:
        lines += [finding.part] if finding.part != part else []
        part = finding.part
        lines.append(f"  {MARKS[finding.state]} {finding.name:<18} {one_line(finding.detail)}")
    return lines
