"""Tables of the benchmarks: on the screen, in reStructuredText and as CSV files."""

import csv


def print_table(lines):
    """Print `dict` of the same keys in columns."""
    widths = {key: max(len(key), *(len(str(line[key])) for line in lines)) for key in lines[0]}
    for line in ({key: key for key in lines[0]}, *lines):
        print("  ".join(f"{line[key]!s:<{width}s}" for key, width in widths.items()).rstrip())


def list_table(title, lines):
    """Return `dict` of the same keys as a list-table in reStructuredText."""
    cells = [list(lines[0]), *([str(value) for value in line.values()] for line in lines)]
    rows = (f"   {'*' if index == 0 else ' '} - {cell}".rstrip() for row in cells for index, cell in enumerate(row))
    return "\n".join((f".. list-table:: {title}".rstrip(), "   :header-rows: 1", "", *rows, ""))


def write_csv(lines, path):
    """Write `dict` of the same keys as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


class Verdicts:
    """Requirements, measured values, and whether they are met."""

    def __init__(self):
        #: Lines for `print_table` and `list_table`.
        self.lines = []

    def ask(self, what, asked, values, good, worst=max):
        """
        Add a line with the worst of several values; NaN are left out, and nothing is added without values.

        Parameters
        ----------
        what, asked : `str`
            What is measured, and the limit in words.
        values : `dict`
            Values by name.
        good : callable
            Whether a value is met.
        worst : callable, optional
            `max` or `min`.
        """
        values = {key: float(value) for key, value in values.items() if value == value}
        if not values:
            return
        key, failed = worst(values, key=values.get), sum(not good(value) for value in values.values())
        met = "yes" if not failed else f"NO ({failed} of {len(values)})"
        self.lines.append({"what": what, "asked": asked, "worst": f"{values[key]:.4g} ({key})", "met": met})
