"""One HTML file that tells everything: numbers beside their protocol, charts and pictures, nothing from outside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.files import write_text
from occluded_reid.visualize.canvas import Picture, as_rgb
from occluded_reid.visualize.plots import LineChart

__all__ = ["HtmlReport"]

_JPEG_FROM = 200_000  # bytes: small pictures stay exact, large ones of photographs shrink to a fifth

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--muted:#59636e;--paper:#fff;--card:#f6f8fa;--line:#d8dee4;--accent:#0a6c92}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--muted:#9aa5b1;--paper:#0d1117;--card:#161b22;--line:#30363d;
--accent:#58b7d8}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:76rem;color:var(--ink);background:var(--paper);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.3rem;margin:2.6rem 0 .8rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.8rem 0 .6rem}
p{margin:.5rem 0 1rem;max-width:52rem}
.lead{color:var(--muted);font-size:1.05rem}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:24rem}
caption{text-align:left;color:var(--muted);padding-bottom:.5rem}
th,td{padding:.42rem .7rem;text-align:right;border-bottom:1px solid var(--line);overflow-wrap:break-word}
td span{white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:.2rem}
td.words,th.words{text-align:left}
thead th{color:var(--muted);font-weight:600;border-bottom:2px solid var(--line)}
tbody tr:hover{background:var(--card)}
td.best{font-weight:700;color:var(--accent)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.2rem;margin:1rem 0}
.card h3{margin:0 0 .6rem}
.card dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.55rem 1.4rem;margin:0}
.card dt{color:var(--muted);font-size:.82rem}
.card dd{margin:0;font-variant-numeric:tabular-nums}
figure{margin:1.2rem 0}
figure img{max-width:100%;height:auto;border:1px solid var(--line);border-radius:.4rem;background:#fff;display:block}
figure svg{max-width:100%;height:auto;display:block}
figcaption{color:var(--muted);font-size:.9rem;margin-top:.4rem;max-width:52rem}
.charts{display:flex;flex-wrap:wrap;gap:1rem}
.charts figure{margin:.4rem 0;flex:1 1 30rem;max-width:36rem}
@media print{body{max-width:none}figure,.card,tr{break-inside:avoid}}
"""


class HtmlReport:
    """A report that is put together piece by piece and saved as one self-contained file.

    Every text is escaped; images travel inside the file; nothing is loaded from elsewhere, and the page forbids it. The
    same pieces give the same bytes.

    Args:
        title: of the page.
        lead: a sentence below the title.

    Example:
        >>> page = HtmlReport("SORN on a shop").add_heading("Numbers").add_table([{"matching": "own", "Rank-1": 0.912}])
        >>> "<td>0.9120</td>" in page.html()
        True
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._lead = lead
        self._pieces: list[str] = []

    def add_heading(self, text: str, level: int = 2) -> HtmlReport:
        """Add a heading of level 2 or 3.

        Raises:
            ShapeError: another level.
        """
        if level not in (2, 3):
            raise ShapeError(f"level is {level}; give 2 or 3 (the title is level 1).")
        self._pieces.append(f"<h{level}>{escape(text)}</h{level}>")
        return self

    def add_text(self, text: str) -> HtmlReport:
        """Add a paragraph."""
        self._pieces.append(f"<p>{escape(text)}</p>")
        return self

    def add_card(self, title: str, facts: Mapping[str, Any]) -> HtmlReport:
        """Add a card of names and values: the protocol that stands beside the numbers."""
        rows = "".join(
            f"<div><dt>{escape(str(name))}</dt><dd>{escape(_shown(value))}</dd></div>" for name, value in facts.items()
        )
        heading = escape(title)
        self._pieces.append(f'<section class="card" aria-label="{heading}"><h3>{heading}</h3><dl>{rows}</dl></section>')
        return self

    def add_table(
        self, rows: Sequence[Mapping[str, Any]], *, caption: str = "", best: Sequence[str] = ()
    ) -> HtmlReport:
        """Add a table with one line for each mapping; columns come in the order in which they first appear.

        Args:
            rows: column -> value; strings stay as they are, floats get four decimals, None and NaN a dash.
            caption: above the table.
            best: columns of numbers in which the largest value is emphasised.

        Raises:
            ShapeError: `best` names a column that no row has.
        """
        columns = list(dict.fromkeys(str(name) for row in rows for name in row))
        for name in best:
            if name not in columns:
                raise ShapeError(f"best names the column '{name}'; the rows have {', '.join(columns) or 'none'}.")
        cells = [{str(name): value for name, value in row.items()} for row in rows]
        wordy = {c for c in columns[1:] if any(isinstance(row.get(c), str) and len(row[c]) > 40 for row in cells)}
        tops: dict[str, float | None] = {}
        for name in best:
            tops[name] = max((n for row in cells if (n := _number(row.get(name))) is not None), default=None)
        head = "".join(f'<th scope="col"{_class("words", c in wordy)}>{escape(c)}</th>' for c in columns)
        body = ""
        for row in cells:
            body += "<tr>"
            for column in columns:
                value = row.get(column)
                top = column in tops and tops[column] is not None and _number(value) == tops[column]
                kind = "best" if top else "words"
                body += f"<td{_class(kind, top or column in wordy)}>{_in_pieces(_shown(value))}</td>"
            body += "</tr>"
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._pieces.append(
            f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        return self

    def add_picture(self, image: Picture, caption: str = "", *, alt: str = "") -> HtmlReport:
        """Add a picture: as PNG, or as JPEG where that is large.

        Args:
            image: a PIL image or a uint8 array.
            caption: below the picture.
            alt: what a reader who cannot see it should hear; the caption if empty.

        Raises:
            ShapeError: neither caption nor alt is given, or the image is not one.
        """
        described = alt or caption
        if not described:
            raise ShapeError("a picture needs a caption or an alt text for readers who cannot see it.")
        picture = as_rgb(image)
        kind, content = _encoded(picture)
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._pieces.append(
            f'<figure><img src="data:image/{kind};base64,{content}" width="{picture.width}" height="{picture.height}" '
            f'alt="{escape(described)}">{below}</figure>'
        )
        return self

    def add_chart(self, *charts: LineChart, caption: str = "") -> HtmlReport:
        """Add one or more charts, side by side where there is room."""
        figures = "".join(f"<figure>{chart.svg()}</figure>" for chart in charts)
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._pieces.append(f'<div class="charts">{figures}</div>{below}')
        return self

    def html(self) -> str:
        """Return the whole page."""
        lead = f'<p class="lead">{escape(self._lead)}</p>' if self._lead else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            'img-src data:">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head>\n"
            f"<body><main><h1>{escape(self._title)}</h1>{lead}\n"
            + "\n".join(self._pieces)
            + "\n</main></body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all, and return its path.

        Raises:
            OccludedReIDError: the file cannot be written.
        """
        write_text(path, self.html())
        return Path(path)


def _class(name: str, wanted: bool) -> str:
    return f' class="{name}"' if wanted else ""


def _in_pieces(text: str) -> str:
    """A cell that may break before its interval and nowhere in it, so that many columns fit a page."""
    value, opened, interval = text.partition(" [")
    return f"{escape(value)} <span>[{escape(interval)}</span>" if opened else escape(text)


def _number(value: Any) -> float | None:
    """The value if it is a finite number (a truth value is not), else None."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        return None
    return float(plain)


def _shown(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or (isinstance(plain, float) and math.isnan(plain)):
        return "–"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, int):
        return f"{plain:,}"
    if isinstance(plain, float):
        return f"{plain:.4f}" if plain == 0 or 1e-4 <= abs(plain) < 1e6 else f"{plain:.3e}"
    if isinstance(plain, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in plain.items()) or "–"
    if isinstance(plain, list | tuple):
        return ", ".join(_shown(item) for item in plain) or "–"
    return str(plain)


def _encoded(picture: Image.Image) -> tuple[str, str]:
    exact = io.BytesIO()
    picture.save(exact, "PNG", optimize=True)
    if exact.tell() < _JPEG_FROM or max(picture.size) > 65_000:
        return "png", base64.b64encode(exact.getvalue()).decode("ascii")
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=90, subsampling=0)
    return "jpeg", base64.b64encode(small.getvalue()).decode("ascii")
