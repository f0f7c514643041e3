"""The JSON Schema of scenario files, for editors: made of the models, with defaults as one would write them."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from testbed.scenario.models.experiment import ScenarioModel


class _Generator(GenerateJsonSchema):
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A quantity's default has its unit: Pydantic would show the number that a model holds."""
        written = super().default_schema(schema)
        serialization: Any = schema["schema"].get("serialization", {})
        if written.get("default") is not None and serialization.get("type") == "function-plain":
            written["default"] = serialization["function"](written["default"])
        return written

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Names that are no names are refused; Pydantic leaves them free."""
        written = super().dict_schema(schema)
        return {**written, "additionalProperties": False} if "patternProperties" in written else written

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """As `testbed.scenario.json_schema`."""
    schema = ScenarioModel.model_json_schema(by_alias=True, schema_generator=_Generator)
    return {"$schema": _Generator.schema_dialect, **schema}
