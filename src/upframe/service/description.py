"""A page that describes the REST service, made from its OpenAPI: no script, nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>upframe: REST service</title>
<link rel="stylesheet" href="/docs.css">
<h1>upframe: REST service</h1>
<p>The same as <a href="/api/openapi.json">OpenAPI</a>.</p>
"""


def description(schema: Mapping[str, Any]) -> str:
    """The page as HTML."""
    parts = [_HEAD]
    groups: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            groups.setdefault((route.get("tags") or ["service"])[0], []).append(_route(method, path, route))
    for tag, routes in groups.items():
        parts += [f"<h2>{html.escape(tag.capitalize())}</h2>", *routes]
    parts.append("<h2>Models</h2>")
    parts += [_model(name, model) for name, model in schema["components"]["schemas"].items()]
    return "\n".join([*parts, "</html>"])


def _route(method: str, path: str, route: Mapping[str, Any]) -> str:
    parts = [
        f"<h3><code>{method.upper()} {html.escape(path)}</code></h3>",
        f"<p>{html.escape(route.get('description', ''))}</p>",
    ]
    rows = [
        (parameter["name"], parameter["in"], _type(parameter["schema"]), parameter["schema"].get("description", ""))
        for parameter in route.get("parameters", ())
    ]
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", kind, _type(content["schema"]), ""))
    parts.append(_table(rows))
    answers = []
    for status, answer in route["responses"].items():
        types = [
            f"{html.escape(kind)} {_type(content.get('schema', {}))}" for kind, content in answer.get("content", {}).items()
        ]
        answers.append((status, ", ".join(types) or html.escape(answer.get("description", ""))))
    return "\n".join([*parts, "<details><summary>Answers</summary>", _raw_table(answers), "</details>"])


def _model(name: str, model: Mapping[str, Any]) -> str:
    required = set(model.get("required", ()))
    rows = [
        (
            field,
            "needed" if field in required else f"default {json.dumps(facts['default'])}" if "default" in facts else "",
            _type(facts),
            facts.get("description", ""),
        )
        for field, facts in model.get("properties", {}).items()
    ]
    text = html.escape(model.get("description", ""))
    return f'<h3 id="{html.escape(name)}"><code>{html.escape(name)}</code></h3>\n<p>{text}</p>\n{_table(rows)}'


def _type(facts: Mapping[str, Any]) -> str:
    """A type as HTML, with links to models."""
    if "$ref" in facts:
        name = html.escape(facts["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in facts:
            return " or ".join(_type(one) for one in facts[key])
    if "enum" in facts or "const" in facts:
        return html.escape(", ".join(json.dumps(value) for value in facts.get("enum", [facts.get("const")])))
    if facts.get("type") == "array":
        return f"list of {_type(facts.get('items', {}))}"
    bounds = [f"{sign} {facts[key]:g}" for key, sign in _BOUNDS.items() if key in facts]
    return html.escape(" ".join([str(facts.get("type", "any")), *bounds]))


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of name, place, type (HTML already) and text."""
    return _raw_table([(html.escape(name), html.escape(place), kind, html.escape(text)) for name, place, kind, text in rows])


def _raw_table(rows: list[Any]) -> str:
    if not rows:
        return ""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"
