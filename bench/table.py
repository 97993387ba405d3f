"""Figures of a run as rows, and rows as text: one line per side of each point, ours first."""
import statistics


def medians(rounds):
    """{metric: median} over the rounds of one side; notes are kept as they are."""
    out = {}
    for metric in rounds[0]:
        values = [r[metric] for r in rounds if metric in r]
        out[metric] = statistics.median(values) if not isinstance(values[0], str) else values[0]
    return out


def make_row(point, rounds, problems):
    """`rounds`: {side: [measurement]}, `problems`: {side: text} for those that were skipped or failed."""
    if point.derive:
        for number in range(max(map(len, rounds.values()))):
            point.derive({name: done[number] for name, done in rounds.items() if number < len(done)})
    sides = {name: medians(done) for name, done in rounds.items() if done}
    row = {"workload": point.name, "metric": point.metric, "unit": point.unit, "judged": point.judged(), "order": list(rounds), "sides": {},
           "required": [], "problems": problems}
    for name, figures in sides.items():
        values = [r[point.metric] for r in rounds[name]]
        row["sides"][name] = {"median": figures, "min": min(values), "max": max(values), "rounds": rounds[name]}
        if name != "ours" and "ours" in sides and figures[point.metric]:
            row["sides"][name]["ours_to_this"] = sides["ours"][point.metric] / figures[point.metric]
    for required in point.required:
        figure, holds = required.judge(sides) or (None, None)
        row["required"].append({"text": str(required), "figure": figure, "holds": holds})
    return row


def summary(rows):
    """One line: how many of the required figures hold, and which do not. Empty if none is required."""
    wanted = [(f"{row['workload']} {required['text']}", required["holds"]) for row in rows for required in row["required"]]
    if not wanted:
        return ""
    line = f"{len(wanted)} {'figure is' if len(wanted) == 1 else 'figures are'} wanted: {sum(holds is True for _, holds in wanted)} hold"
    for what, state in (("missed", False), ("not measured", None)):
        names = [name for name, holds in wanted if holds is state]
        line += f"; {what}: {', '.join(names)}" if names else ""
    return line


def number(value):
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def verdict(required):
    state = {True: "ok", False: "MISSED", None: "not measured"}[required["holds"]]
    figure = "" if required["figure"] is None else f": {number(required['figure'])}"
    return f"{required['text']}{figure} {state}"


COLUMNS = ("workload", "unit", "side", "median", "min..max", "ours/this", "cycles", "more")
SHOWN = ("cycles", "note")


def lines(row):
    """The row's cells, one list per side."""
    out = []
    for name in row["order"]:
        cells = side_cells(row, name) if name in row["sides"] else problem_cells(row["problems"].get(name, "not measured"))
        first = [row["workload"], row["unit"]] if not out else ["", ""]
        out.append([*first, name, *cells])
    return out


def side_cells(row, name):
    side = row["sides"][name]
    median = side["median"]
    more = [f"{key} {number(value)}" for key, value in median.items() if key not in (*SHOWN, row["metric"])]
    if "note" in median:
        more.insert(0, f"({median['note']})")
    if name == "ours":
        more = [verdict(required) for required in row["required"]] + more
    return [number(median[row["metric"]]), f"{number(side['min'])}..{number(side['max'])}",
            number(side["ours_to_this"]) if "ours_to_this" in side else "", number(median["cycles"]) if "cycles" in median else "",
            ", ".join(more)]


def problem_cells(problem):
    return ["-", "", "", "", problem.splitlines()[0][:160]]


def text(rows):
    table = [list(COLUMNS)] + [cells for row in rows for cells in lines(row)]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(COLUMNS) - 1)]
    left = (0, 1, 2)
    def line(cells):
        aligned = [cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, widths))]
        return "  ".join([*aligned, cells[-1]]).rstrip()

    return "\n".join(map(line, table))
