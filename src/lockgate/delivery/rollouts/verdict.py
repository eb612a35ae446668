"""What the counts of a rollout prove: `judge` turns a `Look` into a `Verdict`. Pure, exact, safe to ask at any time.

The test. Routing is our own randomisation: if the new version is no different, each bad event belongs to it with
probability pi, its share of the routing while the event was counted, whatever the load, the hour or the drift.
For x of n bad events the Beta mixture

    M = B(a + x, b + n - x) / B(a, b) / (pi^x (1 - pi)^(n - x)),   a = c pi,  b = c (1 - pi)

is a non-negative martingale that starts at 1, so it ever reaches 1/alpha with probability alpha at most (Ville),
however often one looks. Where pi changes a new factor begins; factors multiply.

The interval. Were bad events `r` times as frequent under the new version, the probability would be
theta = pi r / (pi r + 1 - pi). The r whose M(r), theta in the place of pi, stays below 1/alpha are a confidence
sequence: it holds at all looks together. M is log-convex in log r, so they are an interval. Both versions share
the clock within a segment and segments are never pooled, so a rate that drifts while weights grow biases nothing.

Sources: Robbins 1970 (mixtures, confidence sequences); Lindon and Malek, arXiv 2011.03567 (sequential tests of
assignment); Howard et al., arXiv 1810.08240 (time-uniform bounds; Bernoulli rates). docs/canary-statistics.md has
the operating figures.

Two versions are compared on the votes of units, one each (tally.py); the counts of requests would not do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import Invalid
from lockgate.delivery.rollouts.policy import Guard, GuardName, RolloutPolicy, RolloutStep, Stage
from lockgate.traffic.plan import N_SLOTS

CONCENTRATION = 20.0
"""c, the weight of the mixture in events. Small reacts to large harm at once, large to small harm in the end;
between 10 and 40 the median delay of a doubled rate hardly moves (at 10 % canary, 1 % bad)."""

SOAK_SHARE = 0.2
"""The part of a guard's alpha that is kept for the soak, where a different test is made."""

MISMATCH_ALPHA = 0.001
"""The chance, over the whole rollout, that a sound routing is called mismatched."""

BROKEN_FROM, BROKEN_SHARE = 20, 0.5
"""So many failed requests of the latest minutes, and such a share of them, make a version count as broken."""

_RATE_PRIOR = 0.5
_WIDEST = 40.0
_TOLERANCE = 1e-6
_MOST_STEPS = 60
_MOST_UNITS = 2**53
_MOST_LOG10 = 300.0


class BadLook(Invalid):
    """What was reported cannot have been counted. Facts: `step`."""

    code = "delivery.bad-look"


class Tally(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Votes of one guard: how many units of the new version and of the one before, how many of them bad."""

    n_canary: int = 0
    n_control: int = 0
    bad_canary: int = 0
    bad_control: int = 0


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was counted while the routing stayed the same.

    Attributes:
        step: index into the policy's steps.
        weight: slots of 10,000 that the new version answered.
        n_canary: units that were met for the first time in this stage, by the new version; `n_control` by the
            one before. In shadow both are the units of which a pair of answers is known.
        again_canary, again_control: units that were met in this step and had been met in an earlier one; in
            shadow, further pairs of the same units. They have been seen, and prove nothing new.
        asked_canary, asked_control, failed_canary, failed_control: requests of the segment's latest one to two
            minutes, and how many of them failed; of all units, also of those that have voted. Not in shadow.
        guards: in shadow only `errors`, paired: `bad_canary` where only the shadow failed, `bad_control` where
            only the live version did.
    """

    step: int
    stage: Stage
    weight: int
    n_canary: int
    n_control: int
    again_canary: int = 0
    again_control: int = 0
    asked_canary: int = 0
    asked_control: int = 0
    failed_canary: int = 0
    failed_control: int = 0
    guards: dict[GuardName, Tally]


class Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All counts of a rollout up to a moment.

    Attributes:
        segments: oldest first.
        since, until: the first and the last answer that was counted; 0 without one.
        n_dropped: lines that the data plane could not write.
    """

    segments: tuple[Segment, ...]
    since: Micros
    until: Micros
    n_dropped: int


class GuardVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known about one guard.

    Attributes:
        e_value_log10: evidence that the versions differ, over the whole rollout; harm if the new one is worse.
        ratio: estimate of the rate under the new version over the rate before; None when the one before has no
            bad event, or neither has.
        low, high: confidence sequence of the ratio, at every look at once; None where there is no bound.
        n_events: bad events of both versions together.
        rate_canary, rate_control: shares of bad units, all segments together; only for reading, since the
            two need not have the same weights at the same hours. In soak the first is the soak's.
        detail: the same for an operator.
    """

    guard: GuardName
    outcome: Literal["fail", "pass", "continue"]
    e_value_log10: float
    ratio: float | None
    low: float | None
    high: float | None
    n_events: int
    rate_canary: float | None
    rate_control: float | None
    detail: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a step may be left, and which way.

    Attributes:
        outcome: `fail` harm is proven; `pass` enough was seen and every guard has its proof; `continue` neither;
            `no_data` the new version met nobody in this step; `void` the routing is not what the plan says,
            so nothing that was counted proves anything.
        reason: one sentence for an operator.
        n_canary, n_control: units met in this step.
    """

    outcome: Literal["pass", "fail", "continue", "no_data", "void"]
    reason: str
    guards: tuple[GuardVerdict, ...]
    n_canary: int
    n_control: int

    @property
    def digest(self) -> Digest:
        return digest_of(self)


def judge(look: Look, policy: RolloutPolicy, step: int) -> Verdict:
    """The verdict of a look on step `step` of a policy, 0 the first.

    A harmless version gets `fail` at any look of the rollout, however many there are, with probability
    `policy.alpha` at most. That holds for the canary whatever the traffic does; for the soak it holds as far as
    the rate before the soak would have stayed. Segments of later steps are not looked at.

    Raises:
        BadLook: a count is negative or larger than the whole, or a segment is of no step of the policy.
    """
    for segment in look.segments:
        _check(segment, policy)
    if not 0 <= step < len(policy.steps):
        raise _impossible(step, f"the rollout has {len(policy.steps)} steps")
    now = policy.steps[step]
    segments = [segment for segment in look.segments if segment.step <= step]
    here = [segment for segment in segments if segment.step == step]
    n_canary = sum(segment.n_canary + segment.again_canary for segment in here)
    n_control = sum(segment.n_control + segment.again_control for segment in here)
    alphas = _alphas(policy)
    guards = tuple(
        _Question(name, policy.guards[name], now.stage, alphas[name], segments).answer()
        for name in _judged(policy, now.stage)
    )
    outcome, reason = _outcome(segments, policy, now, guards, n_canary)
    return Verdict(outcome=outcome, reason=reason, guards=guards, n_canary=n_canary, n_control=n_control)


def log_e_value(n_hits: int, n_events: int, share: float) -> float:
    """log M for `n_hits` of `n_events` in the new version, whose share of the routing was `share`.

    Expected value of M at most 1 if the versions do not differ.
    """
    return _Evidence([_Cell(n_hits, n_events, share)]).log_e(0.0)


def ratio_bounds(cells: Iterable[tuple[int, int, float]], alpha: float) -> tuple[float, float | None]:
    """Confidence sequence of the ratio of rates from (hits, events, share) per segment, as `log_e_value` has them.

    Covers the truth at all looks together with probability 1 - alpha at least, if the ratio is the same in all
    segments and events of different units are independent. None when nothing bounds it from above.
    """
    evidence = _Evidence([_Cell(*cell) for cell in cells])
    return evidence.low(alpha), evidence.high(alpha)


def rate_bounds(n_bad: int, n: int, alpha: float) -> tuple[float, float]:
    """Confidence sequence of a rate, at all looks together, by inverting the Beta(1/2, 1/2) mixture of Robbins
    1970; for independent units of the same rate. (0, 1) without a unit."""
    return _rate_bound(n_bad, n, alpha, 0.0), _rate_bound(n_bad, n, alpha, 1.0)


def _rate_bound(n_bad: int, n: int, alpha: float, end: float) -> float:
    """The bound of `rate_bounds` towards `end`, 0 or 1."""
    if n == 0 or n_bad == end * n:
        return end
    mixed = _log_beta(_RATE_PRIOR + n_bad, _RATE_PRIOR + n - n_bad) - _log_beta(_RATE_PRIOR, _RATE_PRIOR)
    least = mixed + math.log(alpha)

    def inside(rate: float) -> bool:
        seen = n_bad * math.log(rate) if n_bad else 0.0
        return seen + ((n - n_bad) * math.log1p(-rate) if n_bad < n else 0.0) > least

    return _edge(inside, n_bad / n, end, _TOLERANCE / 10)


class _Cell(NamedTuple):
    """`hits` of `events` bad ones were the new version's, whose share of the routing was `share`."""

    hits: int
    events: int
    share: float


class _Evidence:
    """The bad events of some segments, as a function of the ratio of the two rates."""

    def __init__(self, cells: Iterable[_Cell]) -> None:
        # With a share of nothing or of everything there is nothing to compare: the factor is 1.
        known = self._cells = [cell for cell in cells if cell.events and 0.0 < cell.share < 1.0]
        self.hits = sum(cell.hits for cell in known)
        self.events = sum(cell.events for cell in known)
        self._odds = [(cell.events, cell.share / (1.0 - cell.share)) for cell in known]
        self._at_even = sum(
            cell.hits * math.log(odds) for cell, (_, odds) in zip(known, self._odds, strict=True)
        )
        self._mixed = 0.0
        for hits, events, share in known:
            a, b = CONCENTRATION * share, CONCENTRATION * (1.0 - share)
            self._mixed += _log_beta(a + hits, b + events - hits) - _log_beta(a, b)

    def log_e(self, log_ratio: float) -> float:
        """log M against the hypothesis that the ratio is exp(`log_ratio`)."""
        ratio = math.exp(log_ratio)
        spread = sum(events * math.log1p(odds * ratio) for events, odds in self._odds)
        return self._mixed - (self._at_even + self.hits * log_ratio - spread)

    def _surplus(self, log_ratio: float) -> float:
        """Expected hits less hits, which is also the slope of `log_e`."""
        ratio = math.exp(log_ratio)
        return sum(events * odds * ratio / (1.0 + odds * ratio) for events, odds in self._odds) - self.hits

    @cached_property
    def estimate(self) -> float:
        """The most likely log ratio; minus or plus infinity when all events are on one side; nan without any."""
        if not self.events:
            return math.nan
        if not self.hits:
            return -math.inf
        if self.hits == self.events:
            return math.inf
        if len(self._odds) == 1:
            return math.log(self.hits / (self.events - self.hits) / self._odds[0][1])

        return _edge(lambda at: self._surplus(at) < 0.0, -_WIDEST, _WIDEST, _TOLERANCE)

    def low(self, alpha: float) -> float:
        """Where M falls below 1/alpha, as a ratio; 0 when it never is above on this side."""
        if not self.hits:
            return 0.0
        if not self._agrees(alpha):
            return min(part.low(alpha) for part in self._parts())
        edge = self._edge(-_WIDEST, alpha)
        return math.exp(edge) if edge > -_WIDEST else 0.0

    def high(self, alpha: float) -> float | None:
        """Where M rises above 1/alpha again; None when it does not."""
        if self.hits == self.events:
            return None
        if not self._agrees(alpha):
            highs = [part.high(alpha) for part in self._parts()]
            return None if None in highs else max(high for high in highs if high is not None)
        edge = self._edge(_WIDEST, alpha)
        return math.exp(edge) if edge < _WIDEST else None

    def _agrees(self, alpha: float) -> bool:
        """Whether some ratio explains all segments. Where none does, the ratio is not the same in all of them,
        and what is known is only that it was somewhere between theirs."""
        if len(self._cells) < 2 or not 0 < self.hits < self.events:
            return True
        return self.log_e(self.estimate) < -math.log(alpha)

    def _parts(self) -> list[_Evidence]:
        return [_Evidence([cell]) for cell in self._cells]

    def _edge(self, start: float, alpha: float) -> float:
        """Newton's method from far outside. log M is convex in the log ratio, so it comes nearer without ever
        stepping inside: where it stops, the interval is at most a hair too wide."""
        limit, at = -math.log(alpha), start
        for _ in range(_MOST_STEPS):
            above = self.log_e(at) - limit
            slope = self._surplus(at)
            if above <= 0.0 or slope * start <= 0.0:
                break
            step = above / slope
            at -= step
            if abs(step) < _TOLERANCE:
                break
        return at


class _Question:
    """One guard, asked of the segments up to now."""

    def __init__(
        self,
        name: GuardName,
        guard: Guard,
        stage: Stage,
        alphas: tuple[float, float],
        segments: Sequence[Segment],
    ) -> None:
        self.name, self.guard, self.stage = name, guard, stage
        self.alpha, self.soak_alpha = alphas
        shown: Stage = "shadow" if stage == "shadow" else "canary"
        self.total = _sum(segments, name, shown)
        self.soaked = _sum(segments, name, "soak")
        self.shown = _Evidence(_cells(segments, name, shown))
        # Pairs are evidence of the same kind, but their ratio is another one: it leaves out what failed twice.
        paired = _cells(segments, name, "shadow")
        self.all = (
            self.shown
            if not paired or shown == "shadow"
            else _Evidence([*paired, *self.shown_cells(segments)])
        )

    def shown_cells(self, segments: Sequence[Segment]) -> list[_Cell]:
        return _cells(segments, self.name, "canary")

    def answer(self) -> GuardVerdict:
        estimate = self.shown.estimate
        ratio = math.exp(estimate) if estimate < _WIDEST else None
        low = self.shown.low(self.alpha) if self.shown.events else None
        high = self.shown.high(self.alpha)
        log_e = self.all.log_e(0.0)
        compared = self.stage == "soak" and self.name != "labels"
        outcome: Literal["fail", "pass", "continue"] = "pass"
        if self._worse(log_e, estimate) or (compared and self._soaks_worse()):
            outcome = "fail"
        elif self.stage == "canary" and not self._proven(high):
            outcome = "continue"
        seen = self.soaked if compared else self.total
        n_canary, bad_canary = seen.n_canary, seen.bad_canary
        return GuardVerdict(
            guard=self.name,
            outcome=outcome,
            e_value_log10=max(-_MOST_LOG10, min(_MOST_LOG10, log_e / math.log(10.0))),
            ratio=ratio,
            low=low,
            high=high,
            n_events=self.all.events + (self.soaked.bad_canary if compared else 0),
            rate_canary=bad_canary / n_canary if n_canary else None,
            rate_control=_share(self.total.bad_control, self.total.n_control),
            detail=self._detail(ratio, low, high, log_e),
        )

    def _worse(self, log_e: float, estimate: float) -> bool:
        """Harm that is proven, that is harm to this side, and that is worth an abort."""
        if log_e < -math.log(self.alpha) or self.all.events < self.guard.min_events:
            return False
        if not (self.all.estimate > 0.0 and estimate > 0.0):
            return False
        if estimate < math.inf:
            return estimate > math.log1p(self.guard.floor)
        return _rate(self.total.bad_canary, self.total.n_canary) > self.guard.absolute

    def _proven(self, high: float | None) -> bool:
        """Whether the step may be left as far as this guard is concerned.

        The second way. With r the ratio and p the rate under the new version the difference is p (1 - 1/r), so
        upper bounds of both bound it. Each takes half of alpha. A difference of the two pooled rates would be
        wrong when rates drift while weights change.
        """
        margin = self.guard.margin
        if margin is None or (high is not None and high < 1.0 + margin):
            return True
        rate = _rate_bound(self.total.bad_canary, self.total.n_canary, self.alpha / 2, 1.0)
        wider = self.shown.high(self.alpha / 2)
        return rate * (1.0 if wider is None else 1.0 - 1.0 / max(wider, 1.0)) < self.guard.absolute

    def _soaks_worse(self) -> bool:
        """In soak nobody is left to compare with: the soak's rate against the rate before, both with their bounds."""
        soaked, before = self.soaked, self.total
        if soaked.bad_canary + before.bad_control < self.guard.min_events:
            return False
        least = _rate_bound(soaked.bad_canary, soaked.n_canary, self.soak_alpha / 2, 0.0)
        most = _rate_bound(before.bad_control, before.n_control, self.soak_alpha / 2, 1.0)
        return least > (1.0 + self.guard.floor) * most + self.guard.absolute

    def _detail(self, ratio: float | None, low: float | None, high: float | None, log_e: float) -> str:
        total = self.total
        if self.stage == "soak" and self.name != "labels":
            return (
                f"{_of(self.soaked.bad_canary, self.soaked.n_canary)} bad in soak, "
                f"{_of(total.bad_control, total.n_control)} under the version before it"
            )
        if self.stage == "shadow":
            seen = (
                f"of {total.n_canary:,} pairs only the new version failed in {total.bad_canary:,}, "
                f"only the live one in {total.bad_control:,}"
            )
        else:
            seen = (
                f"{_of(total.bad_canary, total.n_canary)} bad under the new version, "
                f"{_of(total.bad_control, total.n_control)} under the one before"
            )
        bounds = "ratio not known"
        if low is not None:
            estimate = "" if ratio is None else f"{_figure(ratio)}, "
            bounds = f"ratio {estimate}{_figure(low)} to {'any' if high is None else _figure(high)}"
        return f"{seen}; {bounds}; e-value {_figure(math.exp(min(log_e, 600.0)))}, {_figure(1 / self.alpha)} is proof"


def _check(segment: Segment, policy: RolloutPolicy) -> None:
    step = segment.step
    if not 0 <= step < len(policy.steps) or segment.stage != policy.steps[step].stage:
        raise _impossible(step, f"the rollout has no such {segment.stage} step")
    counts = [
        (0, n) for n in (segment.n_canary, segment.n_control, segment.again_canary, segment.again_control)
    ]
    counts += [
        (segment.failed_canary, segment.asked_canary),
        (segment.failed_control, segment.asked_control),
    ]
    for tally in segment.guards.values():
        counts += [(tally.bad_canary, tally.n_canary), (tally.bad_control, tally.n_control)]
    if not all(0 <= part <= whole <= _MOST_UNITS for part, whole in counts):
        raise _impossible(step, "a count is negative, or larger than the whole")
    if not 0 <= segment.weight <= N_SLOTS:
        raise _impossible(step, f"the weight is {segment.weight} slots of {N_SLOTS}")


def _impossible(step: int, why: str) -> BadLook:
    return BadLook(
        f"the counts of step {step + 1} cannot be: {why}",
        remedy="report what delivery.tally counts from the capture files",
        step=step,
    )


def _outcome(
    segments: Sequence[Segment],
    policy: RolloutPolicy,
    now: RolloutStep,
    guards: tuple[GuardVerdict, ...],
    n_canary: int,
) -> tuple[Literal["pass", "fail", "continue", "no_data", "void"], str]:
    # What is plainly broken goes back whatever the routing; statistics that rest on the routing come after it.
    broken = _broken([segment for segment in segments if policy.steps[segment.step] is now], policy)
    if broken:
        return "fail", broken
    mismatch = _mismatch(segments, policy)
    if mismatch:
        return "void", mismatch
    failed = [guard for guard in guards if guard.outcome == "fail"]
    if failed:
        return "fail", "; ".join(f"harm by {guard.guard}: {guard.detail}" for guard in failed)
    unit = "pairs of answers" if now.stage == "shadow" else "units of the new version"
    if n_canary == 0:
        return "no_data", f"no {unit} in this step yet; {now.min_units:,} are asked for"
    if n_canary < now.min_units:
        return "continue", f"{n_canary:,} of {now.min_units:,} {unit} seen in this step"
    seen = f"{n_canary:,} {unit} seen in this step"
    waiting = [guard for guard in guards if guard.outcome == "continue"]
    if waiting:
        lacks = ", ".join(f"{guard.guard} ({_at_most(guard)})" for guard in waiting)
        return "continue", f"{seen}, and no proof yet for {lacks}"
    return "pass", ", ".join((seen, *(f"{guard.guard} {_at_most(guard)}" for guard in guards)))


def _at_most(guard: GuardVerdict) -> str:
    if guard.rate_canary is None:
        return "not seen"
    estimate = f"{_percent(guard.rate_canary)} bad"
    return (
        estimate if guard.high is None else f"{estimate}, at most {_figure(guard.high)} times the rate before"
    )


def _broken(here: Sequence[Segment], policy: RolloutPolicy) -> str:
    """What needs no statistics: most requests of the last minutes fail under the new version, and did not before.

    Units vote once, so a version that breaks after its callers have voted would go on without it.
    """
    if "errors" not in policy.guards or not here:
        return ""
    latest = here[-1]
    asked, failed = latest.asked_canary, latest.failed_canary
    before = latest.failed_control / latest.asked_control if latest.asked_control else 0.0
    if failed < BROKEN_FROM or failed < BROKEN_SHARE * asked or before > BROKEN_SHARE / 5:
        return ""
    return f"harm by errors: {failed:,} of the last {asked:,} requests failed under the new version"


def _mismatch(segments: Sequence[Segment], policy: RolloutPolicy) -> str:
    """Why the routing cannot be what the plan says; empty when it can.

    The test is made per step, so that one step gone wrong is not drowned in the good ones before it; the
    alpha is divided among them.
    """
    n_steps = sum(step.stage == "canary" for step in policy.steps)
    for number in sorted({segment.step for segment in segments if segment.stage == "canary"}):
        own = [segment for segment in segments if segment.step == number and segment.stage == "canary"]
        cells = [_Cell(s.n_canary, s.n_canary + s.n_control, s.weight / N_SLOTS) for s in own]
        if _Evidence(cells).log_e(0.0) >= math.log(max(n_steps, 1) / MISMATCH_ALPHA):
            n_canary, n_units = sum(cell.hits for cell in cells), sum(cell.events for cell in cells)
            expected = sum(cell.share * cell.events for cell in cells)
            return (
                f"the routing of step {number + 1} is not what the plan says: {n_canary:,} of {n_units:,} units "
                f"met the new version where {expected:,.0f} were to be expected, so its counts prove nothing"
            )
    return ""


def _alphas(policy: RolloutPolicy) -> dict[GuardName, tuple[float, float]]:
    """Per guard: the alpha of the canary and, where one follows, of the soak."""
    soaks = any(step.stage == "soak" for step in policy.steps)
    alphas: dict[GuardName, tuple[float, float]] = {}
    for name in policy.guards:
        alpha = policy.alpha / len(policy.guards)
        # Labels of other days are about other days: a soak says nothing about them without a control.
        kept = SOAK_SHARE * alpha if soaks and name != "labels" else 0.0
        alphas[name] = (alpha - kept, kept)
    return alphas


def _judged(policy: RolloutPolicy, stage: Stage) -> list[GuardName]:
    """Differences of answers are what a new version is for, so a shadow is asked for its errors only."""
    return [name for name in policy.guards if stage != "shadow" or name == "errors"]


def _cells(segments: Iterable[Segment], guard: GuardName, stage: Stage) -> list[_Cell]:
    cells = []
    for segment in segments:
        tally = segment.guards.get(guard)
        if segment.stage == stage and tally is not None:
            share = 0.5 if stage == "shadow" else segment.weight / N_SLOTS
            cells.append(_Cell(tally.bad_canary, tally.bad_canary + tally.bad_control, share))
    return cells


def _sum(segments: Iterable[Segment], guard: GuardName, stage: Stage) -> Tally:
    own = [s.guards[guard] for s in segments if s.stage == stage and guard in s.guards]
    return Tally(
        n_canary=sum(tally.n_canary for tally in own),
        n_control=sum(tally.n_control for tally in own),
        bad_canary=sum(tally.bad_canary for tally in own),
        bad_control=sum(tally.bad_control for tally in own),
    )


def _edge(inside: Callable[[float], bool], start: float, end: float, tolerance: float) -> float:
    """The first point outside on the way from `start`, which is inside, to `end`; `end` itself if need be."""
    while abs(end - start) > tolerance:
        middle = (start + end) / 2
        if inside(middle):
            start = middle
        else:
            end = middle
    return end


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _rate(n_bad: int, n: int) -> float:
    return n_bad / n if n else 0.0


def _share(n_bad: int, n: int) -> float | None:
    return n_bad / n if n else None


def _of(n_bad: int, n: int) -> str:
    return f"{n_bad:,} of {n:,} ({_percent(n_bad / n)})" if n else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if 999.5 <= value < 1e6 else f"{value:.3g}"
