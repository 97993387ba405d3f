"""Whether a run is slower than another: what of ours is worse by more than noise and more than a tenth.

Machines differ, so what counts is the figure by that of the main peer, round by round, where both runs have one; else the figure."""
import statistics

TOLERANCE = 0.1


def values(row, side, metric):
    """A side's figures, one for each round; none unless all rounds have it."""
    rounds = row["sides"].get(side, {}).get("rounds", [])
    return [figures[metric] for figures in rounds] if all(metric in figures for figures in rounds) else []


def ratios(row, metric, peer):
    """Ours by the peer's of the same round; none if there is no peer, or it has a zero."""
    theirs = values(row, peer, metric)
    return [one / other for one, other in zip(values(row, "ours", metric), theirs)] if all(theirs) else []


def spread(figures):
    return {"median": statistics.median(figures), "min": min(figures), "max": max(figures)}


def worse(now, then, better):
    """Of two spreads: whether all of `now` is on the worse side of all of `then`, and the median by more than a tenth."""
    if better == "higher":
        return now["max"] < then["min"] and now["median"] < then["median"] * (1 - TOLERANCE)
    return now["min"] > then["max"] and now["median"] > then["median"] * (1 + TOLERANCE)


def compare_metric(now, then, metric, how):
    """{what was compared, and whether it is worse}, None if one of the rows does not have it."""
    figures = [values(row, "ours", metric) for row in (now, then)]
    if not all(figures):
        return None
    figures = list(map(spread, figures))
    by_peer = [ratios(row, metric, how["peer"]) for row in (now, then)]
    by_peer = list(map(spread, by_peer)) if all(by_peer) else None
    noise = how["noise"] > 0 and abs(figures[0]["median"] - figures[1]["median"]) <= how["noise"]
    absolute = not noise and worse(*figures, how["better"])
    return {"workload": now["workload"], "metric": metric, "now": figures[0], "then": figures[1], "worse_absolute": absolute,
            "peer": how["peer"] if by_peer else None, "by_peer": by_peer and {"now": by_peer[0], "then": by_peer[1]},
            "worse": not noise and worse(*by_peer, how["better"]) if by_peer else absolute}


def compare(now, then):
    """What both runs' rows have, one entry for each metric of each point."""
    before = {row["workload"]: row for row in then}
    found = [compare_metric(row, before[row["workload"]], metric, how)
             for row in now if row["workload"] in before for metric, how in row["judged"].items()]
    return [one for one in found if one]


def text(compared, name, number):
    """Lines: what is worse, and what only looks so. `number` makes a figure text."""
    def change(of):
        was, now = (f"{number(of[when]['median'])} ({number(of[when]['min'])}..{number(of[when]['max'])})" for when in ("then", "now"))
        return f"{was}, now {now}"

    lines = []
    for one in compared:
        if not (one["worse"] or one["worse_absolute"]):
            continue
        by_peer = f"; by {one['peer']} {change(one['by_peer'])}" if one["by_peer"] else ""
        verdict = "WORSE" if one["worse"] else f"not by {one['peer']}"
        lines.append(f"  {one['workload']} {one['metric']}: {change(one)}{by_peer}: {verdict}")
    count, many = sum(one["worse"] for one in compared), "figure is" if len(compared) == 1 else "figures are"
    return "\n".join([f"{len(compared)} {many} in {name}, too: {count or 'none'} worse", *lines])
