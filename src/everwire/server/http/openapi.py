"""The OpenAPI document, made of what validates."""

from __future__ import annotations

from typing import Any

import msgspec

from ... import __version__
from . import bodies
from .api import OPERATIONS, Operation

_REFERENCE = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "the body is not what it should be; the text names the field",
    "401": "the API key is missing or wrong",
    "403": "the API is off: it has no key",
    "404": "there is no such channel",
    "409": "the Idempotency-Key came with another body before",
    "413": "the body is too large",
    "415": "the body is no application/json",
    "503": "the broker does not answer, or the node does not run; see Retry-After",
}


def document() -> dict[str, Any]:
    """Make the document (OpenAPI 3.1)."""
    used = [kind for one in OPERATIONS for kind in (one.takes, one.gives)]
    used += [bodies.Problem, bodies.Health]
    references, components = msgspec.json.schema_components(used, ref_template=_REFERENCE)
    schemas = dict(zip(used, references, strict=True))
    paths: dict[str, Any] = {one.path: {"post": _operation(one, schemas)} for one in OPERATIONS}
    health = _json("it is so", schemas[bodies.Health])
    not_so = _json("it is not", schemas[bodies.Health])
    paths["/healthz"] = {"get": _open("Whether the process answers", {"200": health})}
    paths["/readyz"] = {
        "get": _open("Whether clients should come here", {"200": health, "503": not_so})
    }
    metrics = {"200": {"description": "Prometheus", "content": {"text/plain": {}}}}
    paths["/metrics"] = {"get": _open("What the node counts", metrics)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "everwire", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"key": []}, {"bearer": []}],
    }


def _operation(one: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    refused = {
        status: _json(text, schemas[bodies.Problem])
        for status, text in _REFUSALS.items()
        if one.keyed or status != "409"
    }
    made: dict[str, Any] = {
        "summary": one.summary,
        "operationId": one.path.rpartition("/")[2],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas[one.takes]}},
        },
        "responses": {"200": _json("done", schemas[one.gives]), **refused},
    }
    if one.keyed:
        text = "the same key with the same body again has no second effect, for five minutes"
        key = {"name": "Idempotency-Key", "in": "header", "description": text}
        made["parameters"] = [{**key, "schema": {"type": "string", "maxLength": 128}}]
    return made


def _json(text: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _open(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "security": [], "responses": responses}
