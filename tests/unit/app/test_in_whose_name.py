"""In whose name somebody speaks who names no role: one that is missing and that he may speak for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lockgate.access.roles import everywhere
from lockgate.app.cli.session import Session as CliSession
from lockgate.app.cli.verbs.judging import in_whose_name
from lockgate.governance.messages import ApproveVersion, DeclineVersion
from lockgate.hub.authority import Session

APPROVAL = ApproveVersion(id="1", version="main/lamp@1.0.0", environment="prod", evidence_set="sha256:0")
NO = DeclineVersion(
    id="1", version="main/lamp@1.0.0", environment="prod", evidence_set="sha256:0", reason="x"
)


def somebody(*roles: str) -> CliSession:
    known = Session(actor="rita", grants=everywhere(roles), claimed=False)
    return cast(CliSession, cast(Any, SimpleNamespace(deciding=SimpleNamespace(session=known))))


@pytest.mark.parametrize("command", [APPROVAL, NO])
def test_the_first_role_that_one_may_speak_for(command: ApproveVersion | DeclineVersion) -> None:
    roles = ("owner", "risk", "product")
    assert in_whose_name(somebody("approver:risk", "approver:product"), command, roles).role == "risk"
    assert in_whose_name(somebody("approver:product"), command, roles).role == "product"


def test_who_may_speak_for_none_is_told_so_by_the_hub() -> None:
    assert in_whose_name(somebody("viewer"), NO, ("product", "risk")).role == "product"
