"""What was measured, as a table, as Markdown, as JSON and as a chart."""
import statistics
from dataclasses import asdict, dataclass
from html import escape
from math import log

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


@dataclass
class Row:
    """A line of the table: one figure, what it is compared with, and its target if there is one."""

    case: str
    what: str
    ours: str
    theirs: str
    value: float | None
    unit: str = ""
    relation: str = ""
    goal: float = 0.0
    against: str = ""

    @property
    def met(self):
        if not self.relation:
            return None
        if self.value is None:
            return False
        return self.value >= self.goal if self.relation == ">=" else self.value <= self.goal

    @property
    def cells(self):
        sign = {">=": "≥", "<=": "≤", "": ""}[self.relation]
        target = f"{sign} {number(self.goal)}{self.unit}" if self.relation else ""
        verdict = {True: "yes", False: "NO", None: ""}[self.met]
        return [self.case, self.what, self.ours, self.theirs, "failed" if self.value is None else f"{number(self.value)}{self.unit}", target, verdict]


HEADINGS = ["case", "what", "rdmfs", "compared with", "figure", "target", "met"]


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}"


def amount(measure, value):
    """A value with its unit."""
    if measure == "rate":
        return f"{value / 1e6:,.0f} MB/s" if value >= 1e7 else f"{value / 1e6:.1f} MB/s"
    if measure == "seconds":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    if measure in ("fetched", "peak"):
        return f"{value / (1 << 20):,.1f} MiB" if value >= 1 << 20 else f"{value / 1024:,.0f} KiB"
    if measure == "reads":
        return f"{value:,.0f} reads/s"
    return f"{number(value)} {measure}"


def figure(sample, measure):
    if measure == "rate":
        return sample["bytes"] / sample["seconds"]
    if measure == "reads":
        return sample["reads"] / sample["seconds"]
    return sample[measure]


def median(samples, measure):
    return statistics.median(figure(one, measure) for one in samples)


def ratio(ours, theirs, measure):
    """The median of the ratios in each round, or the ratio of the medians where there were not as many rounds."""
    if len(ours) == len(theirs):
        return statistics.median(
            figure(one, measure) / max(figure(other, measure), 1e-9) for one, other in zip(ours, theirs))
    return median(ours, measure) / max(median(theirs, measure), 1e-9)


def best(samples, names, measure, most=True):
    """Of some contenders the one with the best median, among those that were measured in the most rounds."""
    rounds = max((len(samples.get(name, [])) for name in names), default=0)
    if not rounds:
        return None
    there = [name for name in names if len(samples.get(name, [])) == rounds]
    return (max if most else min)(there, key=lambda name: median(samples[name], measure))


def text_table(rows, headings):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [headings, *rows]) for place in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def markdown_table(rows, headings):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


USAGE = ["case", "program", "speed", "CPU s/GiB", "peak MiB", "content requests"]


def usage_rows(result):
    """What each contender cost, where that was measured."""
    rows = []
    for case, found in result["cases"].items():
        for setting, contenders in found["samples"].items():
            for name, samples in contenders.items():
                if not samples or "cpu" not in samples[0] or samples[0].get("bytes", 0) < 1 << 20:
                    continue
                cpu = statistics.median(one["cpu"] / (one["bytes"] / (1 << 30)) for one in samples)
                peak = max(one.get("peak", 0) for one in samples) / (1 << 20)
                requests = f"{median(samples, 'requests'):.0f}" if "requests" in samples[0] else ""
                rows.append([f"{case}: {setting}", name, amount("rate", median(samples, "rate")), f"{cpu:.2f}",
                             f"{peak:.0f}" if peak else "", requests])
    return rows


def all_rows(result):
    return [Row(**row) for found in result["cases"].values() for row in found["rows"]]


def tables(result, table):
    rows = [row.cells for row in all_rows(result)]
    parts = [table(rows, HEADINGS), table(usage_rows(result), USAGE)]
    notes = [f"- {case}: {note}" for case, found in result["cases"].items() for note in found["notes"]]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def markdown(result):
    """The section between the markers."""
    machine = result["machine"]
    head = [f"{name}: {value}" for name, value in machine.items()]
    alike = {}
    for name, found in result["cases"].items():
        alike.setdefault((found["date"][:10], found["commit"], found["runs"], found["size"]), []).append(
            f"{name} (load before {found['load']})" if "load" in found else name)
    head += [f"measured on {date} at {commit}, {runs} runs, large file {size / (1 << 30):.3g} GiB: {', '.join(names)}"
             for (date, commit, runs, size), names in alike.items()]
    lines = "\n".join(f"- {line}" for line in head)
    return f"{BEGIN}\n{lines}\n\n{tables(result, markdown_table)}\n{END}"


def as_json(rows):
    return [asdict(row) for row in rows]


def chart(result):
    """Bars of how each figure stands to its target, on a logarithmic scale; the line in the middle is the target."""
    rows = [row for row in all_rows(result) if row.relation]
    left, width, step, top, reach = 570, 420, 22, 64, 8.0
    height = top + step * len(rows) + 50

    def place(factor):
        factor = min(max(factor, 1 / reach), reach)
        return left + width / 2 * (1 + log(factor) / log(reach))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 230}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{left + width / 2}" y="22" text-anchor="middle" font-size="15" font-weight="bold">'
        "rdmfs: each figure as a multiple of its target</text>",
        f'<text x="{left + width / 2}" y="40" text-anchor="middle" fill="#555">right of the line: better than '
        "the target</text>",
    ]
    for factor in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8):
        x, one = place(factor), factor == 1
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{height - 34}" '
                     f'stroke="{"#222" if one else "#ddd"}" stroke-width="{2 if one else 1}"/>')
        label = "target" if one else f"{factor:g} ×"
        parts.append(f'<text x="{x:.1f}" y="{height - 16}" text-anchor="middle" fill="#555">{label}</text>')
    for line, row in enumerate(rows):
        y = top + step * line
        if row.value is None:
            factor = 1 / reach
        elif row.relation == ">=":
            factor = row.value / row.goal if row.goal else reach
        else:
            factor = row.goal / row.value if row.value > 0 else (reach if row.goal >= 0 else 1)
            if row.value == row.goal:
                factor = 1
        x, middle = place(max(factor, 1e-6)), place(1)
        start, end = min(x, middle), max(x, middle)
        colour = "#2e7d4f" if row.met else "#b3402e"
        cells = row.cells
        label = f"{row.case}: {row.what}" + (f", to {row.against}" if row.against else "")
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{start:.1f}" y="{y + 2}" width="{max(end - start, 2):.1f}" height="13" '
                     f'fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 12}" y="{y + 12}">{escape(cells[4])} (target {escape(cells[5])})'
                     "</text>")
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
