"""An endpoint against a control file in memory; the test is the loader."""

from __future__ import annotations

from memory_control import MemoryControl

from lockgate.core.errors import LockgateError
from lockgate.registry.packages.contract import InputField, ModelContract
from lockgate.serving.endpoint import Endpoint
from lockgate.serving.ports import ReadyPackage
from lockgate.testing.memory_target import ONE_NUMBER, constant
from lockgate.testing.target_suite import ENDPOINT, package_digest, sample_plan
from lockgate.traffic import control_file as codec
from lockgate.traffic.observed import State
from lockgate.traffic.plan import N_SLOTS, PackageRef, Plan

ONE, TWO = package_digest("1.0.0"), package_digest("2.0.0")


class Rig:
    def __init__(self, *plans: Plan) -> None:
        self.control = MemoryControl()
        for plan in plans:
            self.control.publish(plan)
        self.reported: list[tuple[State, str]] = []
        self.n_woken = 0
        self.endpoint = Endpoint(ENDPOINT, self.control, report=self._report, wake=self._wake)
        self.endpoint.refresh()

    def apply(self, plan: Plan) -> None:
        self.control.publish(plan)
        assert self.endpoint.stale()
        self.endpoint.refresh()

    def load(self, *, broken: tuple[str, ...] = ()) -> list[str]:
        """Load what is wanted until nothing is; the versions in order."""
        order = []
        while (ref := self.endpoint.wanted(urgent=False)) is not None:
            order.append(ref.version.rpartition("@")[2])
            if ref.digest in broken:
                self.endpoint.refuse(ref, "broken")
            else:
                self.endpoint.provide(ref, package(ref))
        return order

    def _report(self) -> None:
        self.reported.append((self.endpoint.state, self.endpoint.detail))

    def _wake(self) -> None:
        self.n_woken += 1


def package(ref: PackageRef) -> ReadyPackage:
    return ReadyPackage(ref.digest, ONE_NUMBER, constant(0.5))


def test_a_new_endpoint_waits_for_its_first_plan() -> None:
    rig = Rig()
    assert (rig.endpoint.state, rig.endpoint.serving, rig.endpoint.generation) == ("idle", None, 0)
    assert rig.endpoint.wanted(urgent=True) is None and not rig.endpoint.stale()


def test_a_plan_is_served_when_its_routed_packages_are_loaded_and_the_rest_follows() -> None:
    rig = Rig(sample_plan(4, {"1.0.0": 0, "2.0.0": N_SLOTS}))
    assert rig.control.acks == [(0, 4, "loading")] and rig.n_woken == 1
    ref = rig.endpoint.wanted(urgent=True)
    assert ref is not None and ref.digest == TWO
    rig.endpoint.provide(ref, package(ref))
    assert rig.control.acks[-1] == (4, 4, "serving") and rig.endpoint.generation == 4
    assert rig.endpoint.wanted(urgent=True) is None
    assert rig.load() == ["1.0.0"]
    assert set(rig.endpoint.report().loaded) == {ONE, TWO}


def test_going_back_to_a_loaded_version_needs_one_look() -> None:
    rig = Rig(sample_plan(1, {"1.0.0": 0, "2.0.0": N_SLOTS}))
    rig.load()
    rig.apply(sample_plan(2, {"1.0.0": N_SLOTS, "2.0.0": 0}))
    assert rig.control.acks[-1] == (2, 2, "serving") and not rig.endpoint.stale()
    serving = rig.endpoint.serving
    assert serving is not None
    runtime = serving.runtime_for("anybody")
    assert runtime is not None and (runtime.digest, runtime.version) == (ONE, "1.0.0")


def test_an_endpoint_stays_stale_until_its_swap_is_done() -> None:
    """A request that comes while another thread swaps must wait for it, not be answered by the plan before."""
    rig = Rig(sample_plan(1, {"1.0.0": 0, "2.0.0": N_SLOTS}))
    rig.load()
    seen = []
    rig.control.on_ack = lambda: seen.append((rig.endpoint.stale(), rig.endpoint.generation))
    rig.apply(sample_plan(2, {"1.0.0": N_SLOTS, "2.0.0": 0}))
    assert seen == [(True, 2)] and not rig.endpoint.stale()


def test_the_plan_before_answers_while_the_next_one_loads() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    before = rig.endpoint.serving
    rig.apply(sample_plan(2, "2.0.0"))
    assert rig.endpoint.serving is before and rig.control.acks[-1] == (1, 2, "loading")
    assert not rig.endpoint.tidy()
    rig.load()
    assert rig.endpoint.generation == 2
    assert rig.endpoint.tidy() and rig.endpoint.report().loaded == (TWO,)


def test_a_failed_plan_stays_failed_and_the_one_before_stays() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    rig.apply(sample_plan(2, {"1.0.0": 5_000, "2.0.0": 5_000}))
    rig.load(broken=(TWO,))
    assert rig.control.acks[-1] == (1, 2, "failed") and rig.endpoint.generation == 1
    assert rig.endpoint.report().detail == "main/flight-delay@2.0.0: broken"
    assert rig.reported[-1] == ("failed", "main/flight-delay@2.0.0: broken")
    rig.endpoint.refresh()
    assert rig.endpoint.wanted(urgent=False) is None


def test_a_newer_plan_tries_a_refused_package_again() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load(broken=(ONE,))
    rig.apply(sample_plan(2, "1.0.0"))
    assert rig.load() == ["1.0.0"] and rig.control.acks[-1] == (2, 2, "serving")
    assert rig.endpoint.report().detail == ""


def test_a_standby_that_does_not_load_is_told_and_stops_nothing() -> None:
    rig = Rig(sample_plan(1, {"1.0.0": N_SLOTS, "2.0.0": 0}))
    rig.load(broken=(TWO,))
    assert rig.control.acks[-1] == (1, 1, "serving")
    assert rig.endpoint.report().detail == "main/flight-delay@2.0.0: broken"
    assert rig.endpoint.report().loaded == (ONE,)


def test_a_plan_overtaken_while_loading_is_forgotten() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    rig.apply(sample_plan(2, "2.0.0"))
    late = rig.endpoint.wanted(urgent=True)
    assert late is not None
    rig.apply(sample_plan(3, "1.0.0"))
    assert rig.endpoint.generation == 3
    rig.endpoint.provide(late, package(late))
    assert rig.endpoint.generation == 3 and rig.endpoint.tidy()
    rig.endpoint.refuse(late, "too late to matter")
    assert rig.control.acks[-1] == (3, 3, "serving")


def test_a_worker_that_starts_on_a_failing_plan_serves_the_one_before() -> None:
    rig = Rig(sample_plan(6, "1.0.0"), sample_plan(7, "2.0.0"))
    assert rig.load(broken=(TWO,)) == ["2.0.0", "1.0.0"]
    assert rig.control.acks[-1] == (6, 7, "failed") and rig.endpoint.generation == 6


def test_a_worker_that_can_serve_neither_plan_says_why_the_newest_failed() -> None:
    rig = Rig(sample_plan(6, "1.0.0"), sample_plan(7, "2.0.0"))
    rig.load(broken=(ONE, TWO))
    assert rig.endpoint.serving is None and rig.control.acks[-1] == (0, 7, "failed")
    assert rig.endpoint.report().detail == "main/flight-delay@2.0.0: broken"


def test_a_torn_plan_is_never_served() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    rig.control.publish(sample_plan(2, "2.0.0"))
    spot = rig.control.image.index(b'"generation":2')
    rig.control.image[spot] ^= 1
    rig.endpoint.refresh()
    assert rig.control.acks[-1] == (1, 2, "failed") and "torn" in rig.endpoint.detail
    assert not rig.endpoint.stale()
    # The other side writes it once more, under the same word.
    rig.control.publish(sample_plan(2, "2.0.0"))
    rig.endpoint.refresh()
    assert rig.load() == ["2.0.0"] and rig.control.acks[-1] == (2, 2, "serving")


def test_a_worker_that_starts_on_a_torn_plan_serves_the_one_before() -> None:
    control = MemoryControl()
    control.publish(sample_plan(1, "1.0.0"))
    control.publish(sample_plan(2, "2.0.0"))
    control.image[control.image.index(b'"generation":2')] ^= 1
    rig = Rig()
    rig.control.image[:] = control.image
    rig.endpoint.refresh()
    assert rig.load() == ["1.0.0"] and rig.control.acks[-1] == (1, 2, "failed")


def test_a_file_that_became_unreadable_changes_nothing_but_the_report() -> None:
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    rig.control.image[:8] = b"GARBAGE!"
    rig.control.image[16:24] = (99 << 1).to_bytes(8, "little")
    rig.endpoint.refresh()
    assert rig.endpoint.generation == 1 and rig.endpoint.state == "failed"
    assert "traffic.control-file-corrupt" in rig.endpoint.detail


def test_a_plan_in_the_wrong_file_is_refused() -> None:
    rig = Rig(sample_plan(1, "1.0.0", endpoint="prod/main/other"))
    assert (rig.endpoint.state, rig.endpoint.serving) == ("failed", None)
    assert rig.endpoint.detail == "the plan is for prod/main/other"


def test_a_plan_without_routes_is_served_at_once() -> None:
    rig = Rig(sample_plan(1, {}))
    assert rig.control.acks == [(1, 1, "serving")]
    serving = rig.endpoint.serving
    assert serving is not None and serving.runtime_for("anybody") is None


def test_errors_of_a_control_file_have_remedies() -> None:
    try:
        codec.check(b"")
    except LockgateError as error:
        assert error.remedy


def test_callers_may_send_what_any_kept_version_takes() -> None:
    """Somebody who already sends a new version's inputs must still be answered after a rollback."""
    rig = Rig(sample_plan(1, "1.0.0"))
    rig.load()
    rig.apply(sample_plan(2, {"2.0.0": N_SLOTS, "1.0.0": 0}))
    more = ModelContract(
        inputs=(*ONE_NUMBER.inputs, InputField(name="wind", dtype="float")), output=ONE_NUMBER.output
    )
    ref = rig.endpoint.wanted(urgent=False)
    assert ref is not None
    rig.endpoint.provide(ref, ReadyPackage(ref.digest, more, constant(0.5)))
    names = dict.fromkeys(more.names, 1.0)

    rig.apply(sample_plan(3, {"1.0.0": N_SLOTS, "2.0.0": 0}))

    serving = rig.endpoint.serving
    assert serving is not None
    runtime = serving.runtime_for("anybody")
    assert runtime is not None
    assert runtime.version == "1.0.0"
    assert runtime.encode([names]).shape == (1, len(ONE_NUMBER.inputs))
