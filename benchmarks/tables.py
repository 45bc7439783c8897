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
    return "\n".join((f".. list-table:: {title}", "   :header-rows: 1", "", *rows, ""))


def write_csv(lines, path):
    """Write `dict` of the same keys as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
