"""Medians with their spread, as a table for people and for docs/performance.md."""

import os
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "performance.md")
END = "<!-- bench: end -->"


@dataclass
class Row:
    what: str
    runs: dict = field(default_factory=lambda: defaultdict(list))

    def add(self, program, run):
        self.runs[program].append(run)


@dataclass
class Section:
    group: str
    programs: list
    rows: list
    notes: list
    bench: object
    lines: list = field(default_factory=list)
    """Its table, where it does not stand two programs beside each other."""


def cell(values, form):
    return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})"


def seconds(value):
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def mebibytes(value):
    return f"{value:.0f} MiB"


MEASURES = [("wall", seconds), ("cpu", seconds), ("memory", mebibytes)]
LABELS = {"wall": "wall", "cpu": "CPU", "memory": "memory"}


def table(section):
    theirs, ours = section.programs
    lines = [f"| | {theirs.name} {theirs.version()} | {ours.name} {ours.version()} | ratio |", "|---|---|---|---|"]
    for row in section.rows:
        for name, form in MEASURES:
            a = [getattr(run, name) for run in row.runs[theirs.name]]
            b = [getattr(run, name) for run in row.runs[ours.name]]
            ratio = statistics.median(b) / statistics.median(a)
            lines.append(f"| {row.what}, {LABELS[name]} | {cell(a, form)} | {cell(b, form)} | {ratio:.2f} |")
    return lines


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}"


def how(section, megabytes, pairs):
    if section.lines:
        return "the best of fifteen rounds"
    return f"PostgreSQL {section.bench.major}; {megabytes} MB; median of {pairs} pairs (least to most)"


def write(sections, megabytes, pairs):
    lines = []
    for section in sections:
        lines += [f"### {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, group `{section.group}`", "",
                  f"{machine()}; {how(section, megabytes, pairs)}.", ""]
        lines += section.lines or table(section)
        lines += ["", *section.notes, ""]
    return "\n".join(lines)


def append(text):
    with open(DOCUMENT) as document:
        before, after = document.read().split(END)
    with open(DOCUMENT, "w") as document:
        document.write(f"{before.rstrip()}\n\n{text.rstrip()}\n{END}{after}")
