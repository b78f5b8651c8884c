"""Record what real schedules do to a backbone, for studies that are simulated: `tests/support/evaluations.npz`.

    python benchmarks/record.py --photographs photographs.npz --backbone photographs.safetensors

A simulated study looks its outcomes up in place of running a model (`tests/simulated.py`), so samplers, rungs and limits are
tested on real answers to real images in seconds. The schedules are plans, starting points, draws, and neighbours of those; the
backbone is that of `photographs.py`, because the digits are too easy for a schedule to lose much.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from problem import Source, load
from vittle.objectives.backbones.sensitivity import Sensitivity, measure
from vittle.objectives.evaluator import Evaluator
from vittle.objectives.fronts.early_stopping import right
from vittle.objectives.quality.paired import unpack_divergence
from vittle.search.planning import plans
from vittle.spaces import Schedule, Space
from vittle.spaces.reduction import Choice, Parameter, Values

IMAGES = 1500  # to search on, and as many to confirm on
DRAWN, NEIGHBOURS = 60, 110
STEP = 0.06  # of a number's range, between neighbours
SWITCHED = 0.1  # chance that a neighbour differs in a choice


def schedules(space: Space, sensitivity: Sensitivity, rng: np.random.Generator) -> list[Schedule]:
    """Distinct schedules: plans, what is published, draws, and neighbours of all of those."""
    starts = [space.encode(plan) for plan in plans(space, sensitivity, list(np.linspace(0.12, 0.95, 20)))]
    starts += [start.values for start in space.starting_points([0.2, 0.35, 0.5, 0.65, 0.85])]
    starts += [space.draw(rng) for _ in range(DRAWN)]
    near = [neighbour(space, starts[int(rng.integers(len(starts)))], rng) for _ in range(NEIGHBOURS)]
    found = map(space.schedule, [*starts, *near])
    return list({schedule.id: schedule for schedule in found if schedule.reductions}.values())


def neighbour(space: Space, values: Values, rng: np.random.Generator) -> Values:
    """Values a small step away."""
    moved = dict(values)
    for one in space.parameters:
        if isinstance(one, Parameter) and not one.integer:
            moved[one.name] = float(np.clip(float(values[one.name]) + rng.normal(0, STEP), one.low, one.high))
        elif isinstance(one, Choice) and rng.random() < SWITCHED:
            moved[one.name] = str(rng.choice(one.options))
    return moved


def main() -> None:
    """Evaluate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="see photographs.py")
    parser.add_argument("--backbone", type=Path, required=True, help="weights that photographs.py has trained")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "tests" / "support" / "evaluations.npz")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    problem = load(Source("photographs", asked.photographs, asked.backbone, limit=IMAGES))
    backbone, splits, space = problem.backbone, problem.splits, problem.space
    evaluator = Evaluator(backbone, splits, device="cpu", batch_size=64)
    evaluator.know(evaluator.record(2**32))
    sensitivity = measure(
        evaluator.divergence, space.context, space.reductions, fingerprint=backbone.fingerprint, data="photographs"
    )
    chosen = [Schedule(), *schedules(space, sensitivity, np.random.default_rng(0))]
    answers, apart, each, held_out = [], [], [], []
    for at, schedule in enumerate(chosen):
        measured = evaluator.judge(schedule, "search")
        answers.append(np.packbits(right(measured["accuracy"])))
        apart.append(measured["divergence"].value)
        each.append(unpack_divergence(measured["divergence"].protocol["each"]))
        confirmed = evaluator.judge(schedule, "confirmation")
        held_out.append(np.packbits(right(confirmed["accuracy"])))
        print(f"{at + 1} of {len(chosen)}: {measured['accuracy'].value:.4f}, {confirmed['accuracy'].value:.4f}", flush=True)
    np.savez_compressed(
        asked.output,
        schedules=np.array([schedule.to_json() for schedule in chosen]),
        images=np.array([len(splits.search), len(splits.held_out)]),
        right=np.stack(answers),
        held_out=np.stack(held_out),
        divergence=np.array(apart, np.float32),
        apart=np.stack(each),
        sensitivity=np.array(json.dumps(sensitivity.to_dict())),
    )


if __name__ == "__main__":
    main()
