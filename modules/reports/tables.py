"""Tables as text: how a figure is written, and rows of cells as Markdown, LaTeX or CSV."""

import csv
import io

LATEX_ESCAPES = {"\\": r"\textbackslash{}", **{sign: "\\" + sign for sign in "%_&#${}"}, "~": r"\textasciitilde{}",
                 "^": r"\textasciicircum{}"}


def number(value, decimals=2):
    """A number as tables show it: whole ones as they are, others rounded, never "-0.00"; None as "-"."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def with_deviation(figure, decimals=2):
    """A pair (mean, standard deviation or None) as "mean (deviation)"; None as "-"."""
    if figure is None:
        return "-"
    mean, deviation = figure
    return number(mean, decimals) + (f" ({number(deviation, decimals)})" if deviation is not None else "")


def markdown(header, rows):
    """A table of text cells, the vertical bar escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex(caption, header, rows):
    """A floating table of text cells in plain LaTeX: the first column flush left, the others right."""
    body = [r"\begin{table}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{latex_text(caption)}}}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline",
            latex_row(header), r"\hline", *map(latex_row, rows), r"\hline", r"\end{tabular}", r"\end{table}"]
    return "".join(f"{line}\n" for line in body)


def latex_row(cells):
    """One row of a LaTeX table, its cells any text."""
    return " & ".join(map(latex_text, cells)) + r" \\"


def latex_text(text):
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX_ESCAPES.get(sign, sign) for sign in text)


def comma_separated(rows):
    """CSV of dicts with the same keys, numbers in full, None as an empty cell."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
