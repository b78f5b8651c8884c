"""Tables of what mattered for the command line: which parameters, and what single blocks can spare."""

import math

from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.terminal import tables
from vittle.dashboards.terminal.console import escape
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.parameter_importance import Importance

DECADES = 4  # powers of ten that the bars of losses span
MEASURES = {"ped-anova": "best", "fanova": "all"}
COLORS = ("blue", "yellow")  # of quality and cost


def importance_table(importance: Importance) -> Table:
    """One line per parameter, most important first; under the shares that blocks keep, one for each block."""
    colors = dict(zip(importance.shares[next(iter(MEASURES))], COLORS, strict=True))
    columns = [(method, objective) for objective in colors for method in MEASURES]
    heads = [f"{objective.removesuffix('_ratio')}: {MEASURES[method]}" for method, objective in columns]
    everywhere = [head for head in heads if head.endswith(MEASURES["fanova"])]
    table = tables.table("parameter", *heads, gives_way=everywhere)
    grouped = [importance.grouped(*column) for column in columns]
    blocks = [text.over_depth(importance.shares[method][objective]) for method, objective in columns]
    most = max((share for shares in grouped for share in shares.values()), default=0.0) or 1.0

    def cell(share: float, objective: str) -> Text:
        drawn = tables.bar(share / most) if share else ""
        return Text.assemble(f"{share:>4.0%} ", (f"{drawn:{tables.BAR}}", colors[objective]))

    for name in grouped[0]:
        row = [cell(shares[name], objective) for shares, (_, objective) in zip(grouped, columns, strict=True)]
        table.add_row(name, *row, style="bold")
        for block in range(len(blocks[0].get(name, []))):
            parts = [cell(shares[name][block], objective) for shares, (_, objective) in zip(blocks, columns, strict=True)]
            table.add_row(f"  block {block + 1}", *parts)
    table.caption = (
        f"best: what tells the best trials from the rest (PED-ANOVA); all: what explains the variance over the whole space "
        f"(fANOVA); each sums to 100%, from {importance.trials} trials"
    )
    return table


def sensitivity_table(sensitivity: Sensitivity, reduction: str) -> Table:
    """One line per block: the loss where this block alone is reduced, at each strength."""
    blocks = sensitivity.points[reduction]
    table = tables.table("block>", *(f"{reduction} {text.percent(point.strength, 0)}" for point in blocks[0]))
    most = max(point.loss for points in blocks for point in points) or 1.0
    for block, points in enumerate(blocks, start=1):
        row = [
            Text.assemble(
                f"{point.loss:<7.2g} ",
                (f"{f'±{(point.high - point.low) / 2:.1g}':<7} ", "dim"),
                (tables.bar(_length(point.loss, most)), "magenta"),
            )
            for point in points
        ]
        table.add_row(f"{block}", *row)
    table.caption = (
        f"nats of divergence from the backbone's answers where one block alone removes that share of its tokens; bars span "
        f"{DECADES} powers of ten; ± is 95%, {sensitivity.images} images of {escape(sensitivity.data)}"
    )
    return table


def _length(loss: float, most: float) -> float:
    return max(0.0, 1 + math.log10(loss / most) / DECADES) if loss > 0 else 0.0
