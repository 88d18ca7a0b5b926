"""What the server answers, as it tells it itself at GET /openapi.json (OpenAPI 3.1).

FastAPI knows the paths and the parameters that are declared to it. Bodies, and what else a route reads on its own so
that a mistake is told in its dialect's words, stand beside its `request`; schemas are made of them once somebody asks.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import TaggedUnionSchema

from serving.gate import Dialect

Binary = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A file of a form."""
_REFERENCE = "#/components/schemas/{model}"
_KEY = {"type": "http", "scheme": "bearer", "description": "One of ENCORE_API_KEYS; any or none where there are none."}
_ERRORS = {
    400: "It cannot be done as asked; the message says why.",
    401: "There is no key, or it is not one of the server's.",
    403: "It is not for clients to do.",
    404: "There is nothing of this name or id.",
    408: "The body did not come.",
    413: "The body is too large.",
    429: "Too much is waiting; try again later.",
    500: "A mistake of the server's.",
    504: "It took too long.",
    507: "The server's disk is full.",
}
_ALWAYS = (400, 401, 408, 413, 500, 504)
_OF_BODIES = (404, 429)
"""Bodies name models and files, and are what waits."""
_OF_UPLOADS = (507,)
_OF_NAMES = (404,)


class _Schemas(GenerateJsonSchema):
    """As pydantic has them, but for alternatives that a function chooses from: more than one of them may fit."""

    def tagged_union_schema(self, schema: TaggedUnionSchema) -> JsonSchemaValue:
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}


@dataclass(frozen=True, slots=True)
class Reads:
    """What a route reads by itself, given as types that pydantic can describe: `Annotated[Request, Reads(Body)]`."""

    body: Any = None
    """Of JSON."""
    form: Any = None
    """Of a multipart form."""
    query: Any = None
    """A model whose fields are parameters, each of which may be left out."""


def describe(routes: Sequence[APIRoute], dialect_of: Callable[[str], Dialect]) -> dict[str, Any]:
    """The description of those routes that are not aliases.

    Args:
        routes: of the application.
        dialect_of: a path to the dialect that owns it, which has a name and a shape of errors.
    """
    shown = [(route, dialect_of(route.path), _reads(route)) for route in routes if route.include_in_schema]
    document = get_openapi(title="Encore", version="1", routes=[route for route, _, _ in shown])
    types = [kind for _, dialect, reads in shown for kind in (dialect.error, reads.body, reads.form) if kind]
    adapters: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
        (kind, "validation", TypeAdapter(kind)) for kind in dict.fromkeys(types)
    ]
    found, components = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE, schema_generator=_Schemas)
    schemas = {kind: schema for (kind, _), schema in found.items()}
    for route, dialect, reads in shown:
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            operation |= _input(operation, reads, schemas)
            operation["responses"] = _answers(operation["responses"], route, reads, schemas[dialect.error])
            operation |= {"tags": [dialect.name], "security": [{"key": []}, {}]}
    document["components"] = {"schemas": components["$defs"], "securitySchemes": {"key": _KEY}}
    return document


def _reads(route: APIRoute) -> Reads:
    for parameter in inspect.signature(route.endpoint).parameters.values():
        for note in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(note, Reads):
                return note
    return Reads()


def _input(operation: dict[str, Any], reads: Reads, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    """The body of a request, and the parameters that FastAPI does not know of."""
    added: dict[str, Any] = {}
    for media_type, kind in (("application/json", reads.body), ("multipart/form-data", reads.form)):
        if kind:
            added["requestBody"] = {"required": True, "content": {media_type: {"schema": schemas[kind]}}}
    if reads.query:
        fields = TypeAdapter(reads.query).json_schema()["properties"]
        parameters = [_parameter(name, schema) for name, schema in fields.items()]
        added["parameters"] = [*operation.get("parameters", ()), *parameters]
    return added


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter of the query; an object's members are written `name[key]=value`."""
    style = {"style": "deepObject"} if schema.get("type") == "object" else {}
    return {"name": name, "in": "query", "schema": schema, **style}


def _answers(own: Mapping[str, Any], route: APIRoute, reads: Reads, error: Any) -> dict[str, Any]:
    """What the route itself says of its answers, and the errors that it can end in."""
    statuses = {*_ALWAYS, *(int(status) for status in own if int(status) >= 400)} - {422}
    statuses.update(_OF_BODIES if reads.body else (), _OF_UPLOADS if reads.form else ())
    statuses.update(_OF_NAMES if route.dependant.path_params else ())
    content = {"application/json": {"schema": error}}
    errors = {str(status): {"description": _ERRORS[status], "content": content} for status in sorted(statuses)}
    return {status: answer for status, answer in own.items() if int(status) < 400} | errors
