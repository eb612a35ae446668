"""Story 5: the same bytes climb from dev to prod, and requests with raw features are answered there."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

from operator_story import LADDER, Given, Project, Story, Then, When, Worlds

from command_line import FLIGHT, UNAVAILABLE, WAITING


def test_ship_stops_where_it_must_and_goes_on_from_there(worlds: Worlds, given: Given) -> None:
    assert worlds.one.root.is_dir()
    alone = given.told("ship without a data plane").must(WAITING)
    assert "leaked" not in alone.err, "a library that was loaded complains of how the process ended"
    assert "no data plane has taken it" in alone.err and "lockgate up" in alone.err
    asked = given.told("ship without approval").must(WAITING)
    assert "dev: flight-delay@1.0.0 is live" in asked.err
    assert "staging: flight-delay@1.0.0 is live" in asked.err
    assert "prod asks for 1 approval" in asked.err
    shipped = given.told("ship").must(0)
    assert shipped.out.strip() == "flight-delay@1.0.0 is live on dev, staging, prod"
    # What was done once was not done again: each environment got one release.
    started = [entry["event"]["endpoint"] for entry in worlds.one.journal("delivery.release-started/")]
    assert started == [f"{name}/main/flight-delay" for name in LADDER]


def test_the_same_digest_is_live_on_every_step_of_the_ladder(worlds: Worlds) -> None:
    project = worlds.one
    digest = project.asks("explain flight-delay@1.0.0")["digest"]
    assert project.live() == {f"{name}/flight-delay": digest for name in LADDER}


def test_ticket_and_approver_are_in_the_audit_log(worlds: Worlds) -> None:
    project = worlds.one
    (prod,) = [
        entry
        for entry in project.journal("delivery.release-started/")
        if entry["event"]["endpoint"].startswith("prod/")
    ]
    assert prod["actor"] == "ada"
    assert prod["event"]["ticket"] == "OPS-1" and prod["event"]["approved_by"] == ["grace"]
    line = project.asks("status prod/flight-delay")["endpoints"]["prod/flight-delay"]["live"]
    assert line["approved_by"] == ["grace"] and line["ticket"] == "OPS-1"
    log = project.types("audit log").must(0).out
    assert "grace" in log and "approved for prod" in log and "ticket OPS-1" in log
    # The approval came before the release it allowed, and names the evidence that the release rests on.
    (approval,) = [entry for entry in project.journal("governance.") if "approv" in entry["event"]["type"]]
    assert approval["seq"] < prod["seq"]
    assert approval["event"]["evidence_set"] == prod["event"]["evidence_set"]


def test_nothing_skips_a_step_or_goes_up_unjudged(given: Given, when: When, then: Then) -> None:
    given.version_one_is_live()
    given.a_file("evaluation/more.md", "More.\n")
    when.ada("train --json")
    then.it_succeeds()
    name = then.answer["version"]
    when.ada(f"promote {name} --to prod --ticket OPS-9 --json")
    then.it_is_refused_by("delivery.ladder", "perf.vs_champion", "latency", "governance.approval")
    when.ada(f"promote {name} --to staging --json")
    then.it_is_refused_by("delivery.ladder")
    then.version_is_live("1.0.0").the_audit_holds()


def test_requests_with_raw_features_are_answered_everywhere(serving: Project) -> None:
    golden = json.loads(serving.blob(serving.layers("prod/flight-delay")["golden.json"]))
    rows, expected = golden["rows"][:8], golden["predictions"][:8]
    live = serving.live()
    for name in LADDER:
        reply = serving.predict(*rows, at=f"{name}/flight-delay")
        assert reply.status == 200, reply
        assert reply.body["version"] == "1.1.0" and reply.body["digest"] == live[f"{name}/flight-delay"]
        assert reply.body["endpoint"] == f"{name}/flight-delay"
        for answer, wanted in zip(reply.body["predictions"], expected, strict=True):
            assert abs(answer - wanted) < 1e-6
    # More delay at the airport, a later flight: the answers are a model's, not a constant's.
    calm = serving.predict(
        {**FLIGHT, "origin_delay": -2.0, "origin_late_share": 0.02, "aircraft_delay": -5.0}
    )
    storm = serving.predict(
        {**FLIGHT, "origin_delay": 90.0, "origin_late_share": 0.9, "aircraft_delay": 120.0}
    )
    assert 0.0 < calm.body["predictions"][0] < storm.body["predictions"][0] < 1.0


def test_wrong_requests_are_told_what_is_wrong(serving: Project) -> None:
    for change, words in (
        ({"scheduled_minute": 1440}, ("scheduled_minute",)),
        ({"carier": "UA"}, ("carier", "carrier")),
        ({"origin_delay": "late"}, ("origin_delay",)),
        ({"distance": None}, ("distance",)),
    ):
        reply = serving.predict({**FLIGHT, **change})
        assert reply.status == 422 and all(word in json.dumps(reply.body) for word in words), reply
    missing = serving.predict({name: value for name, value in FLIGHT.items() if name != "carrier"})
    assert missing.status == 422 and "carrier" in json.dumps(missing.body)
    unknown = serving.predict(FLIGHT, at="prod/flight-dealy")
    assert unknown.status == 404 and "flight-delay" in json.dumps(unknown.body)


def test_up_runs_data_plane_controller_and_hub_on_loopback(serving: Project) -> None:
    known = serving.running
    assert known is not None and known["pid"] != known["plane_pid"]
    assert serving.get("/healthz").status == 200 and serving.get("/readyz").status == 200
    assert loopback_only(known["plane_port"]) and loopback_only(known["hub_port"])
    hub = f"http://127.0.0.1:{known['hub_port']}"
    embedded, remote = serving.asks("status"), serving.asks(f"status --hub {hub}")
    assert remote == embedded
    line = remote["endpoints"]["prod/flight-delay"]
    assert line["rollback_ready"] == {"ready": True, "reason": None, "drill": None}
    assert serving.types("up --detach").code == 5, "what is up is not started twice"
    # Whoever gives no name is not answered.
    assert asked_without_a_name(known["hub_port"]) == (400, "http.actor-missing")


def loopback_only(port: int) -> bool:
    """Whether a port listens on 127.0.0.1 and on no other address, by the kernel's own table."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port
    }
    return addresses == {"0100007F"}


def asked_without_a_name(port: int) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as way:
        way.request(
            "POST", "/v1/ask", json.dumps({"type": "hub.status"}), {"content-type": "application/json"}
        )
        answer = way.getresponse()
        return answer.status, json.loads(answer.read())["code"]


def test_commands_travel_over_http_too(given: Given, when: When, then: Then, story: Story) -> None:
    """The hub's two routes carry a rollback and its refusal as the embedded hub does."""
    project = given.version_one_is_live()
    known = given.all_is_up()
    hub = f"http://127.0.0.1:{known['hub_port']}"
    when.the_sre(f"rollback prod/flight-delay --hub {hub} --json")
    then.it_is_refused_by("delivery.nothing-before")
    refused = project.journal("hub.command-refused/")[-1]
    assert refused["actor"] == "sre" and refused["event"]["command"] == "delivery.roll-back-endpoint"
    when.somebody(f"audit verify --hub {hub} --json")
    then.it_succeeds()
    assert then.answer["ok"] is True
    when.somebody("status --hub http://127.0.0.1:1")
    then.it_ends_with(UNAVAILABLE).it_is_no_bug()
