"""From a model's recipe to its graph: which steps lead from data sets to a package with evidence.

    dataset --> dataset.contract
       |
       +--> view.NAME ... --> training_set --> train --> package --> evidence
       |                          ^              |          ^
       +--> examples -------------+     model_contract   evaluation_set

`examples`, `train` and `evaluation_set` are the project's own functions, under whatever names they have; the other
steps are built in. A recipe says nothing of gates' limits, tiers or environments: judging a model differently must
not build it anew. The limits enter with the `evidence` step only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lockgate.core.digests import Digest, canonical, digest_of, sha256
from lockgate.features.definition import Definitions, service_fields, service_views
from lockgate.features.hashes import semantic_hash, service_hash
from lockgate.pipeline.code.closure import closure
from lockgate.pipeline.code.source import SourceTree
from lockgate.pipeline.graph import Node, in_order, wire_steps
from lockgate.registry.packages.contract import InputField, ModelContract, OutputField

#: Built-in steps and the word they go by in an argument list or an input.
CONTRACT_STEP = "model_contract"
TRAINING_SET_STEP = "training_set"
PACKAGE_STEP = "package"
EVIDENCE_STEP = "evidence"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is made, as far as it can change the package's bytes. Packed with the package.

    Attributes:
        model: full name.
        datasets: per dataset `source` (`module:function`) and `contract` (path).
        definitions: module of the feature definitions.
        examples, train, evaluation_set: the project's functions, `module:function`.
        label: the column of the evaluation set that holds what really happened.
        params: what the project's functions may name as arguments.
        include: patterns of further files.
        environment: path of the lock.
        dossier: what people wrote about the model: section -> file, packed like the further files.
    """

    model: str
    datasets: dict[str, dict[str, str]]
    definitions: str
    service: str
    examples: str
    train: str
    evaluation_set: str
    label: str
    output: OutputField
    params: dict[str, Any]
    include: tuple[str, ...] = ()
    environment: str = "requirements.lock"
    dossier: dict[str, str] = {}


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The project's files that a graph is made from; bytes, already read.

    Attributes:
        code: every Python file by path.
        contracts: contract files by path.
        include: the further files of the artifact, by path.
        lock: the environment lock.
        lockgate: the version of Lockgate, whose built-in steps are code like any other.
        advisories: the file of security advisories; no part of any package. None when there is none.
    """

    code: SourceTree
    contracts: dict[str, bytes]
    include: dict[str, bytes]
    lock: bytes
    lockgate: str
    advisories: bytes | None = None


def namespace_of(model: str) -> str:
    return model.partition("/")[0]


def model_contract(recipe: Recipe, definitions: Definitions) -> ModelContract:
    """The input and output contract that the model's feature service amounts to."""
    service = definitions.service(recipe.service)
    inputs = tuple(
        InputField(
            name=field.name,
            dtype=field.dtype,
            categories=field.categories,
            nullable=field.nullable,
            minimum=field.minimum,
            maximum=field.maximum,
            source=field.source,
        )
        for field in service_fields(service, definitions)
    )
    return ModelContract(inputs=inputs, output=recipe.output)


def upstream(recipe: Recipe, sources: Sources) -> dict[str, str]:
    """What feature hashes know of each dataset: the digest of its contract."""
    return {name: sha256(sources.contracts[table["contract"]]) for name, table in recipe.datasets.items()}


def view_hashes(recipe: Recipe, sources: Sources, definitions: Definitions) -> dict[str, Digest]:
    known = upstream(recipe, sources)
    views = service_views(definitions.service(recipe.service), definitions)
    return {view.name: semantic_hash(view, known) for view in views}


def graph_of(
    recipe: Recipe, sources: Sources, definitions: Definitions, gates: Mapping[str, Any]
) -> tuple[Node, ...]:
    """All steps from data to evidence.

    Args:
        gates: the limits the evidence is judged by; they key the `evidence` step only.

    Raises:
        BadGraph, NoSuchStep, BadSource: the project's functions do not fit together.
        UnknownName: a service, view or dataset that is not defined.
    """
    given = [*_datasets(recipe, sources), *_features(recipe, sources, definitions)]
    calls = (recipe.examples, recipe.train, recipe.evaluation_set)
    # The function's argument `contract` is the model's contract; the step is called by what it is.
    nodes = wire_steps(
        sources.code,
        calls,
        params=recipe.params,
        given=[
            *given,
            *_placeholders(),
            _contract(recipe, definitions, "contract"),
        ],
    )
    project = [_renamed(node) for node in nodes if node.kind == "step"]
    return in_order(
        [
            *given,
            *project,
            _contract(recipe, definitions, CONTRACT_STEP),
            _training_set(recipe, sources, definitions),
            _package(recipe, sources, definitions, project),
            _evidence(recipe, sources, gates),
        ]
    )


def rebuild_graph(
    recipe: Recipe, sources: Sources, definitions: Definitions, tables: Mapping[str, Node]
) -> tuple[Node, ...]:
    """The same steps up to the package, over datasets that are already at hand (`tables`)."""
    nodes = graph_of(recipe, sources, definitions, {})
    left_out = {EVIDENCE_STEP, *(f"{name}.contract" for name in recipe.datasets)}
    return in_order([tables.get(node.name, node) for node in nodes if node.name not in left_out])


def _own(sources: Sources) -> dict[str, Digest]:
    return {"lockgate": digest_of(sources.lockgate)}


def _datasets(recipe: Recipe, sources: Sources) -> list[Node]:
    nodes = []
    for name, table in recipe.datasets.items():
        code = closure(sources.code, table["source"])
        full = f"{namespace_of(recipe.model)}/{name}"
        nodes.append(
            Node(
                name=name,
                kind="dataset",
                parts=code.parts,
                params={"dataset": full},
                call=table["source"],
                dynamic=code.dynamic,
            )
        )
        nodes.append(
            Node(
                name=f"{name}.contract",
                kind="contract",
                parts={table["contract"]: sha256(sources.contracts[table["contract"]]), **_own(sources)},
                params={"dataset": full, "contract": table["contract"], "source": table["source"]},
                inputs={"table": name},
            )
        )
    return nodes


def _features(recipe: Recipe, sources: Sources, definitions: Definitions) -> list[Node]:
    hashes = view_hashes(recipe, sources, definitions)
    return [
        Node(
            name=f"view.{view.name}",
            kind="view",
            parts={f"view {view.name}": hashes[view.name], **_own(sources)},
            params={"view": view.name},
            inputs={dataset: dataset for dataset in view.reads},
        )
        for view in service_views(definitions.service(recipe.service), definitions)
    ]


def _placeholders() -> list[Node]:
    """Stand-ins, so that argument names of the project's functions may mean built-in steps."""
    return [Node(name=TRAINING_SET_STEP, kind="join"), Node(name="model", kind="alias")]


def _renamed(node: Node) -> Node:
    inputs = {
        argument: {"contract": CONTRACT_STEP}.get(source, source) for argument, source in node.inputs.items()
    }
    return msgspec.structs.replace(node, inputs=inputs)


def _contract(recipe: Recipe, definitions: Definitions, name: str) -> Node:
    contract = model_contract(recipe, definitions)
    return Node(name=name, kind="model-contract", parts={"service " + recipe.service: digest_of(contract)})


def _training_set(recipe: Recipe, sources: Sources, definitions: Definitions) -> Node:
    service = definitions.service(recipe.service)
    views = [view.name for view in service_views(service, definitions)]
    return Node(
        name=TRAINING_SET_STEP,
        kind="join",
        parts={
            f"service {service.name}": service_hash(service, definitions, upstream(recipe, sources)),
            **_own(sources),
        },
        params={"service": service.name, "mode": "as_known"},
        inputs={"examples": _function(recipe.examples), **{view: f"view.{view}" for view in views}},
    )


def _package(recipe: Recipe, sources: Sources, definitions: Definitions, project: list[Node]) -> Node:
    code = {label: digest for node in project for label, digest in node.parts.items()}
    files = {f"include/{path}": sha256(data) for path, data in sources.include.items()}
    return Node(
        name=PACKAGE_STEP,
        kind="package",
        parts={
            **code,
            **{f"view {name}": digest for name, digest in view_hashes(recipe, sources, definitions).items()},
            **files,
            **_own(sources),
        },
        params={"recipe": msgspec.json.decode(canonical(recipe))},
        inputs={
            "model": _function(recipe.train),
            "contract": CONTRACT_STEP,
            "evaluation_set": _function(recipe.evaluation_set),
            # Their key columns say in which types serving will be asked for entities.
            "examples": _function(recipe.examples),
            **{f"data.{name}": name for name in recipe.datasets},
        },
    )


def _evidence(recipe: Recipe, sources: Sources, gates: Mapping[str, Any]) -> Node:
    return Node(
        name=EVIDENCE_STEP,
        kind="evidence",
        parts=_own(sources),
        params={"label": recipe.label, "gates": dict(gates)},
        inputs={
            "package": PACKAGE_STEP,
            "evaluation_set": _function(recipe.evaluation_set),
            **{f"{name}.contract": f"{name}.contract" for name in recipe.datasets},
        },
    )


def _function(call: str) -> str:
    return call.partition(":")[2]
