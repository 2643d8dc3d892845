"""Figures as text, and what became worse since another run."""
from bench import figures as f


def tables(figures):
    """{table: {(case, quantity): [rows]}}, in the order of measuring."""
    found = {}
    for row in figures.rows:
        found.setdefault(row["table"], {}).setdefault((row["case"], row["quantity"]), []).append(row)
    return found


def ratio(row, rows):
    """This row's median beside snug's, as text."""
    own = next((r for r in rows if r["monitor"].startswith("snug") and "values" in r), None)
    if own is None or own is row or not f.median(own) or row["unit"] == "%":
        return ""
    return f"{f.median(row) / f.median(own):.2f} x"


def noise(row):
    """The spread of a row as text; one run has none."""
    if len(row["values"]) < 2:
        return "-"
    return f"{f.spread(row):.1f} points" if row["unit"] == "%" else f"{f.spread(row):.1%}"


def budget(row):
    """The row's budget, and whether it is met, as text."""
    if "budget" not in row:
        return ""
    return f"{f.shown(row['budget'], row['unit'])}: {'met' if round(f.median(row), 3) <= row['budget'] else 'not met'}"


def _grid(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def text(figures):
    out = [f"{name}: {value}" for name, value in figures.facts.items()]
    reasons = {}
    for table, groups in tables(figures).items():
        out += ["", f"== {table} " + "=" * (70 - len(table))]
        for (case, quantity), rows in groups.items():
            measured = [row for row in rows if "values" in row]
            for row in rows:
                if "reason" in row:
                    reasons.setdefault((table, row["monitor"], row["reason"]), []).append(f"{case}: {quantity}")
            if not measured:
                continue
            out += ["", f"{case}: {quantity}" + (" (more is better)" if measured[0]["better"] == "more" else "")]
            wanted = any("budget" in row for row in measured)
            lines = [("monitor", "median", "spread", "runs", "to snug", *(["budget"] if wanted else []))]
            for row in measured:
                lines.append((row["monitor"], f.shown(f.median(row), row["unit"]), noise(row), str(len(row["values"])),
                              ratio(row, measured), *([budget(row)] if wanted else [])))
            out += _grid(lines)
            methods = dict.fromkeys(row["method"] for row in measured)
            out += [f"  method: {method}" for method in methods]
            if table in ("exits", "memory"):
                for row in measured:
                    if row.get("detail"):
                        parts = ", ".join(f"{name} {value}" for name, value in list(row["detail"].items())[:14])
                        out.append(f"  {row['monitor']}: {parts}")
    if reasons:
        out += ["", "== not measured " + "=" * 59]
        for (table, monitor, reason), cases in reasons.items():
            out.append(f"  {table}, {monitor}: {reason} ({len(cases)} row{'s' if len(cases) > 1 else ''})")
    return "\n".join(out)


# What a quantity may differ by before it counts as changed, unless its row says so; the runs' own spread comes on top.
TOLERANCE = 0.03


def compare(old, new, names=None):
    """Lines saying what got worse, what got better, what is gone; and whether anything of snug got worse. `names`: the
    tables that were measured this time, all of them unless said."""
    before = {f.key(row): row for row in old.rows if names is None or row["table"] in names}
    worse, better, lost, others = [], [], [], []
    compared = 0
    for row in new.rows:
        was = before.pop(f.key(row), None)
        if was is None or "values" not in was:
            continue
        own = "snug" in row["monitor"]
        if "values" not in row:
            (lost if own else others).append(f"{_name(row)}: no longer measured: {row['reason']}")
            continue
        compared += 1
        change = relative_change(was, row)
        slack = 0 if row.get("exact") else max(row.get("tolerance", TOLERANCE), f.spread(was), f.spread(row))
        line = f"{_name(row)}: {f.shown(f.median(was), was['unit'])} -> {f.shown(f.median(row), row['unit'])} " \
            + (f"({change:+.1f} points)" if row["unit"] == "%" else f"({change:+.1%})")
        rise = change if row["better"] == "less" else -change
        if abs(rise) > slack:
            (others if not own else worse if rise > 0 else better).append(line)
    lines = [f"{name}: {old.facts.get(name)} -> {new.facts.get(name)}" for name in ("host", "guests", "runs")
             if old.facts.get(name) != new.facts.get(name)]
    for title, found in (("worse", worse), ("better", better), ("no longer measured", lost),
                         ("changed, of other monitors", others)):
        lines += [f"{title}: {len(found)}"] + [f"  {line}" for line in found]
    gone = sum("values" in row for row in before.values())
    lines.append(f"compared: {compared} figures" + (f"; {gone} more of {old.facts.get('date')} were not looked for" if gone else ""))
    return lines, bool(worse or lost)


def relative_change(was, now):
    """As a part of what was; of per cents, in points."""
    if now["unit"] == "%":
        return f.median(now) - f.median(was)
    middle = f.median(was)
    if middle == 0:
        return 0.0 if f.median(now) == 0 else float("inf")
    return f.median(now) / middle - 1


def _name(row):
    return f"{row['table']}: {row['case']}: {row['quantity']}: {row['monitor']}"
