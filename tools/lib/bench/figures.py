"""Figures: what a table is made of, and how it is kept in a file.

A figure is one quantity of one monitor in one case, with every run's value; or the reason why there is none.
"""
import json
import os
import statistics
import sys


class Figures:
    """The figures of one run, in order. `grown(self)` is called after each of them: what was measured before a run is
    cut off is not lost."""

    def __init__(self, facts=None, grown=None):
        self.grown = grown
        self.facts = facts or {}
        self.rows = []
        self.begun = []  # what was begun, for a run that goes on where another was cut off

    def begin(self, *words):
        """Whether a piece of work, known by these words, is still to be done; from now on it is not."""
        piece = ": ".join(words)
        if piece in self.begun:
            return False
        self.begun.append(piece)
        if self.grown:
            self.grown(self)
        return True

    def add(self, table, case, quantity, monitor, values, unit, method, better="less", exact=False, detail=None,
            tolerance=None, along=None, budget=None):
        """`values`: one for each run. `exact`: the same whenever it is measured, so that any change is one.
        `detail`: smaller parts, name to number. `tolerance`: the part of it by which it differs from run to run, if that is
        more than usual. `along`: (what grows from case to case, how much of it this is), for cases that make a curve.
        `budget`: what the median should not be above."""
        row = {"table": table, "case": case, "quantity": quantity, "monitor": monitor, "unit": unit,
               "values": list(values), "method": method, "better": better}
        if exact:
            row["exact"] = True
        if tolerance:
            row["tolerance"] = tolerance
        if budget is not None:
            row["budget"] = budget
        if along:
            row["along"] = list(along)
        if detail:
            row["detail"] = detail
        self._keep(row)

    def missing(self, table, case, quantity, monitor, reason):
        self._keep({"table": table, "case": case, "quantity": quantity, "monitor": monitor, "reason": reason})

    def _keep(self, row):
        # In the place of one that a lab, which ended early, had of it.
        self.rows = [other for other in self.rows if key(other) != key(row)] + [row]
        result = shown(median(row), row["unit"]) if "values" in row else f"not measured: {row['reason']}"
        print(f"bench: {row['table']}: {row['case']}: {row['quantity']}: {row['monitor']}: {result}", file=sys.stderr,
              flush=True)
        if self.grown:
            self.grown(self)

    def write(self, path):
        """The whole file or none of it: a reader, or a run that is cut off, never meets a part."""
        replaced = os.path.realpath(path)
        plain = not os.path.exists(replaced) or os.path.isfile(replaced)  # a device is written to as it is
        new = replaced + ".new" if plain else replaced
        with open(new, "w") as file:
            json.dump({"format": 1, "facts": self.facts, "rows": self.rows, "begun": self.begun}, file, indent=1)
            file.write("\n")
        if plain:
            os.replace(new, replaced)


def read(path):
    """A file written by Figures. OSError when it cannot be read, ValueError when it is none."""
    with open(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
        if content["format"] != 1:
            raise ValueError(f"format {content['format']}")
        figures = Figures(facts=content["facts"])
        figures.rows = content["rows"]
        for row in figures.rows:
            key(row)
    except (ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"not a file of tools/bench --json ({type(problem).__name__}: {problem})") from None
    figures.begun = content.get("begun", [])
    return figures


def key(row):
    return row["table"], row["case"], row["quantity"], row["monitor"]


def middle(values):
    return statistics.median(values)


def median(row):
    return middle(row["values"])


def spread(row):
    """Distance of the extremes, as a part of the median; of per cents, which may be around 0, in points."""
    distance = max(row["values"]) - min(row["values"])
    if row["unit"] == "%":
        return distance
    return distance / median(row) if median(row) else 0.0


def shown(value, unit):
    """A value with about four digits and its unit."""
    if unit == "" or float(value).is_integer() and abs(value) < 1e6:
        text = f"{value:,.0f}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.1f}"
    elif abs(value) >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.4f}"
    return f"{text} {unit}".rstrip()
