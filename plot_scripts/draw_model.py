"""The model as a drawing: z generates x through the decoder (theta), the encoder (phi) infers z from x.

    python plot_scripts/draw_model.py --output images/model.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch   # noqa: E402

from modules.reports import figures                                              # noqa: E402
from modules.command import Parser, run_command                           # noqa: E402


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("images/model.png"), help="where the drawing goes")
    args = parser.parse_args()
    figure, panel = figures.pyplot.subplots(figsize=(4.2, 2.6))
    panel.set(xlim=(0, 4.2), ylim=(0, 2.6), aspect="equal")
    panel.axis("off")
    panel.add_patch(FancyBboxPatch((1.25, 0.18), 1.7, 2.25, boxstyle="round,pad=0.05", fill=False, color="#999999"))
    panel.text(2.88, 0.22, "N", color="#777777", ha="right", fontsize=11)
    for letter, y, colour in (("z", 1.95, "white"), ("x", 0.7, "#d9d9d9")):
        panel.add_patch(Circle((2.1, y), 0.27, facecolor=colour, edgecolor="black"))
        panel.text(2.1, y, f"${letter}$", ha="center", va="center", fontsize=15)
    arrow(panel, (1.93, 0.92), (1.93, 1.73), figures.ENCODER, "dashed", -0.35)
    arrow(panel, (2.27, 1.73), (2.27, 0.92), figures.DECODER, "solid", -0.35)
    for x, words, colour in ((0.55, "encoder\n" + r"$q_\phi(z|x)$", figures.ENCODER),
                             (3.65, "decoder\n" + r"$p_\theta(x|z)$", figures.DECODER)):
        panel.text(x, 1.32, words, color=colour, ha="center", va="center", fontsize=12)
    figures.save_figure(figure, args.output, dpi=120, bbox_inches="tight")


def arrow(panel, start, end, colour, style, bend):
    """A bent arrow from start to end."""
    panel.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, linestyle=style,
                                    linewidth=1.6, connectionstyle=f"arc3,rad={bend}"))


if __name__ == "__main__":
    run_command(main)
