"""What the identity tokens of CI systems call the person who started a job, as their makers document it."""

from __future__ import annotations

import pytest

from lockgate.adapters.identity.federation import started_by


@pytest.mark.parametrize(
    ("claims", "names"),
    [
        ({"repository": "acme/fraud", "actor": "Octo-Cat", "actor_id": "12"}, ["github:octo-cat"]),
        (
            {"project_path": "acme/fraud", "user_login": "ada", "user_email": "Ada@Example.org"},
            ["ada@example.org", "gitlab:ada"],
        ),
        ({"actor": "dependabot[bot]"}, ["github:dependabot[bot]"]),
        ({"user_email": "nobody", "user_login": ""}, []),
        ({"sub": "repo:acme/fraud:ref:refs/tags/v1"}, []),
    ],
)
def test_the_names_of_who_started_a_job(claims: dict[str, str], names: list[str]) -> None:
    assert list(started_by(claims)) == names
