"""The trials of a study compared: its front, its best trial, and how far it is, all by the study's goals."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Self

import numpy as np

from vittle.objectives.budget import Budget, LatencyBudget
from vittle.objectives.fronts import front as fronts
from vittle.objectives.fronts import hypervolume
from vittle.objectives.fronts.choice import Chooser, Contender, choose, eligible
from vittle.objectives.fronts.early_stopping import right, same_images
from vittle.objectives.goals import Asked, Goals, Measured, sign
from vittle.objectives.measurement import NORMAL_95, Measurement, Phase, shown
from vittle.objectives.quality import paired
from vittle.objectives.quality.expectation import expected
from vittle.spaces.schedule import Schedule
from vittle.storage.findings import BestWithin, Choice, Confirmation, Disturbance, Growth, Standing, Trade
from vittle.storage.records import Trial, baseline_trial, confirmation_gap

PHASES: tuple[Phase, ...] = ("confirmation", "search")  # in which answers are compared, the first that there is
MANY = 1 / 3  # of a front's costs, measured under disturbance, for which the study says so


class Ranking(tuple[Trial, ...]):
    """The trials of a study, compared by its goals once, however often it is asked. Where a budget is None, all trials fit."""

    goals: Goals

    @classmethod
    def of(cls, trials: Iterable[Trial], goals: Goals) -> Self:
        """The trials, to be asked about; a ranking by the same goals is returned as it is."""
        if isinstance(trials, cls) and trials.goals == goals:
            return trials
        made = cls(trials)
        made.goals = goals
        return made

    @cached_property
    def _fronts(self) -> dict[Budget | None, list[Trial]]:
        return {}

    @cached_property
    def baseline(self) -> Trial | None:
        """The trial of the baseline, once it is complete."""
        return baseline_trial(self)

    @cached_property
    def expected(self) -> dict[int, Measured]:
        """What each complete trial is ranked by, by its number: as measured, with the quality that follows from all of it.

        See `vittle.objectives.quality.expectation`. Without a baseline to compare with it is the measured quality.
        """
        complete = [trial for trial in self if trial.state == "complete"]
        judged: list[Measured] = [trial.judged for trial in complete]
        if self.baseline is not None:
            judged = expected(judged, self.baseline.judged)
        return {trial.number: one for trial, one in zip(complete, judged, strict=True)}

    @property
    def standing(self) -> Standing:
        """How far the study is."""
        finished = sum(trial.ended and not trial.is_baseline for trial in self)
        return Standing(finished, self.front(), self.best())

    @property
    def unconfirmed(self) -> list[Trial]:
        """The baseline and the front within the goals' budget, as far as they were not measured again yet."""
        wanted = [self.baseline, *self.front(self.goals.budget)]
        return [trial for trial in wanted if trial is not None and not trial.confirmed]

    @property
    def confirmation(self) -> Confirmation:
        """How far the front has been measured again."""
        done, left = sum(trial.confirmed for trial in self), len(self.unconfirmed)
        gap = confirmation_gap(self)
        return Confirmation(done, done + left, gap * left if left and gap is not None else None)

    @property
    def disturbance(self) -> Disturbance | None:
        """What disturbed the costs of the baseline and the front, where it was `MANY` of them; None where few were."""
        charted, points = (
            self.goals.charted,
            {trial.number: trial for trial in (self.baseline, *self.front()) if trial is not None},
        )
        protocols = [trial.judged[charted].protocol for trial in points.values() if charted in trial.judged]
        measured = [protocol for protocol in protocols if protocol.get("source") != "predicted"]
        reasons = [str(protocol["noisy"]) for protocol in measured if protocol.get("noisy")]
        if not reasons or len(reasons) < MANY * len(measured):
            return None
        return Disturbance(len(reasons), len(measured), reasons[-1])

    def front(self, budget: Budget | None = None) -> list[Trial]:
        """The complete trials that none beats in expected quality and cost, cheapest first; of those within a budget."""
        if budget not in self._fronts:
            within = [one for one in self if one.state == "complete" and (budget is None or self.within(one, budget))]
            places = fronts.front([self.expected[trial.number] for trial in within], self.goals)
            self._fronts[budget] = [within[place] for place in places]
        return list(self._fronts[budget])

    def comparable(self, budget: Budget) -> Budget:
        """A budget in the unit that trials are compared in, once the baseline tells it: see `LatencyBudget.comparable`."""
        return budget if self.baseline is None else budget.comparable(self.baseline.judged)

    def covering(self, budget: Budget, trial: Trial) -> Budget:
        """The smallest budget of that kind, rounded up, that a trial holds."""
        return budget.covering(trial.judged, None if self.baseline is None else self.baseline.judged)

    def holds(self, trial: Trial, budget: Budget) -> bool:
        """Whether a trial is within a budget beyond the noise."""
        budget = self.comparable(budget)
        return budget.objective in trial.judged and budget.holds(trial.judged)

    def within(self, trial: Trial, budget: Budget) -> bool:
        """Whether a trial fits: beyond the noise once it is confirmed, as measured until then."""
        if trial.confirmed:
            return self.holds(trial, budget)
        budget = self.comparable(budget)
        return budget.objective in trial.judged and budget.excess(trial.judged) <= 0

    def choice(self, asked: Asked | None = None) -> Choice | None:
        """What is recommended, by the one rule of `vittle.objectives.fronts.choice`; None where nothing is.

        Args:
            asked: what for; what the study was launched for where not given.
        """
        asked = asked or self.goals.asked
        if asked not in self._choices:
            holding = (one for one in self._contenders(asked) if self.holds(self._numbered[one.number], asked.budget))
            chosen = choose(holding, asked.tolerance, self._least(asked))
            self._choices[asked] = None if chosen is None else Choice(*(self._numbered[number] for number in chosen))
        return self._choices[asked]

    def best(self, budget: Budget | None = None) -> Trial | None:
        """The recommended trial for a budget, by what else was asked of the study; its own budget where not given."""
        found = self.choice(self.goals.asking(budget))
        return None if found is None else found.recommended

    def best_by_budget(self, objective: str) -> list[BestWithin]:
        """What is recommended for every budget in a cost, the smallest budget first: what `choice` finds, in one go."""
        asked = self.goals.asked
        known = [(self._limit(one.number, objective), one) for one in self._contenders(asked)]
        return _steps(Chooser(asked.tolerance, self._least(asked)), known)

    def best_by_loss(self) -> list[BestWithin]:
        """What is recommended for every loss of quality within the study's budget, the least loss first.

        As `best_by_budget`, the other way round: in steps in which a loss is shown.
        """
        asked = self.goals.asking(most_lost=0.0)
        least = self._least(asked)
        if least is None or self.baseline is None:
            return []
        holding = (one for one in self._contenders(asked) if self.holds(self._numbered[one.number], asked.budget))
        lost = [(max(0.0, round(least - one.quality, 9)), one) for one in eligible(holding)]
        return _steps(Chooser(math.inf), lost)

    def trade(self, choice: Choice) -> Trade | None:
        """What a recommended trial is in comparison with the one of the best quality; None where it is that one."""
        recommended, finest = choice
        if recommended.number == finest.number:
            return None
        quality, charted = self.goals.quality, self.goals.charted
        costs = [trial.judged[charted].value for trial in choice]
        saved = 1 - costs[0] / costs[1] if costs[1] > 0 else 0.0
        ranked = [self.goals.upward(shown(self.expected[trial.number][quality])) for trial in choice]
        trade = Trade(choice, saved, max(0.0, ranked[1] - ranked[0]))
        for phase in PHASES:
            known = [one[quality] for trial in choice if quality in (one := trial.measurements.get(phase, {}))]
            answers = [found for one in known if (found := right(one)) is not None]
            if len(answers) == len(choice):
                seen = min(len(one) for one in answers)
                return trade._replace(phase=phase, samples=seen, more=paired.difference(*(one[:seen] for one in answers)))
        return trade

    @cached_property
    def _choices(self) -> dict[Asked, Choice | None]:
        return {}

    @cached_property
    def _numbered(self) -> dict[int, Trial]:
        return {trial.number: trial for trial in self}

    def _contenders(self, asked: Asked) -> list[Contender]:
        """The complete trials as the rule has them: as shown, or exactly where nothing may be lost for speed."""
        return self._exact if asked.tolerance == 0 and asked.most_lost is None else self._shown

    @cached_property
    def _exact(self) -> list[Contender]:
        return [self._contender(trial, attrgetter("value")) for trial in self if trial.state == "complete"]

    @cached_property
    def _shown(self) -> list[Contender]:
        """With what is not shown behind what is."""
        exact = {one.number: one.order for one in self._exact}
        rough = [self._contender(trial, shown) for trial in self if trial.state == "complete"]
        return [one._replace(order=one.order + exact[one.number]) for one in rough]

    def _contender(self, trial: Trial, read: Callable[[Measurement], float]) -> Contender:
        goals, ranked = self.goals, self.expected[trial.number]
        charted, *others = goals.costs
        columns = [
            ranked.get(charted),
            ranked.get(goals.quality),
            trial.measurements.get("confirmation", {}).get(goals.quality),
            *(trial.judged.get(name) for name in (goals.quality, *others, *goals.beside)),
        ]
        order = tuple(math.inf if one is None else sign(one.objective) * read(one) for one in columns)
        return Contender(order, trial.number, -order[1], trial.confirmed)

    def lost(self, trial: Trial) -> float | None:
        """How much of the baseline's expected quality a complete trial loses, as shown; None where nobody knows."""
        least = self._least(self.goals.asking(most_lost=0.0))
        known = next((one.quality for one in self._shown if one.number == trial.number), None)
        return None if least is None or known is None or math.isinf(least) else max(0.0, round(least - known, 9))

    def _least(self, asked: Asked) -> float | None:
        """The least quality that is worth having, such that more is better; None where the tolerance decides."""
        if asked.most_lost is None:
            return None
        if self.baseline is None:
            return math.inf  # nobody knows yet what is lost
        return self.goals.upward(shown(self.expected[self.baseline.number][self.goals.quality])) - asked.most_lost

    def _limit(self, number: int, objective: str) -> float | None:
        """The smallest budget in a cost that a trial holds; in milliseconds what its share of the backbone's time is."""
        judged = self._numbered[number].judged
        share = judged.get("latency_ratio")
        if objective == "latency_ms" and share is not None and self.baseline is not None:
            converted = LatencyBudget(share.high, relative=True).converted(self.baseline.judged)
            return None if converted is None else converted.limit
        return judged[objective].high if objective in judged else None

    def tied_with(self, chosen: Trial, budget: Budget | None = None) -> set[int]:
        """Numbers of the trials on the front within a budget that differ from a complete one by no more than noise."""
        best = self.expected[chosen.number]
        others = (trial.number for trial in self.front(budget or self.goals.budget) if trial.number != chosen.number)
        return {number for number in others if fronts.tied(self.expected[number], best, self.goals)}

    def tied_with_best(self) -> set[int]:
        """The same of the recommended one."""
        best = self.best()
        return set() if best is None else self.tied_with(best)

    def knee(self) -> Trial | None:
        """Where the front bends most: from there on, quality costs more and more. None of a front without a bend."""
        points = self.front()
        found = fronts.knee([self.expected[trial.number] for trial in points], self.goals)
        return None if found is None else points[found]

    def nearest(self) -> Trial | None:
        """The cheapest trial that was measured at all, whatever its quality, the baseline's aside; None where none was."""
        charted = self.goals.charted
        measured = [trial for trial in self if charted in trial.judged and not trial.is_baseline]
        return min(measured, key=lambda trial: trial.judged[charted].high, default=None)

    def saves(self, trial: Trial) -> bool:
        """Whether a trial costs less than the baseline, beyond the noise."""
        charted, baseline = self.goals.charted, self.baseline
        return baseline is None or trial.judged[charted].high < self.goals.dearest(baseline.judged)

    def fastest(self) -> Trial | None:
        """The point of the front that costs least, as the tables show it, the baseline aside; without one the nearest trial."""
        points = [trial for trial in self.front() if not trial.is_baseline]
        return min(points, key=lambda trial: trial.judged[self.goals.charted].value, default=self.nearest())

    def growth(self) -> Growth | None:
        """How the front within the study's budget has grown, by what the search measured and what that lets expect.

        None before the quality of the baseline and of one more trial has been looked at.
        """
        seen = [trial for trial in self if trial.state in ("complete", "stopped") and not trial.is_baseline]
        if self.baseline is None or not seen:
            return None
        first = self.baseline.measurements["search"]
        worst = hypervolume.ReferencePoint.of(self.goals, first)
        measured: list[Measured] = [trial.measurements["search"] if trial.state == "complete" else {} for trial in seen]
        volumes = hypervolume.volumes(expected(measured, first), worst, self.goals)  # a trial that was stopped adds nothing
        spread = hypervolume.spread(measured, worst, self.goals, baseline=right(first[self.goals.quality]))
        return Growth(volumes, spread)

    def unpaid(self, searched: Sequence[str]) -> list[str]:
        """Of the reductions that were searched those that no trial on the front within the budget has; none before a front."""
        front = [trial.candidate for trial in self.front(self.goals.budget) if not trial.is_baseline]
        used = {part.name for candidate in front if isinstance(candidate, Schedule) for part in candidate.reductions}
        return [name for name in searched if used and name not in used]

    def optimism(self) -> paired.Interval | None:
        """How much more the front loses on held-out images than on those that it was chosen by: the winner's curse.

        A share, the mean over the confirmed points of the front within the study's budget, with its 95 % interval; the two sets
        of images are independent of each other. None where nothing is confirmed, or nobody wrote down which images were
        answered rightly.
        """
        baseline = self.baseline
        points = [trial for trial in self.front(self.goals.budget) if trial.confirmed and not trial.is_baseline]
        if baseline is None or not baseline.confirmed or not points:
            return None
        held_out, searched = (_lost(baseline, points, phase, self.goals.quality) for phase in ("confirmation", "search"))
        if held_out is None or searched is None:
            return None
        value = held_out.value - searched.value
        below = np.hypot(held_out.value - held_out.low, searched.high - searched.value)
        above = np.hypot(held_out.high - held_out.value, searched.value - searched.low)
        return paired.Interval(value, value - float(below), value + float(above))


def _lost(baseline: Trial, points: Sequence[Trial], phase: Phase, quality: str) -> paired.Interval | None:
    """What points lose against the baseline in a phase on average.

    Each image counts with the mean over the points, which are wrong about the same images more often than not; one win and one
    loss are added to them, as in `paired.difference`, whose interval this is for a single point.
    """
    measured = [trial.measurements[phase][quality] for trial in (baseline, *points)]
    answers = [right(one) for one in measured]
    known = [one.astype(np.float64) for one in answers if one is not None]
    if len(known) < len(answers) or not same_images(*measured):
        return None
    lost = known[0] - np.mean(known[1:], axis=0)  # (n,)
    added = np.concatenate([lost, [1.0, -1.0]])
    centre, half = float(added.mean()), NORMAL_95 * float(added.std()) / np.sqrt(len(added))
    return paired.Interval(float(lost.mean()), centre - half, centre + half)


def _steps(chooser: Chooser, contenders: Iterable[tuple[float | None, Contender]]) -> list[BestWithin]:
    """What a chooser finds as each contender is let in from a limit on, where that changes; None is never let in."""
    found: list[BestWithin] = []
    for limit, one in sorted((pair for pair in contenders if pair[0] is not None), key=itemgetter(0)):
        chooser.add(one)
        if chooser.chosen is None or limit is None:
            continue
        if found and found[-1].limit == limit:  # of equal limits the last one counts
            found.pop()
        if not found or found[-1][1:] != chooser.chosen:
            found.append(BestWithin(limit, *chooser.chosen))
    return found
