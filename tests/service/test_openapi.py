"""Whatever is sent to a route, it answers as its description has it, and never with an internal error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import make_photo
from serving import Server

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"

ENDLESS = ("/api/events",)
"""Answers that do not end."""
KEPT = ("/api/queue",)
"""A route that would stop the work of the other tests."""
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def values(facts: Mapping[str, Any], whole: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema, as far as this service uses it."""
    if "$ref" in facts:
        return values(whole["components"]["schemas"][facts["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in facts:
        return st.one_of([values(one, whole) for one in facts["anyOf"]])
    if "enum" in facts or "const" in facts:
        return st.sampled_from(facts.get("enum") or [facts["const"]])
    match facts.get("type"):
        case "object":
            needed = set(facts.get("required", ()))
            fields = {name: values(one, whole) for name, one in facts.get("properties", {}).items()}
            return st.fixed_dictionaries(
                {name: one for name, one in fields.items() if name in needed},
                optional={name: one for name, one in fields.items() if name not in needed},
            )
        case "array":
            return st.lists(values(facts["items"], whole), max_size=3)
        case "string":
            if "pattern" in facts:
                return st.from_regex(facts["pattern"], fullmatch=True)
            return st.text(max_size=20)
        case "integer":
            return st.integers(facts.get("minimum"), facts.get("maximum"))
        case "number":
            return st.floats(facts.get("minimum"), facts.get("maximum"), allow_nan=False)
        case "boolean":
            return st.booleans()
        case _:
            return st.none()


def routes(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in schema["paths"].items():
        if path not in (*ENDLESS, *KEPT):
            yield from ((method, path, route) for method, route in methods.items())


@pytest.fixture(scope="module")
def schema(server: Server) -> dict[str, Any]:
    with server.http() as http:
        return dict(http.get("/api/openapi.json").json())


@given(data=st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_request_meets_an_internal_error(server: Server, schema: dict[str, Any], data: st.DataObject) -> None:
    method, path, route = data.draw(st.sampled_from(list(routes(schema))))
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for parameter in route.get("parameters", ()):
        value = data.draw(values(parameter["schema"], schema))
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", httpx.URL("/").copy_with(path=f"/{value}").raw_path.decode()[1:])
        elif value is not None and parameter["in"] == "query":
            query[parameter["name"]] = value
        elif value is not None:
            headers[parameter["name"]] = "".join(c for c in str(value) if c.isascii() and c.isprintable())
    content = route.get("requestBody", {}).get("content", {})
    body = None
    if "application/json" in content:
        sound = values(content["application/json"]["schema"], schema)
        body = json.dumps(data.draw(sound | JUNK | st.dictionaries(st.sampled_from(["source", "options", "name"]), JUNK)))
        headers["content-type"] = "application/json"
    elif content:
        body = data.draw(st.binary(max_size=50))
    with server.http() as http:
        answer = http.request(method, path, params=query, headers={k: v.strip() for k, v in headers.items()}, content=body)
    told = {int(status) for status in route["responses"]}
    assert answer.status_code in {*told, 404}, (method, path, answer.status_code, answer.text)
    if answer.is_error and method != "head":
        error = answer.json()
        assert error["error"].endswith((".", "!", "?")) and "\n" not in error["error"]


def test_the_description_is_complete_and_needs_no_other_host(server: Server, schema: dict[str, Any]) -> None:
    for method, path, route in routes(schema):
        assert route["description"].endswith("."), (method, path)
        assert {"400", "401", "403", "421"} <= set(route["responses"]), (method, path)
    with server.http() as http:
        page = http.get("/api/docs")
    assert "src=" not in page.text and "<script" not in page.text
    assert all(path in page.text for path in schema["paths"])


def test_the_documentation_names_every_route_and_no_other(schema: dict[str, Any]) -> None:
    section = PAGE.read_text("utf-8").partition("## REST")[2].partition("###")[0]
    documented = {(method.lower(), path) for method, path in re.findall(r"`([A-Z]+) (/[^`?]*)", section)}
    assert documented == {(method, path) for path, methods in schema["paths"].items() for method in methods}


def test_the_example_of_the_client_runs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(make_photo(24, 32)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile(example.replace("http://127.0.0.1:8188", server.address), str(PAGE), "exec"), {})
    assert Image.open(tmp_path / "photo_large.jpg").size == (64, 48)
