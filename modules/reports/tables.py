"""Tables as text: how a figure is written, and rows of cells as Markdown, LaTeX or CSV."""

import csv
import io

LATEX_ESCAPES = {sign: "\\" + sign for sign in "%_&#${}"}
LATEX_ESCAPES.update({"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})
LATEX = r"""\begin{table}
\centering
\footnotesize
\setlength{\tabcolsep}{3pt}
\caption{%s}
\begin{tabular}{l%s}
\hline
%s
\hline
%s
\hline
\end{tabular}
\end{table}
"""


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


def markdown(rows):
    """A table of dicts of text cells with the same keys, which are the header; the vertical bar escaped."""
    lines = [rows[0], ["---"] * len(rows[0]), *map(dict.values, rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex(caption, rows):
    """The same as a floating table in plain LaTeX: the first column flush left, the others right."""
    header, *body = [" & ".join(map(latex_text, cells)) + r" \\" for cells in (rows[0], *map(dict.values, rows))]
    return LATEX % (latex_text(caption), "r" * (len(rows[0]) - 1), header, "\n".join(body))


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
