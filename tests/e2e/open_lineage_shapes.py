"""What OpenLineage 2-0-2 asks of a run event and of the facets that Lockgate writes, as a JSON Schema.

Restated from the published specification (openlineage.io/spec/2-0-2/OpenLineage.json and spec/facets/*): which members
are required, of which type and format they are, which values an enumeration allows. Facets of a run, job or dataset are
keyed by name and each carries `_producer` and `_schemaURL`; unknown facets are refused here, though the specification
allows them, so that a typing error in a name is found.
"""

from __future__ import annotations

from typing import Any

URI = {"type": "string", "format": "uri", "pattern": "^[a-z][a-z0-9+.-]*:"}
TEXT = {"type": "string", "minLength": 1}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def _facet(
    version: str, name: str, required: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    url = f"https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"
    return _object({"_producer": URI, "_schemaURL": {"const": url}, **required}, optional)


def _facets(**facets: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": facets, "additionalProperties": False}


_TRANSFORMATION = _object(
    {"type": {"enum": ["DIRECT", "INDIRECT"]}},
    {"subtype": TEXT, "description": TEXT, "masking": {"type": "boolean"}},
)
_INPUT_FIELD = _object(
    {"namespace": TEXT, "name": TEXT, "field": TEXT},
    {"transformations": {"type": "array", "items": _TRANSFORMATION}},
)
_DATASET_FACETS = _facets(
    version=_facet("1-0-1", "DatasetVersionDatasetFacet", {"datasetVersion": TEXT}),
    datasetType=_facet("1-0-1", "DatasetTypeDatasetFacet", {"datasetType": TEXT}, {"subType": TEXT}),
    schema=_facet(
        "1-2-0",
        "SchemaDatasetFacet",
        {
            "fields": {
                "type": "array",
                "items": _object({"name": TEXT}, {"type": TEXT, "description": {"type": "string"}}),
            }
        },
    ),
    symlinks=_facet(
        "1-0-1",
        "SymlinksDatasetFacet",
        {
            "identifiers": {
                "type": "array",
                "items": _object({"namespace": TEXT, "name": TEXT, "type": TEXT}),
            }
        },
    ),
    columnLineage=_facet(
        "1-2-0",
        "ColumnLineageDatasetFacet",
        {
            "fields": {
                "type": "object",
                "additionalProperties": _object({"inputFields": {"type": "array", "items": _INPUT_FIELD}}),
            }
        },
    ),
)
_DATASET = {"namespace": TEXT, "name": TEXT}
_STATISTICS = _facet(
    "1-0-2",
    "OutputStatisticsOutputDatasetFacet",
    {},
    {"rowCount": {"type": "integer"}, "size": {"type": "integer"}, "fileCount": {"type": "integer"}},
)
_JOB_TYPE = _facet(
    "2-0-4", "JobTypeJobFacet", {"processingType": TEXT, "integration": TEXT}, {"jobType": TEXT}
)
_TAGS = _facet(
    "1-0-0",
    "TagsRunFacet",
    {"tags": {"type": "array", "items": _object({"key": TEXT, "value": TEXT}, {"source": TEXT})}},
)
RUN_EVENT = _object(
    {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": URI,
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": _object({"runId": {"type": "string", "format": "uuid"}}, {"facets": _facets(tags=_TAGS)}),
        "job": _object({"namespace": TEXT, "name": TEXT}, {"facets": _facets(jobType=_JOB_TYPE)}),
    },
    {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "inputs": {"type": "array", "items": _object(_DATASET, {"facets": _DATASET_FACETS})},
        "outputs": {
            "type": "array",
            "items": _object(
                _DATASET, {"facets": _DATASET_FACETS, "outputFacets": _facets(outputStatistics=_STATISTICS)}
            ),
        },
    },
)
