"""The OpenAPI document: complete, and every example in it answers as it says."""

from __future__ import annotations

from inspect import Parameter

import pytest
from fastapi.openapi.utils import get_openapi

import poolgrad as pg
from poolgrad_service import Settings, create_app
from poolgrad_service.routes import calls
from poolgrad_service.schemas import ACTIONS, Call

DOCUMENT = create_app().openapi()

EXAMPLES = [
    (path, name)
    for path, item in DOCUMENT["paths"].items()
    if path.startswith("/v1/")
    for name in item["post"]["requestBody"]["content"]["application/json"]["examples"]
]


def schemas_of(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from schemas_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas_of(value)


def test_the_served_document_is_this_one(client):
    assert client.get("/openapi.json").json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_operation_and_action_is_there():
    expected = {f"/v1/{op}/{action}" for op in pg.OPERATIONS for action in ACTIONS}
    assert expected == {path for path in DOCUMENT["paths"] if path.startswith("/v1/")}


def test_a_later_operation_appears_by_itself(monkeypatch):
    later = pg.Operation(
        "lp_pool",
        "The norm of each window.",
        has_argmax=False,
        parameters={**pg.OPERATIONS["max_pool"].parameters, "norm": 2, "root": True, "name": None},
    )
    monkeypatch.setattr(pg, "OPERATIONS", {**pg.OPERATIONS, "lp_pool": later})
    assert [call.path for call in calls() if call.operation is later] == [
        f"/v1/lp_pool/{action}" for action in ACTIONS
    ]
    properties = Call(later, "forward").body_schema()["properties"]
    assert properties["norm"]["type"] == "integer"
    assert properties["root"]["type"] == "boolean"
    assert "return_argmax" not in properties
    found = get_openapi(title="", version="", routes=create_app().routes)
    assert "/v1/lp_pool/backward" in found["paths"]


@pytest.mark.parametrize(("path", "name"), EXAMPLES)
def test_every_example_answers_as_documented(client, path, name):
    operation = DOCUMENT["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]["examples"][name]["value"]
    documented = operation["responses"]["200"]["content"]["application/json"]["examples"][name]
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json() == documented["value"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) <= set(reply.json()) <= set(schema["properties"])


@pytest.mark.parametrize("op", list(pg.OPERATIONS))
def test_there_is_an_example_of_every_array_form(op):
    def forms(value):
        return "nested" if isinstance(value, list) else "base64" if "base64" in value else "flat"

    for action, name in (("forward", "x"), ("backward", "dy")):
        content = DOCUMENT["paths"][f"/v1/{op}/{action}"]["post"]["requestBody"]["content"]
        found = {
            forms(example["value"][name])
            for example in content["application/json"]["examples"].values()
        }
        assert found >= (
            {"nested", "flat", "base64"} if action == "forward" else {"nested", "flat"}
        )


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if path.startswith("/v1/")])
def test_every_error_response_is_documented(path):
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    assert set(responses) == {
        "200", "400", "406", "408", "413", "415", "422", "500", "503",
    }  # fmt: skip
    for status, response in responses.items():
        if status != "200":
            assert list(response["content"]) == ["application/problem+json"]
    assert "Retry-After" in responses["503"]["headers"]
    # Those that no route of its own can document.
    assert {"NotFound", "MethodNotAllowed"} <= set(DOCUMENT["components"]["responses"])


def test_references_lead_somewhere():
    for reference in schemas_of(DOCUMENT):
        node = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_hyperparameters_come_from_the_registry():
    for op, operation in pg.OPERATIONS.items():
        for action in ACTIONS:
            content = DOCUMENT["paths"][f"/v1/{op}/{action}"]["post"]["requestBody"]["content"]
            schema = content["application/json"]["schema"]
            assert set(operation.parameters) <= set(schema["properties"])
            for name, default in operation.parameters.items():
                assert (name in schema["required"]) == (default is Parameter.empty)
            assert schema["additionalProperties"] is False


def test_the_document_tells_the_path_that_a_proxy_serves_it_under():
    assert "servers" not in DOCUMENT
    behind = create_app(Settings(root_path="/a/pool")).openapi()
    assert behind["servers"] == [{"url": "/a/pool"}]
    assert behind["paths"] == DOCUMENT["paths"]


def test_small_limits_leave_the_document_as_it_is():
    small = Settings(
        max_body_bytes=1, max_elements=1, max_depth=5, max_output_bytes=1, max_workspace_bytes=1,
        max_work=1, max_inflight_bytes=1,
    )  # fmt: skip
    assert create_app(small).openapi() == DOCUMENT
