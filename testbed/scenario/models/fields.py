"""The base of all scenario models and the types of their fields: names, quantities, lists that may be one item.

A validator here looks at one value only; what concerns several is `checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from testbed.documents.quantities import BANDWIDTH, DURATION, PERCENTAGE, PRICE, RATE, SIZE, Quantity, shown
from testbed.objects.places import DNS_LABEL


class Model(BaseModel):
    """A mapping of the scenario file. A known key whose value is null counts as not written, as in Kubernetes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: each for key, each in value.items() if each is not None or key not in known}


def _dns_label(value: str) -> str:
    if not re.fullmatch(DNS_LABEL, value):
        raise ValueError(f"must be a DNS label (a-z, 0-9 and -, at most 63 characters), not {shown(value)}")
    return value


def _positive(value: float) -> float:
    if value == 0:
        raise ValueError("must be more than 0")
    return value


def _whole_seconds(value: float) -> float:
    if not value.is_integer():
        raise ValueError(f"must be whole seconds, as cookies have them, not {DURATION.format(value)}")
    return value


def _whole_bytes(value: float) -> float:
    if not value.is_integer():
        raise ValueError(f"must be whole bytes, not {value:g}B")
    return value


def _rooted(value: str) -> str:
    if not re.fullmatch("/[!-~]*", value):
        raise ValueError(f"must be a path that begins with /, without spaces, not {shown(value)}")
    return value


def as_list(value: Any) -> Any:
    """One item may be written without the brackets of a list."""
    return [value] if isinstance(value, str) else value


def _quantity(quantity: Quantity, positive: bool = False) -> tuple[BeforeValidator, PlainSerializer, WithJsonSchema]:
    write: Callable[[float], str] = quantity.format
    return (
        BeforeValidator(quantity.parse),
        PlainSerializer(write, return_type=str),
        WithJsonSchema(quantity.json_schema(positive)),
    )


Name = Annotated[str, AfterValidator(_dns_label), WithJsonSchema({"type": "string", "pattern": f"^{DNS_LABEL}$"})]
HttpPath = Annotated[str, AfterValidator(_rooted), WithJsonSchema({"type": "string", "pattern": "^/[!-~]*$"})]
Duration = Annotated[float, *_quantity(DURATION)]
PositiveDuration = Annotated[float, AfterValidator(_positive), *_quantity(DURATION, positive=True)]
WholeSeconds = Annotated[float, AfterValidator(_whole_seconds), AfterValidator(_positive), *_quantity(DURATION, True)]
Rate = Annotated[float, AfterValidator(_positive), *_quantity(RATE, positive=True)]
Bandwidth = Annotated[float, AfterValidator(_positive), *_quantity(BANDWIDTH, positive=True)]
Size = Annotated[float, AfterValidator(_whole_bytes), *_quantity(SIZE)]
Percentage = Annotated[float, *_quantity(PERCENTAGE)]
PositivePercentage = Annotated[float, AfterValidator(_positive), *_quantity(PERCENTAGE, positive=True)]
Price = Annotated[float, *_quantity(PRICE)]
Names = Annotated[list[str], BeforeValidator(as_list, json_schema_input_type=str | list[str]), Field(min_length=1)]
Command = Annotated[list[str], Field(min_length=1)]
