"""Names of SPyNet's parameters; no torch."""

from __future__ import annotations


def mm_names(name: str) -> str:
    """A parameter of SPyNet in the plain layout under its name in the mm layout; others stay.

    `spynet.basic_module.3.basic_module.4.weight` → `spynet.basic_module.3.basic_module.2.conv.weight`.
    """
    head, inner, tail = name.rpartition(".basic_module.")
    number, dot, parameter = tail.partition(".")
    if not inner or not number.isdigit() or int(number) % 2 or parameter not in ("weight", "bias"):
        return name
    return f"{head}{inner}{int(number) // 2}{dot}conv.{parameter}"
