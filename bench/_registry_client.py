"""A hub's client, spoken to in lines, as `_mlflow.py` is for MLflow.

    python bench/_registry_client.py URL NAME

URL is a hub (`http://...`), or a store that this process opens a hub over. The first line says it is ready; then each
line of standard input is an order `{"do": WHAT, "n": N}`, and the answer is a list of milliseconds. `release` times the
three commands that MLflow has a counterpart for (register, approve, promote); `whole` times all that takes a package to
its endpoint: also the evidence, the validation, the reading of what is approved, and the confirmation. What a package
is (digests, signature, the bump it demands) is given and not looked at, because MLflow does not look either.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from lockgate.adapters.hubs.http import HttpHub
from lockgate.app.stores import open_store
from lockgate.app.system import SystemClock
from lockgate.core.digests import Digest
from lockgate.core.messages import Command, Receipt
from lockgate.delivery.messages import ConfirmPlan, DeclareEndpoint, DeclareEnvironment, PromoteVersion
from lockgate.gates.messages import EvidenceLine, RecordEvidence
from lockgate.governance.messages import AdoptPolicy, ApproveVersion, ValidateVersion
from lockgate.governance.policies.policy import Policy1, TierRule1
from lockgate.hub.kernel import Hub
from lockgate.hub.messages import ListVersions, Standing, Status
from lockgate.registry.messages import DeclareModel, RegisterVersion
from lockgate.testing.hub_world import CONTROLLER, HubWorld, accepted, named_digest
from lockgate.traffic.plan import Fallback

ENVIRONMENT, BIG = "prod", "main/big"
GATE = "perf.absolute"
RULE = TierRule1(gates=(GATE,), approvals={"production": 1}, evidence_max_age_days=7)
POLICY = Policy1(
    name="bench", version=1, tiers={"low": RULE, "moderate": RULE, "high": RULE, "critical": RULE}
)


class Registry:
    def __init__(self, connect: Callable[[str], Hub], name: str) -> None:
        self._connect = connect
        self._hubs: dict[str, Hub] = {}
        self._name, self._model = name, f"main/{name}"
        self._ids, self._numbers = count(), count()

    def do(self, actor: str, command: Command) -> Receipt:
        return accepted(self.hub(actor).execute(command))

    def hub(self, actor: str) -> Hub:
        if actor not in self._hubs:
            self._hubs[actor] = self._connect(actor)
        return self._hubs[actor]

    def new(self) -> str:
        return f"{self._name}-{next(self._ids)}"

    def found(self, n: int) -> None:
        """What all clients share."""
        self.do("petra", AdoptPolicy(id=self.new(), namespace="main", policy=POLICY))
        environment = DeclareEnvironment(
            id=self.new(),
            environment=ENVIRONMENT,
            order=0,
            sensitivity="production",
            target="local",
            trust=("key",),
        )
        self.do("petra", environment)

    def declare(self, n: int) -> None:
        self.do(
            "petra", DeclareModel(id=self.new(), model=self._model, tier="low", owner="team", purpose="bench")
        )
        fallback = Fallback(kind="constant", value=0.2)
        endpoint = DeclareEndpoint(id=self.new(), endpoint=f"{ENVIRONMENT}/{self._model}", fallback=fallback)
        self.do("petra", endpoint)

    def seed(self, n: int) -> None:
        self.do("petra", DeclareModel(id=self.new(), model=BIG, tier="low", owner="team", purpose="bench"))
        for number in range(n):
            self.do("ann", self.registering(BIG, number))

    def registering(self, model: str, number: int) -> RegisterVersion:
        return RegisterVersion(
            id=self.new(),
            model=model,
            package=named_digest("package", model, number),
            run=named_digest("run", model, number),
            signatures=(named_digest("signature", model, number),),
        )

    def judging(self, version: str, package: str) -> RecordEvidence:
        line = EvidenceLine(
            gate=GATE,
            metric="auc",
            verdict="pass",
            severity="block",
            value="0.81",
            threshold="0.70",
            summary="auc 0.81 against 0.70: pass",
            digest=named_digest("evidence", version),
        )
        return RecordEvidence(id=self.new(), version=version, package=Digest(package), lines=(line,))

    def release(self, _: int) -> float:
        """The milliseconds of registering, approving and promoting."""
        clock, taken = time.perf_counter, 0.0
        register = self.registering(self._model, next(self._numbers))
        started = clock()
        registered = self.do("ann", register)
        taken += clock() - started
        version = registered.events[0]["version"]
        self.do("eve", self.judging(version, registered.events[0]["package"]))
        self.do("eve", ValidateVersion(id=self.new(), version=version))
        bound = self.hub("bob").ask(Standing(version=version, environment=ENVIRONMENT)).bound
        approve = ApproveVersion(
            id=self.new(), version=version, environment=ENVIRONMENT, evidence_set=bound, comment="fine"
        )
        promote = PromoteVersion(id=self.new(), version=version, environment=ENVIRONMENT, ticket="CHG-1")
        started = clock()
        self.do("bob", approve)
        promoted = self.do("olga", promote)
        taken += clock() - started
        confirm = ConfirmPlan(
            id=self.new(),
            endpoint=f"{ENVIRONMENT}/{self._model}",
            generation=promoted.events[0]["generation"],
            applied=True,
            took_us=1000,
        )
        self.do(CONTROLLER, confirm)
        return taken * 1000

    def whole(self, number: int) -> None:
        self.release(number)

    def lookup(self, _: int) -> None:
        (line,) = self.hub("olga").ask(Status(endpoint=f"{ENVIRONMENT}/{self._model}")).endpoints.values()
        assert line.live is not None

    def mixed(self, number: int) -> float:
        taken = self.release(number)
        started = time.perf_counter()
        self.lookup(number)
        return taken + (time.perf_counter() - started) * 1000

    def list(self, _: int) -> None:
        after, n_seen = "", 0
        while True:
            page = self.hub("olga").ask(ListVersions(model=BIG, after=after, limit=1000))
            n_seen += len(page.versions)
            if page.next is None:
                break
            after = page.next
        assert n_seen == 10_000, n_seen


def timed(act: Callable[[int], float | None], n: int) -> list[float]:
    """What each call says it took, else what it took."""
    taken = []
    for number in range(n):
        started = time.perf_counter()
        said = act(number)
        taken.append((time.perf_counter() - started) * 1000 if said is None else said)
    return taken


def main(url: str, name: str) -> None:
    if url.startswith("http:"):
        registry = Registry(lambda actor: HttpHub(url, actor=actor), name)
    else:
        world = HubWorld(*open_store(url, base=Path("/"))[:2], clock=SystemClock())  # type: ignore[arg-type]
        registry = Registry(world.hub, name)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] in ("found", "declare", "seed"):
            getattr(registry, order["do"])(order["n"])
            answer: list[float] = []
        else:
            answer = timed(getattr(registry, order["do"]), order["n"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
