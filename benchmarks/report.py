"""Results as JSON, as a table in Markdown and as a plot, all from the same record."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .measure import BARE, OURS, PEER, Figure

RESULTS = Path(__file__).parent / "results"
Record = dict[str, dict[str, object]]


def circumstances() -> dict[str, str]:
    """What one has to know of the machine to read the figures."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    packages = ("uvicorn", "httptools", "uvloop", "starlette", "sse-starlette", "starlette-compress")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    )
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{model}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def write(folder: Path, results: dict[str, tuple[str, list[Figure]]]) -> Path:
    """Add ``results``, by name of the benchmark, to what the folder holds, and render all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "results.json"
    record: Record = json.loads(store.read_text()) if store.exists() else {}
    for name, (title, figures) in results.items():
        record[name] = {
            "title": title,
            "circumstances": circumstances(),
            "figures": [vars(figure) for figure in figures],
        }
    store.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    table = folder / "results.md"
    table.write_text(markdown(record))
    plot(record, folder / "results.png")
    return table


def figures_of(entry: dict[str, object]) -> list[Figure]:
    given = entry["figures"]
    assert isinstance(given, list)
    return [Figure(**figure) for figure in given]


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def rows(figure: Figure) -> list[str]:
    """One row for each variant."""
    made = []
    for variant, values in figure.values.items():
        base = figure.base
        ratio = "1" if variant == base else spread(figure.ratios(variant, base)) if base in figure.values else ""
        against = verdict = ""
        if base != BARE:
            verdict = _verdict(figure, variant)
        elif variant == OURS:
            if PEER in figure.values:
                against = spread(figure.ratios(OURS, PEER))
            verdict = ", ".join(
                f"≤ {target:g} × {base}: {'met' if met(figure, base) else 'missed'}"
                for base, target in figure.targets.items()
            )
        cells = (figure.label, variant, f"{spread(values)} {figure.unit}", ratio, against, verdict)
        made.append(f"| {' | '.join(cells)} |")
    return made


def _verdict(figure: Figure, variant: str) -> str:
    """Where stores are compared, each has a target of its own."""
    said = []
    if variant in figure.targets:
        good = statistics.median(figure.ratios(variant, figure.base)) <= figure.targets[variant]
        said.append(f"≤ {figure.targets[variant]:g} × {figure.base}: {'met' if good else 'missed'}")
    if variant in figure.bounds:
        good = figure.median(variant) <= figure.bounds[variant]
        said.append(f"≤ {figure.bounds[variant]:g} {figure.unit}: {'met' if good else 'missed'}")
    return ", ".join(said)


def met(figure: Figure, base: str) -> bool:
    return statistics.median(figure.ratios(OURS, base)) <= figure.targets[base]


def markdown(record: Record) -> str:
    lines = [
        "# Benchmark results",
        "",
        "Medians over the rounds, [least–greatest]; ratios are taken within a round. Written by",
        "`python -m benchmarks`; what is measured, and how, is said in the modules of `benchmarks/`.",
    ]
    for entry in record.values():
        about = entry["circumstances"]
        assert isinstance(about, dict)
        lines += ["", f"## {entry['title']}", ""]
        lines += [f"{about['taken']}, commit {about['commit']}; {about['machine']}; Python {about['python']}; "]
        lines[-1] += f"{about['packages']}."
        lines += [
            "",
            f"| case | variant | measured | to the first | to {PEER} | target |",
            "|---|---|---|---|---|---|",
        ]
        figures = figures_of(entry)
        for figure in figures:
            lines += rows(figure)
        lines += ["", *(f"* {figure.label}: {figure.note}" for figure in figures if figure.note)]
    return "\n".join(lines).rstrip() + "\n"


def plot(record: Record, path: Path) -> None:
    """Bars of the ratios to the bare app, with their spread; a target is a tick across the bar of ours."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figures = [(entry["title"], figure) for entry in record.values() for figure in figures_of(entry)]
    figures = [(title, figure) for title, figure in figures if figure.base == BARE]
    if not figures:
        return
    canvas, axes = pyplot.subplots(figsize=(10, 1.2 + 0.62 * len(figures)), layout="constrained")
    for variant, colour, offset in ((OURS, "#2a6fdb", 0.19), (PEER, "#b9b9b9", -0.19)):
        chosen = [(place, figure) for place, (_, figure) in enumerate(figures) if variant in figure.values]
        if not chosen:
            continue
        ratios = [figure.ratios(variant, BARE) for _, figure in chosen]
        medians = [statistics.median(each) for each in ratios]
        errors = [
            [middle - min(each) for middle, each in zip(medians, ratios, strict=True)],
            [max(each) - middle for middle, each in zip(medians, ratios, strict=True)],
        ]
        places = [-place + offset for place, _ in chosen]
        axes.barh(places, medians, 0.36, xerr=errors, color=colour, ecolor="#555555", capsize=2, label=variant)
        for place, middle, each in zip(places, medians, ratios, strict=True):
            axes.text(max(each) + 0.03, place, f"{middle:.2f}", va="center", fontsize=8)
    for place, (_, figure) in enumerate(figures):
        if BARE in figure.targets:
            axes.plot([figure.targets[BARE]] * 2, [-place, -place + 0.38], color="#d43d2a", linewidth=2)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks([-place for place in range(len(figures))], [f"{title}\n{each.label}" for title, each in figures])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(f"times bare {BARE} (median, least and greatest of the rounds; red: target)")
    axes.set_xlim(left=0)
    axes.set_ylim(0.6 - len(figures), 0.6)
    axes.legend(loc="lower right")
    canvas.savefig(path, dpi=130)
    pyplot.close(canvas)
