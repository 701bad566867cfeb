"""The model as a drawing: z generates x through the decoder (theta), the encoder (phi) infers z from x.

python plot_scripts/draw_model.py --output images/model.png
"""

from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from start import Path, parse, run_command

from modules.reports import figures


def main():
    args = parse(__doc__, output={"default": Path("images/model.png"), "help": "where the drawing goes"})
    figure, panel = figures.pyplot.subplots(figsize=(4.2, 2.6))
    panel.set(xlim=(0, 4.2), ylim=(0, 2.6), aspect="equal")
    panel.axis("off")
    panel.add_patch(FancyBboxPatch((1.25, 0.18), 1.7, 2.25, boxstyle="round,pad=0.05", fill=False, color="#999999"))
    panel.text(2.88, 0.22, "N", color="#777777", ha="right", fontsize=11)
    for letter, y, colour in (("z", 1.95, "white"), ("x", 0.7, "#d9d9d9")):
        panel.add_patch(Circle((2.1, y), 0.27, facecolor=colour, edgecolor="black"))
        panel.text(2.1, y, f"${letter}$", ha="center", va="center", fontsize=15)
    bent = {"arrowstyle": "-|>", "mutation_scale": 14, "linewidth": 1.6, "connectionstyle": "arc3,rad=-0.35"}
    for words, x, start, end, colour, style in (
        ("encoder\n$q_\\phi(z|x)$", 0.55, (1.93, 0.92), (1.93, 1.73), figures.ENCODER, "dashed"),
        ("decoder\n$p_\\theta(x|z)$", 3.65, (2.27, 1.73), (2.27, 0.92), figures.DECODER, "solid"),
    ):
        panel.add_patch(FancyArrowPatch(start, end, color=colour, linestyle=style, **bent))
        panel.text(x, 1.32, words, color=colour, ha="center", va="center", fontsize=12)
    figures.save_figure(figure, args.output, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    run_command(main)
