"""The HTML timeline of a run: hosts and their tasks as rows, faults shaded, time to the right.

One file without scripts or anything to fetch, so that it can be kept beside the history for years.
Every bar is a process that the /proc observer saw; hover to read which.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.history import SECOND, Life, Operation, Window, read

_WIDTH = 1800
_ROW = 16
_LEFT = 190
_COLOURS = {
    "web": "#4e79a7", "plain": "#59a14f", "door": "#9c755f", "mover": "#e15759",
    "anchor": "#b07aa1",
}  # fmt: skip
_ANSWERS = {"ok": "#59a14f", "info": "#f28e2b", "fail": "#e15759"}


def draw(
    path: Path,
    *,
    lives: Sequence[Life],
    windows: Sequence[Window],
    operations: Sequence[Operation],
    verdict: dict[str, Any],
    faults: Path,
) -> None:
    """Write the page."""
    times = [life.first_ns for life in lives] + [window.begin_ns for window in windows]
    begin = min(times, default=0)
    end = max([life.last_ns for life in lives] + [w.end_ns for w in windows], default=begin + 1)
    scale = (_WIDTH - _LEFT) / max(1, end - begin)

    def x(t_ns: int) -> float:
        return _LEFT + (t_ns - begin) * scale

    rows = sorted({(life.node, life.slot) for life in lives})
    height = (len(rows) + 4) * _ROW + 60
    parts = [f'<svg width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="11">']
    parts += list(_shades(windows, x, height))
    parts += list(_seconds(begin, end, x, height))
    for index, (node, slot) in enumerate(rows):
        y = 40 + index * _ROW
        parts.append(f'<text x="4" y="{y + 11}">{html.escape(f"{node}  {slot}")}</text>')
        parts += [
            _bar(x(life.first_ns), x(life.last_ns), y, _colour(life.slot), _words(life, begin))
            for life in lives
            if (life.node, life.slot) == (node, slot)
        ]
    y = 40 + (len(rows) + 1) * _ROW
    parts.append(f'<text x="4" y="{y + 11}">changes by users</text>')
    parts += [
        _bar(
            x(each.invoked_ns),
            max(x(each.ended_ns), x(each.invoked_ns) + 1),
            y,
            _ANSWERS.get(each.outcome, "#888"),
            f"{each.mark} {each.outcome} {(each.ended_ns - each.invoked_ns) / SECOND:.2f} s"
            f" {each.error}",
        )
        for each in operations
    ]
    parts.append("</svg>")
    path.write_text(_page("\n".join(parts), verdict, _notes(faults, begin)))


def _colour(slot: str) -> str:
    service = slot.split("/")[1] if slot.count("/") == 2 else ""
    return _COLOURS.get(service, "#bab0ac")


def _words(life: Life, begin: int) -> str:
    first, last = (life.first_ns - begin) / SECOND, (life.last_ns - begin) / SECOND
    return f"{life.task} on {life.node}, {first:.2f} s to {last:.2f} s, {life.container[:12]}"


def _bar(left: float, right: float, y: int, colour: str, words: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{y}" width="{max(0.7, right - left):.1f}" height="{_ROW - 4}"'
        f' fill="{colour}"><title>{html.escape(words)}</title></rect>'
    )


def _shades(windows: Iterable[Window], x: Any, height: int) -> Iterable[str]:
    for window in windows:
        settled = window.settled_ns or window.end_ns
        title = html.escape(f"{window.fault} {window.title}: {', '.join(window.nodes)}")
        for left, right, colour in (
            (window.begin_ns, window.end_ns, "#fdd"),
            (window.end_ns, settled, "#ffd"),
        ):
            yield (
                f'<rect x="{x(left):.1f}" y="24" width="{max(1, x(right) - x(left)):.1f}"'
                f' height="{height - 24}" fill="{colour}"><title>{title}</title></rect>'
            )
        yield f'<text x="{x(window.begin_ns):.1f}" y="20" fill="#900">{window.fault}</text>'


def _seconds(begin: int, end: int, x: Any, height: int) -> Iterable[str]:
    step = next(s for s in (10, 30, 60, 300, 900, 3600) if (end - begin) / SECOND / s < 40)
    for second in range(0, int((end - begin) / SECOND) + 1, step):
        at = x(begin + second * SECOND)
        yield f'<line x1="{at:.1f}" y1="24" x2="{at:.1f}" y2="{height}" stroke="#ddd"/>'
        yield f'<text x="{at:.1f}" y="{height - 4}" fill="#888">{second} s</text>'


def _notes(faults: Path, begin: int) -> list[str]:
    return [
        f"{(record['t_ns'] - begin) / SECOND:.1f} s: {record['text']}"
        for record in read(faults)
        if record.get("kind") == "note"
    ]


def _page(picture: str, verdict: dict[str, Any], notes: Sequence[str]) -> str:
    checks = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{each['seen']}</td>"
        f"<td>{len(each['violations']) or '-'}</td>"
        f"<td>{html.escape('; '.join(each['violations'][:5]))}</td></tr>"
        for name, each in verdict["checks"].items()
    )
    recoveries = "".join(
        f"<tr><td>{each['fault']}</td><td>{html.escape(each['title'])}</td>"
        f"<td>{len(each['seconds'])}</td><td>{each['worst']:.1f} s</td>"
        f"<td>{each['unsettled'] or '-'}</td></tr>"
        for each in verdict["recoveries"]
    )
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"""<!doctype html><meta charset="utf-8"><title>Faults</title>
<style>body{{font:13px sans-serif}} td,th{{padding:2px 10px;text-align:left}}</style>
<h1>Faults: {verdict["faults"]}, violations: {verdict["violations"]}</h1>
<p>Rows are tasks on hosts; a bar is a process. Red: a fault is on; yellow: until all was right
again.</p>
{picture}
<h2>Promises</h2><table><tr><th>check<th>seen<th>violations<th></tr>{checks}</table>
<h2>Recoveries</h2><table><tr><th>fault<th><th>times<th>worst<th>never</tr>{recoveries}</table>
<h2>Notes</h2><ul>{said}</ul>
"""
