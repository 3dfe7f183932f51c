"""The race's results for people: a Markdown table, a plot."""

from pathlib import Path
from typing import Any

COLUMNS = (
    *("entrant", "rows/s", "least to most", "of Penstock", "CPU-s/GB", "cores", "first batch", "start", "peak RSS"),
    *("own", "mixed", "one epoch"),
)
TITLES = {
    "tokens": "{rows:,} rows of 2,048 int32, batch 32",
    "small": "{rows:,} rows of 64 float32, id and label, batch 4,096",
}
LEGEND = """\
rows/s: median over the rounds. CPU-s/GB and cores: the whole process tree, server included, while measured. First
batch: seconds from asking for it. Start: seconds before that (loader made; server, cluster or service started; imports
not counted). Peak RSS: summed over the tree, so shared pages and mapped files count once for each process; sampled four
times a second, from start to end. Own: RssAnon + RssShmem of the same, which leaves mapped files out. Mixed: how many
of 256 parts of the dataset meet in a batch, as a share of those that chance alone brings. One epoch: of a sixteenth of
the rows, every row with its values counted.
"""


DIFFERENT = ("numpy", "pyarrow")  # each environment has its own; they are in the JSON


def ranked(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The fastest first, those without a result last."""
    return sorted(case.items(), key=lambda item: -item[1]["rows_per_s"]["median"] if "laps" in item[1] else 0)


def markdown(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        "# The race",
        "",
        f"`{found['command']}`, {found['date']}: {machine['cpus']} CPUs, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['platform']}, load at the end {machine['load_at_end'][0]:.1f}. "
        f"{found['repeats']} interleaved rounds, {found['measured_s']:g} s measured after {found['warm_s']:g} s of "
        "warm-up; warm page cache; peers' defaults.",
    ]
    for name, case in found["cases"].items():
        title = TITLES[name].format(rows=found["rows"][name])
        lines += ["", f"## {name}: {title}", "", "| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * 10 + "---|"]
        ours = case.get("penstock", {}).get("rows_per_s", {}).get("median")
        for entrant, one in ranked(case):
            lines.append(_row(entrant, one, ours))
    every = [one for case in found["cases"].values() for one in case.values()]
    pairs = {pair for one in every for pair in one["versions"].items()}
    versions = sorted(pair for pair in pairs if pair[0] not in DIFFERENT)
    lines += ["", LEGEND, "Versions: " + ", ".join(f"{name} {number}" for name, number in versions) + "."]
    return "\n".join(lines) + "\n"


def _row(entrant: str, one: dict[str, Any], ours: float | None) -> str:
    label = f"{entrant} ({one['note']})" if one["note"] else entrant
    errors = "; ".join(one.get("errors", ())).replace("|", "\\|")
    if "laps" not in one:
        return f"| {label} | {'— |' * 10} {errors or 'not run'} |"
    middle = {name: value["median"] for name, value in one.items() if isinstance(value, dict) and "median" in value}
    rate = one["rows_per_s"]
    cells = [
        label,
        f"{rate['median']:,.0f}",
        f"{rate['min']:,.0f} to {rate['max']:,.0f}",
        f"{rate['median'] / ours:.3g}" if ours else "",
        f"{middle['cpu_s_per_gb']:.2f}",
        f"{middle['cores']:.1f}",
        f"{middle['first_batch_s']:.2f} s",
        f"{middle['open_s']:.2f} s",
        f"{one['peak_rss']['max'] / 1e6:,.0f} MB",
        f"{one['peak_own']['max'] / 1e6:,.0f} MB",
        f"{middle['mixed']:.0%}",
        "; ".join(word for word in (epoch(one.get("one_epoch")), twice(one["twice"]["max"]), errors) if word),
    ]
    return "| " + " | ".join(cells) + " |"


def epoch(check: dict[str, Any] | None) -> str:
    """What the check of one epoch found, in words."""
    if check is None:
        return "not checked"
    if check["values"] == "as written" and not check["twice"] and not check["missing"]:
        return "every row once"
    return f"{check['missing']:,} missing, {check['twice']:,} twice, values {check['values']}, of {check['of']:,}"


def twice(count: int) -> str:
    """What the warm-up of a lap found in addition."""
    return f"{count:,} rows twice in a warm-up" if count else ""


def plot(path: Path, found: dict[str, Any]) -> None:
    import matplotlib as mpl  # only here: the numbers need no plot

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = found["cases"]
    tallest = max(len(case) for case in cases.values())
    figure, every = plt.subplots(1, len(cases), figsize=(6 * len(cases), 1 + 0.3 * tallest), squeeze=False)
    for axes, (name, case) in zip(every[0], cases.items(), strict=True):
        done = [(entrant, one["rows_per_s"]) for entrant, one in reversed(ranked(case)) if "laps" in one]
        names, rates = [entrant for entrant, _ in done], [rate for _, rate in done]
        middles = [rate["median"] for rate in rates]
        reach = [[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]]
        colours = ["tab:orange" if entrant.startswith("penstock") else "tab:blue" for entrant in names]
        axes.barh(names, middles, xerr=reach, color=colours, ecolor="black", capsize=2)
        axes.set(xscale="log", xlabel="rows/s (median; least to most)")
        axes.set_title(TITLES[name].format(rows=found["rows"][name]), fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
