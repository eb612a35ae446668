"""Twelve checks that break other registries, and where each is a test here. A check without one is named with why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUITE = "../src/lockgate/testing/acceptance_suite.py"
ARCHIVES = "../src/lockgate/testing/archive_suite.py"
STORY_4, STORY_7, STORY_9 = (
    f"e2e/test_story_{name}.py" for name in ("4_package", "7_rollback_audit", "9_records")
)

CHECKS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "one flipped byte in any blob: load, release and verify refuse and name the blob",
        (
            f"{STORY_7}::test_one_flipped_byte_of_a_package_is_refused_and_named",
            f"{STORY_7}::test_a_data_plane_with_nothing_whole_never_answers_from_a_flipped_byte",
        ),
    ),
    2: (
        "the author's own approval is refused, and the attempt is an event",
        (f"{SUITE}::test_acceptance_2_the_authors_own_approval_is_refused_and_on_record",),
    ),
    3: (
        "new evidence after the approval: the release is refused as stale",
        (f"{SUITE}::test_acceptance_3_new_evidence_after_the_approval_makes_it_stale",),
    ),
    4: (
        "a policy edited between approval and release is asked anew",
        (f"{SUITE}::test_acceptance_4_a_policy_edited_after_the_approval_is_asked_anew",),
    ),
    5: (
        "two concurrent releases to one environment: exactly one wins, no history is lost",
        (f"{SUITE}::test_acceptance_5_of_two_releases_at_once_exactly_one_wins",),
    ),
    6: (
        "a name that was deleted cannot be created anew",
        (
            f"{SUITE}::test_acceptance_6_a_name_that_ended_cannot_be_created_anew",
            "unit/hub/test_keeping.py::test_acceptance_6_a_number_and_a_package_that_were_used_are_never_given_again",
        ),
    ),
    7: (
        "the owner of the database rewrites the whole chain: verify against an exported checkpoint fails",
        (
            f"{SUITE}::test_acceptance_7_a_rewritten_chain_is_whole_and_does_not_pass_a_checkpoint_that_was_exported",
            "properties/test_journal_bits.py::test_a_consistent_rewrite_is_caught_by_a_checkpoint_and_by_nothing_else",
        ),
    ),
    8: (
        "a waiver that expires at T: promotion at T + 1 s is refused, live traffic is untouched",
        (
            f"{SUITE}::test_acceptance_8_a_waiver_ends_at_its_instant_and_live_traffic_stays",
            "unit/governance/test_governance_waivers.py::test_it_ends_at_its_hour_and_live_traffic_stays",
        ),
    ),
    9: (
        "a rollback with the database down: callers meet the version before, and the journal takes it over later",
        (
            f"{SUITE}::test_acceptance_9_a_rollback_that_was_done_without_the_hub_is_taken_over_by_the_journal",
            "e2e/test_rollback_local.py::test_acceptance_9_a_rollback_with_the_database_down_and_the_hub_dead",
            "e2e/test_rollback_local.py::test_a_rollout_that_was_under_way_is_over",
            "unit/delivery/test_local_plans.py::test_a_newer_plan_that_knew_nothing_of_it_does_not_overtake_it",
            "properties/test_rollout_machine.py::somebody_goes_back_by_hand",
        ),
    ),
    10: (
        "export, wipe, import: the same digests, the same roots",
        (
            f"{ARCHIVES}::test_acceptance_10_export_wipe_import_gives_the_same_digests_and_the_same_roots",
            f"{STORY_9}::test_acceptance_10_exported_wiped_and_imported_it_is_what_it_was",
        ),
    ),
    11: (
        "a pickle that would run something is refused at registration",
        (
            "unit/registry/test_format_scan.py::test_a_pickle_that_calls_is_refused_in_every_protocol",
            "unit/registry/test_format_scan.py::test_registration_refuses_a_package_that_holds_one_and_says_so_for_each_file",
        ),
    ),
    12: (
        "the same package built twice has the same digest",
        (f"{SUITE}::test_acceptance_12_the_same_package_built_twice_has_one_digest_and_one_number",),
    ),
}
OPEN: dict[int, str] = {}


def test_all_twelve_have_a_test_or_a_reason() -> None:
    assert sorted({*CHECKS, *OPEN}) == list(range(1, 13))
    assert not set(CHECKS) & set(OPEN)


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_the_test_of_a_check_is_there(number: int) -> None:
    _, places = CHECKS[number]
    for place in places:
        file, name = place.split("::")
        tree = ast.parse((TESTS / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place
