"""Gate `privacy.tags`: personal data reaches a model only for a purpose that somebody wrote down.

Which columns are personal or confidential, and for what they may be used, stands in the data contracts
(`lockgate.privacy`, `lockgate.purpose`; tags and classifications of the standard count too). Which columns reach the
model was traced when the package was built, and travels in it. What decides only which rows there are reaches it as
well: a count of the rows of one group tells of the group. Where code and not SQL makes a column, the names in the code
count, because nobody can say less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from lockgate.data.contract import ContractColumn, DataContract
from lockgate.gates.evidence import ANYTHING, Evidence, MissingInput, Subject, guarded, record
from lockgate.gates.messages import Verdict
from lockgate.registry.messages import HOW
from lockgate.registry.packages.contract import InputField
from lockgate.registry.packages.package import InputTrace

GATE = "privacy.tags"
_METRIC = "n_without_purpose"


class _Use(msgspec.Struct, frozen=True, order=True):
    dataset: str
    column: str
    reaches: str
    how: str

    def __str__(self) -> str:
        return f"{self.dataset}.{self.column} reaches {self.reaches} {HOW[self.how]}"


def privacy_tags(
    inputs: Sequence[InputField],
    traces: Sequence[InputTrace],
    contracts: Callable[[], Mapping[str, DataContract]],
    *,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `privacy.tags`: every private column that reaches the model has a recorded purpose.

    Args:
        inputs: of the model contract.
        traces: from the package; an input without one is an error.
        contracts: gives the data contract of each dataset by its short name, as packed.
    Returns:
        One record: `value` private columns without a purpose, of `n` columns that reach the model; limit 0. The
        details list the purposes.
    """

    def judge() -> Evidence:
        traced = {trace.input for trace in traces}
        lost = [field.name for field in inputs if field.name not in traced]
        if lost or not inputs:
            raise MissingInput(
                f"the package does not say which columns {', '.join(lost) or 'its inputs'} are made from",
                remedy="build it again: lockgate train",
            )
        uses = sorted(
            {
                _Use(one.dataset, one.column, trace.input or trace.source, one.how)
                for trace in traces
                for one in trace.columns
            }
        )
        private = _private(contracts())
        told = [use for use in uses if (use.dataset, use.column) in private]
        wrong = [use for use in told if not private[use.dataset, use.column].purposes]
        n_wrong = len({(use.dataset, use.column) for use in wrong})
        verdict: Verdict = "fail" if wrong else "pass"
        return record(
            GATE,
            _METRIC,
            subject,
            n=len({(use.dataset, use.column) for use in uses}) or len(inputs),
            value=float(n_wrong),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason="beyond_limit" if wrong else None,
            details=_details(wrong, told, private),
        )

    return guarded(GATE, _METRIC, judge, subject=subject, comparator="at_most", threshold=0.0)


def _private(contracts: Mapping[str, DataContract]) -> dict[tuple[str, str], ContractColumn]:
    return {
        (dataset, column.name): column
        for dataset, contract in contracts.items()
        for column in contract.columns
        if column.private
    }


def _details(
    wrong: Sequence[_Use], told: Sequence[_Use], private: Mapping[tuple[str, str], ContractColumn]
) -> tuple[str, ...]:
    refused = [f"{use}, and its contract records no lockgate.purpose" for use in wrong]
    allowed = [
        f"{use}, for {', '.join(private[use.dataset, use.column].purposes)}"
        for use in told
        if use not in wrong
    ]
    return (*refused, *allowed) or ("no private column reaches it",)
