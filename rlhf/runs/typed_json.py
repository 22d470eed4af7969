"""Records as JSON objects of a run's row, and back: dataclasses, checked by pydantic against the types of their fields.

A store may come from another source and hold any value: a value of another type is an error that names the field.
Unknown fields are ignored, so that an older version reads what a newer one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

MAX_SHOWN_FAULTS = 3
"""Maximum number of faults that an error message lists."""


class UnreadableRecord(ValueError):
    """A JSON object is not a record of this type; the message names the fields."""


def to_json(record: DataclassInstance) -> dict[str, Any]:
    """The record as a JSON object, without the fields that are None, at any depth of nested records."""
    return asdict(record, dict_factory=_without_none)


def _without_none(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}


def from_json(record_type: type[T], value: Mapping[str, Any]) -> T:
    """The record that a JSON object stands for.

    Raises:
        UnreadableRecord: a field is missing, or a value is of another type, NaN or infinite.
    """
    # mypy does not take a type for hashable.
    key: Any = record_type
    try:
        encoded = json.dumps(value, allow_nan=False)
        record: T = _adapter(key).validate_json(encoded, strict=True)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors(include_input=False)]
        more = f"; and {len(faults) - MAX_SHOWN_FAULTS} more" if len(faults) > MAX_SHOWN_FAULTS else ""
        raise UnreadableRecord(f"{record_type.__name__}: {'; '.join(faults[:MAX_SHOWN_FAULTS])}{more}") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"{record_type.__name__}: {error}") from None
    return record


@cache
def _adapter(record_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record_type)
