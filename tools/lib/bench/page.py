"""Figures as one HTML page that needs nothing else: tables, bars and curves as SVG."""
import html
import math

from bench import figures as f
from bench import report

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { margin-top: 2.2em; border-bottom: 1px solid #ccc; } h3 { margin: 1.8em 0 .3em; font-size: 1em; }
table { border-collapse: collapse; margin: .4em 0; } td, th { padding: .15em .9em .15em 0; text-align: left; }
th { font-weight: 600; border-bottom: 1px solid #ccc; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.method, .facts { color: #666; font-size: .87em; } svg { display: block; margin: .4em 0; } details { font-size: .87em; }
"""
COLOURS = {"snug": "#1f6fb2", "QEMU microvm": "#c2641a", "QEMU q35": "#d9a066", "kvmtool": "#4e8f4e"}
BAR, GAP, LEFT, WIDTH = 20, 8, 240, 900


def page(figures):
    facts = "".join(f"<div>{_e(name)}: {_e(value)}</div>" for name, value in figures.facts.items())
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>snug: figures</title>",
             f"<style>{STYLE}</style><h1>snug beside other monitors</h1><div class=facts>{facts}</div>"]
    missing = []
    tables = report.tables(figures)
    parts.append("<p>" + " &middot; ".join(f"<a href='#{_e(table)}'>{_e(table)}</a>" for table in tables))
    parts.append(" &middot; <a href='#missing'>not measured</a></p>")
    for table, groups in tables.items():
        parts.append(f"<h2 id='{_e(table)}'>{_e(table)}</h2>")
        parts += [curves(quantity, rows) for quantity, rows in _curves(groups).items()]
        for (case, quantity), rows in groups.items():
            measured = [row for row in rows if "values" in row]
            missing += [row for row in rows if "reason" in row]
            if measured:
                parts.append(_group(case, quantity, measured))
    if missing:
        parts.append("<h2 id=missing>Not measured</h2><table><tr><th>table<th>case<th>monitor<th>reason</tr>")
        parts += [f"<tr><td>{_e(row['table'])}<td>{_e(row['case'])}<td>{_e(row['monitor'])}<td>{_e(row['reason'])}</tr>"
                  for row in missing]
        parts.append("</table>")
    return "".join(parts) + "</html>\n"


def _group(case, quantity, rows):
    better = " <span class=method>(more is better)</span>" if rows[0]["better"] == "more" else ""
    wanted = any("budget" in row for row in rows)
    lines = [f"<h3>{_e(case)}: {_e(quantity)}{better}</h3>", bars(rows), "<table><tr><th>monitor<th>median<th>spread<th>runs"
             "<th>to snug" + ("<th>budget" if wanted else "") + "</tr>"]
    for row in rows:
        lines.append(f"<tr><td>{_e(row['monitor'])}<td class=n>{_e(f.shown(f.median(row), row['unit']))}"
                     f"<td class=n>{_e(report.noise(row))}<td class=n>{len(row['values'])}"
                     f"<td class=n>{report.ratio(row, rows)}" + (f"<td>{_e(report.budget(row))}" if wanted else "") + "</tr>")
    lines.append("</table>")
    for method in dict.fromkeys(row["method"] for row in rows):
        lines.append(f"<div class=method>method: {_e(method)}</div>")
    for row in rows:
        if row.get("detail"):
            cells = "".join(f"<tr><td>{_e(name)}<td class=n>{value}</tr>" for name, value in row["detail"].items())
            lines.append(f"<details><summary>{_e(row['monitor'])}: parts</summary><table>{cells}</table></details>")
    return "".join(lines)


def bars(rows):
    """One bar for each monitor as long as its median, with a line from its least to its greatest value; none where some
    are below 0."""
    if min(min(row["values"]) for row in rows) < 0:
        return ""
    most = max(max(row["values"]) for row in rows) or 1
    scale = (WIDTH - LEFT - 140) / most
    height = len(rows) * (BAR + GAP) + GAP
    out = [f'<svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img" font-size="13">']
    for number, row in enumerate(rows):
        y = GAP + number * (BAR + GAP)
        length = max(1.0, f.median(row) * scale)
        least, greatest = (LEFT + bound(row["values"]) * scale for bound in (min, max))
        out.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{_e(row["monitor"])}</text>'
                   f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{_colour(row)}"/>')
        if len(row["values"]) > 1:
            out.append(f'<path d="M{least:.1f} {y + 10}H{greatest:.1f}M{least:.1f} {y + 6}v8M{greatest:.1f} {y + 6}v8" '
                       'stroke="#222" fill="none"/>')
        out.append(f'<text x="{max(LEFT + length, greatest) + 8:.1f}" y="{y + 15}">'
                   f'{_e(f.shown(f.median(row), row["unit"]))}</text>')
    return "".join(out) + "</svg>"


def _curves(groups):
    """{quantity: rows} of those that are measured along something, at two places or more."""
    found = {}
    for (_, quantity), rows in groups.items():
        found.setdefault(quantity, []).extend(row for row in rows if row.get("along"))
    return {quantity: rows for quantity, rows in found.items() if len({row["along"][1] for row in rows}) > 1}


def curves(quantity, rows):
    """The medians of each monitor along what grows, which is drawn by its logarithm."""
    places = sorted({row["along"][1] for row in rows})
    greatest = max(f.median(row) for row in rows) or 1
    step = next(step for step in (10 ** math.floor(math.log10(greatest / 5)) * factor for factor in (1, 2, 5, 10))
                if step * 5 >= greatest)
    most = step * math.ceil(greatest / step)
    left, right, top, bottom = 90, WIDTH - 260, 14, 240

    def at(row):
        share = math.log(row["along"][1] / places[0]) / math.log(places[-1] / places[0])
        return left + share * (right - left), bottom - f.median(row) / most * (bottom - top)

    out = [f"<h3>{_e(quantity)}</h3>", f'<svg width="{WIDTH}" height="{bottom + 46}" viewBox="0 0 {WIDTH} {bottom + 46}" '
           'role="img" font-size="13">']
    for number in range(math.ceil(greatest / step) + 1):
        y = bottom - number * step / most * (bottom - top)
        out.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/><text x="{left - 8}" y="{y + 4:.1f}" '
                   f'text-anchor="end">{number * step:g} {_e(rows[0]["unit"])}</text>')
    for place in places:
        x = left + math.log(place / places[0]) / math.log(places[-1] / places[0]) * (right - left)
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{place}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">{_e(rows[0]["along"][0])}</text>')
    names = list(dict.fromkeys(row["monitor"] for row in rows))
    for number, name in enumerate(names):
        own = sorted((row for row in rows if row["monitor"] == name), key=lambda row: row["along"][1])
        points = [at(row) for row in own]
        colour = _colour(own[0])
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        y = top + 8 + number * 22
        out.append(f'<rect x="{right + 30}" y="{y - 9}" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{right + 48}" y="{y + 2}">{_e(name)}</text>')
    return "".join(out) + "</svg>"


def _colour(row):
    name = row["monitor"]
    if name.startswith("snug"):
        return "#7fb0d6" if any(word in name for word in (" off", "no kernel cache", ", thread")) else COLOURS["snug"]
    return next((colour for start, colour in COLOURS.items() if name.startswith(start)), "#888")


def _e(text):
    return html.escape(str(text))
