"""The ladder of a call as SVG, drawn on the server.

The colours are presentation attributes, which a content security policy allows and any rule of a style sheet
overrides: the file shows the same by itself, and a page gives it its own colours by class. There is no script, no
`style` attribute and no `<style>` element in it. Each arrow is a group with `id="m<n>"`, `data-message` (the id of its
fact) and a title, which a page can make a button of.

Classes: `ladder`; `ground`, `lifeline` (beside its kind: phone, gateway, freeswitch, orchestrator), `head`, `name`,
`address`; `arrow` beside its kind (request, provisional, success, redirect, failure), `line`, `tip`, `text`, `time`,
`hit` (what a pointer can hit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

SIZE = 12
"""Height of the letters in pixels."""
ADVANCE = 0.602 * SIZE
"""Width of a letter of DejaVu Sans Mono, the widest of the common monospaced faces."""
ROW = 30
"""Pixels from one arrow to the next."""
HEAD = 40
"""Height of the box that names a lifeline."""
MARGIN = 10
TIMES = 78
"""Width of the column of times."""
LEAST = 150
"""Pixels between two lifelines, at least; texts of arrows make them wider, up to MOST."""
MOST = 320
BOX = 140
"""Width of the box that names a lifeline, at most that of its column."""
TIP = 8

_COLOURS = {
    "request": "#1864ab",
    "provisional": "#e67700",
    "success": "#2b8a3e",
    "redirect": "#6741d9",
    "failure": "#c92a2a",
}
_HEADS = {
    "orchestrator": ("#1f4e79", "#1f4e79", "#ffffff"),
    "phone": ("#f8f9fa", "#495057", "#212529"),
    "gateway": ("#e5dbff", "#6741d9", "#212529"),
    "freeswitch": ("#d0ebff", "#1971c2", "#212529"),
}
"""Kind → (fill, line, text)."""
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, escaped or not."""


def ladder_svg(ladder: Mapping[str, Any], title: str = "") -> str:
    """The drawing of `views.ladder.ladder`, with a final line feed; texts of strangers are escaped."""
    lifelines: Sequence[Mapping[str, Any]] = ladder["lifelines"]
    arrows: Sequence[Mapping[str, Any]] = ladder["arrows"]
    columns = _columns(lifelines, arrows)
    width = round(columns[lifelines[-1]["id"]] + BOX / 2 + MARGIN)
    top = MARGIN + HEAD
    height = top + ROW * (len(arrows) + 1) + MARGIN
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ladder" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" '
        f'font-size="{SIZE}" role="group">',
        f"<title>{_text(title or 'SIP ladder')}</title>",
        f'<rect class="ground" width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    rows += [_lifeline(line, columns[line["id"]], top, height - MARGIN) for line in lifelines]
    rows += [_arrow(arrow, columns, top + ROW * number) for number, arrow in enumerate(arrows, 1)]
    return "\n".join([*rows, "</svg>"]) + "\n"


def _columns(lifelines: Sequence[Mapping[str, Any]], arrows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where each lifeline stands: the texts of arrows between neighbours have room."""
    order = {line["id"]: number for number, line in enumerate(lifelines)}
    gaps = [float(LEAST)] * len(lifelines)
    for arrow in arrows:
        ends = sorted((order[arrow["from"]], order[arrow["to"]]))
        wanted = len(_label(arrow)) * ADVANCE + 2 * TIP + 12
        share = min(MOST, wanted / max(1, ends[1] - ends[0]))
        for number in range(ends[0] + 1, ends[1] + 1):
            gaps[number] = max(gaps[number], share)
    columns, x = {}, TIMES + MARGIN + BOX / 2
    for number, line in enumerate(lifelines):
        x += gaps[number] if number else 0.0
        columns[line["id"]] = x
    return columns


def _lifeline(line: Mapping[str, Any], x: float, top: int, bottom: int) -> str:
    fill, stroke, ink = _HEADS[line["kind"]]
    left, middle = x - BOX / 2, top - HEAD / 2
    name, address = _fitting(str(line["name"] or "?")), _fitting(str(line["address"]))
    texts = [f'<text class="name" x="{x:.1f}" y="{middle - 3:.1f}" text-anchor="middle" fill="{ink}">{name}</text>']
    if address:
        texts.append(
            f'<text class="address" x="{x:.1f}" y="{middle + 12:.1f}" text-anchor="middle" font-size="{SIZE - 2}" '
            f'fill="{ink}">{address}</text>'
        )
    whole = _text(f"{line['name']} {line['address']}".strip())
    return (
        f'<g class="lifeline {line["kind"]}"><title>{whole}</title>'
        f'<path class="line" d="M{x:.1f},{top} V{bottom}" stroke="#adb5bd" stroke-dasharray="3 3" fill="none"/>'
        f'<rect class="head" x="{left:.1f}" y="{top - HEAD}" width="{BOX}" height="{HEAD}" rx="4" fill="{fill}" '
        f'stroke="{stroke}"/>{"".join(texts)}</g>'
    )


def _arrow(arrow: Mapping[str, Any], columns: Mapping[str, float], y: int) -> str:
    """One message. A repeated one has a second line behind its first."""
    colour = _COLOURS[arrow["kind"]]
    start, end = columns[arrow["from"]], columns[arrow["to"]]
    back = TIP if end > start else -TIP
    tip = f"{end:.1f},{y} {end - back:.1f},{y - TIP / 2:.1f} {end - back:.1f},{y + TIP / 2:.1f}"
    dash = ' stroke-dasharray="6 4"' if arrow["kind"] == "provisional" else ""
    left, wide = min(start, end), abs(end - start)
    said = f"{arrow['time'][11:23]}  {_label(arrow)}, {arrow['octets']} octets"
    return (
        f'<g class="arrow {arrow["kind"]}" id="m{arrow["n"]}" data-message={quoteattr(str(arrow["id"]))}>'
        f"<title>{_text(said)}</title>"
        f'<rect class="hit" x="{MARGIN}" y="{y - ROW / 2 - 2:.1f}" width="{left + wide - MARGIN:.1f}" height="{ROW}" '
        'fill="#ffffff" fill-opacity="0"/>'
        f'<text class="time" x="{MARGIN}" y="{y + 4}" font-size="{SIZE - 1}" fill="#495057">{arrow["at"]:>9.3f}</text>'
        f'<path class="line" d="M{start:.1f},{y} H{end - back:.1f}" stroke="{colour}" stroke-width="1.5" fill="none"'
        f'{dash}/><polygon class="tip" points="{tip}" fill="{colour}"/>'
        f'<text class="text" x="{(start + end) / 2:.1f}" y="{y - 5}" text-anchor="middle" fill="{colour}">'
        f"{_text(_cut(_label(arrow), wide))}</text></g>"
    )


def _label(arrow: Mapping[str, Any]) -> str:
    body = " +SDP" if arrow["body"] and arrow["method"] in ("INVITE", "UPDATE", "PRACK", "ACK") else ""
    repeats = f" ×{arrow['repeats'] + 1}" if arrow["repeats"] else ""
    return f"{arrow['text']}{body}{repeats}"


def _cut(text: str, wide: float) -> str:
    """What has room between two lifelines."""
    room = max(4, int((wide - 2 * TIP) / ADVANCE))
    return text if len(text) <= room else text[: room - 1] + "…"


def _fitting(text: str) -> str:
    room = int((BOX - 8) / ADVANCE)
    return _text(text if len(text) <= room else text[: room - 1] + "…")


def _text(text: str) -> str:
    """As XML can hold it."""
    return escape(_CONTROL.sub("�", text))
