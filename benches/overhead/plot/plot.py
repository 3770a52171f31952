"""Draws overhead.png and overhead-saturation.png beside an overhead.csv.

    python plot.py overhead.csv

A point is the median of the repetitions.
"""

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

COLOURS = {
    "no proxy": "#999999",
    "bare hyper proxy": "#000000",
    "nginx": "#2ca02c",
    "ours, no session": "#9ecae1",
    "ours, in memory": "#1f77b4",
    "ours, in memory, limited": "#ff7f0e",
    "ours, SQLite": "#9467bd",
    "ours, Redis": "#d62728",
    "ours, Redis, no cache": "#ff9896",
    "ours, Postgres": "#8c564b",
    "LiteLLM proxy, no memory": "#e6a700",
    "LangChain + Redis": "#e377c2",
    "Agents SDK + Redis": "#17becf",
}
DASHED = {"no proxy", "bare hyper proxy", "nginx", "ours, no session"}

FIGURES = [
    ("cpu_us", "CPU per request, µs"),
    ("p50_ms", "p50, ms"),
    ("p99_ms", "p99, ms"),
    ("first_p50_ms", "first byte p50, ms"),
    ("requests_per_s", "requests per second"),
    ("memory_mib", "memory, MiB"),
]


def plain(value, _=None):
    if value >= 1:
        return f"{value:,.0f}"
    return f"{value:.4f}".rstrip("0").rstrip(".")


class Data:
    """figure -> (scenario, target) -> median."""

    def __init__(self, path):
        self.rows = defaultdict(list)
        self.order = []
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                self.rows[row["scenario"], row["target"]].append(row)
                if row["target"] not in self.order:
                    self.order.append(row["target"])
        self.order.sort(key=lambda name: list(COLOURS).index(name) if name in COLOURS else 99)

    def median(self, scenario, target, figure):
        values = [float(row[figure]) for row in self.rows.get((scenario, target), []) if row[figure]]
        return statistics.median(values) if values else None


def draw(axis, data, figure, title, points, xlabel, log=True):
    """points: (x, place, scenario)."""
    for target in data.order:
        line = [(place, data.median(scenario, target, figure)) for place, scenario in points]
        line = [(place, value) for place, value in line if value is not None]
        if line:
            axis.plot(
                *zip(*line),
                label=target,
                color=COLOURS.get(target, "#333333"),
                linestyle="--" if target in DASHED else "-",
                marker="o",
                markersize=3.5,
                linewidth=1.4,
            )
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(xlabel, fontsize=8)
    if axis.lines and log:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(plain))
        low, high = axis.get_ylim()
        between = (2, 5) if high / low < 100 else ()
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: plain(value) if lead(value) in between else ""))
    axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axis.grid(True, which="minor", axis="y", color="#f2f2f2", linewidth=0.5)
    axis.tick_params(which="both", labelsize=8)


def lead(value):
    return int(f"{value:e}"[0])


def overhead(data, path):
    turns = [(place, f"JSON c=16 t={turns}") for place, turns in enumerate((0, 20, 200))]
    turns.append((3, "1.6 MB session c=16"))
    at_once = [(place, f"JSON c={count} t=20") for place, count in enumerate((1, 16, 64))]
    held = [(place, f"{count} open streams t=0") for place, count in enumerate((100, 300, 1000))]
    grid, axes = plt.subplots(4, 3, figsize=(13, 15))
    for axis, (figure, title) in zip(axes[:2].flat, FIGURES):
        draw(axis, data, figure, title, turns, "history (16 requests at once)")
        axis.set_xticks(range(4), ["none", "20 turns\n9 KB", "200 turns\n96 KB", "50 turns\n1.6 MB"])
        axis.set_xlim(-0.2, 3.2)
    for axis, (figure, title) in zip(axes[2:].flat, FIGURES):
        if figure == "memory_mib":
            draw(axis, data, figure, title, held, "open streams (new sessions)")
            axis.set_xticks(range(3), ["100", "300", "1,000"])
        else:
            draw(axis, data, figure, title, at_once, "requests at once (20 turns of history)")
            axis.set_xticks(range(3), ["1", "16", "64"])
        axis.set_xlim(-0.15, 2.15)
    finish(grid, axes, path, "What a conversation's memory costs: lower is better, but for requests per second")


def saturation(data, path):
    clients = [1, 16, 64, 128, 256, 512, 1024]
    points = [(place, f"saturation c={count}") for place, count in enumerate(clients)]
    if not any(data.rows.get((scenario, "bare hyper proxy")) for _, scenario in points):
        return
    grid, axes = plt.subplots(2, 2, figsize=(10, 7.5))
    figures = [
        ("requests_per_s", "answered per second"),
        ("p50_ms", "p50 of the answered, ms"),
        ("p99_ms", "p99 of the answered, ms"),
        ("refused", "part refused with 503"),
    ]
    for axis, (figure, title) in zip(axes.flat, figures):
        xlabel = "clients (the upstream takes 64 at once, 20 ms each)"
        draw(axis, data, figure, title, points, xlabel, figure != "refused")
        axis.set_xticks(range(len(clients)), [f"{count:,}" for count in clients])
        if figure == "refused":
            axis.set_ylim(-0.02, 1.02)
    finish(grid, axes, path, "Past saturation")


def finish(grid, axes, path, title):
    lines = {}
    for axis in axes.flat:
        for line, label in zip(*axis.get_legend_handles_labels()):
            lines.setdefault(label, line)
    grid.suptitle(title, fontsize=12, x=0.01, ha="left")
    height = grid.get_size_inches()[1]
    grid.legend(
        lines.values(), lines.keys(), loc="upper left", bbox_to_anchor=(0.005, 1 - 0.42 / height),
        ncol=6, fontsize=8.5, frameon=False,
    )
    grid.tight_layout(rect=(0, 0, 1, 1 - 0.95 / height))
    grid.savefig(path, dpi=110)
    plt.close(grid)


def main():
    path = Path(sys.argv[1])
    data = Data(path)
    overhead(data, path.with_suffix(".png"))
    saturation(data, path.with_name(path.stem + "-saturation.png"))


main()
