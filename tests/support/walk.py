"""What there is to call in the running app, and how a page calls it: for the tests that walk all of it."""

import json
from collections.abc import Iterator

import gradio as gr
import httpx2
from starlette.routing import Mount, Route


def routes_of(app, at="") -> Iterator[tuple[str, str]]:
    """Every method and path, of what is mounted too."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield from routes_of(route.app, at + route.path)
        elif hasattr(route, "original_router"):
            # What FastAPI makes of a router that is included: its routes know their whole path.
            yield from routes_of(route.original_router, at)
        elif isinstance(route, Route) or hasattr(route, "methods"):
            yield from ((method, at + route.path) for method in route.methods)
        else:
            yield ("?", f"{at}{getattr(route, 'path', route)}")


def routes_with_arguments(app, at="") -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Method and path as in `routes_of`, the names in the query, and those of the fields of a JSON body or a form."""
    for route in app.routes:
        if isinstance(route, Mount):
            yield from routes_with_arguments(route.app, at + route.path)
        elif hasattr(route, "original_router"):
            yield from routes_with_arguments(route.original_router, at)
        else:
            path = at + route.path
            dependant = getattr(route, "dependant", None)
            query = [parameter.alias for parameter in dependant.query_params] if dependant else []
            body = [parameter for parameter in dependant.body_params if hasattr(parameter.field_info, "annotation")] if dependant else []
            fields = [name for parameter in body for name in getattr(parameter.field_info.annotation, "model_fields", [])]
            for method in sorted(route.methods - {"HEAD"}):
                yield method, path, query, fields or READ_BY_HAND.get(f"{method} {path}".rstrip("/"), [])


READ_BY_HAND = {
    "POST /sign-in": ["name", "password"],
    "POST /gradio_api/component_server": ["session_hash", "component_id", "fn_name", "data"],
}
"""Fields of bodies that a route reads itself, so that it cannot be asked for them."""


def name_of(function) -> str:
    module = function.__module__.removeprefix("feedback_ui.")
    return f"{module}.{function.__qualname__.replace('.<locals>', '')}"


def handlers_of(blocks: gr.Blocks):
    """Every event that reaches the server, by the name of its handler; events that stay in the browser have none."""
    for event in blocks.fns.values():
        if event.cancels:
            yield "gradio.cancel", event
        elif event.fn is not None:
            yield name_of(event.fn), event


def functions_of(blocks: gr.Blocks):
    """Every server function of every component, those that Gradio's own components bring along too."""
    for block in blocks.blocks.values():
        for attribute in dir(block):
            function = getattr(block, attribute, None)
            if callable(function) and getattr(function, "_is_server_fn", False) is True:
                yield name_of(function), block, attribute


def reach(client: httpx2.Client, method: str, path: str, **options) -> tuple[int, str]:
    """The status and the text; of a stream, which would not end, only the status."""
    with client.stream(method, path, **options) as reply:
        endless = "event-stream" in reply.headers.get("content-type", "")
        return reply.status_code, "" if endless else reply.read().decode("utf-8", "replace")


def call(client: httpx2.Client, event) -> tuple[int, str]:
    """Calls an event as the page does, with what the page starts with: past the queue, or through it."""
    body = {"fn_index": event._id, "data": [start_value(block) for block in event.inputs], "session_hash": "walk"}
    if not event.queue:
        return reach(client, "POST", "/gradio_api/run/predict", json=body)
    return ask_queue(client, json.dumps(body).encode())


def ask_queue(client: httpx2.Client, body: bytes) -> tuple[int, str]:
    """Joins the queue and reads what it says until the event is over. An event that failed has HTTP's status 500 here."""
    status, text = reach(client, "POST", "/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    if status != 200:
        return status, text
    stats = []
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "walk"}) as messages:
        if messages.status_code != 200:
            return messages.status_code, messages.read().decode()
        for line in messages.iter_lines():
            stats.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
    ends = [json.loads(line.removeprefix("data: ")) for line in stats if "process_completed" in line]
    if ends and not ends[-1]["success"]:
        return 500, json.dumps(ends[-1]["output"])
    return 200, "\n".join(stats)


def server_call(block, attribute: str) -> dict:
    return {"data": {}, "component_id": block._id, "fn_name": attribute, "session_hash": "walk"}


def start_value(block):
    value = getattr(block, "value", None)
    # A translated text is no value, and a state is the server's.
    if callable(value) or isinstance(block, gr.State) or not is_json(value):
        return None
    return value


def is_json(value) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
