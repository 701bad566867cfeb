"""What is to be reproduced: the methods that are the rows of tables, the tables, and the runs behind a row.

A run is never described twice: its id, files and settings all follow from the flags of its command.
"""

from dataclasses import dataclass, field, replace

from modules.domains.domain import RUNNING, Domain, settle
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.evaluation.optimum import KNOWN, Optimum
from modules.settings import Settings, parse
from modules.training.run_files import RunFiles

ANNEAL = "--kl_start 0.1 --warm_up {anneal}"
AUTOENCODER = {  # {domain: flags} of a run that is in no row, but whose best model another one starts from, as {needed}
    "text": "--beta 0.0 --optimizer adam --lr 0.01",  # at the published rate of SGD it finds z late or never
    "image": "--beta 0.0",
}
ROWS = {  # {row: flags}; those in braces but {needed} are the table's
    "lm": "--model lm",
    "vae": "--kl_start 1.0",
    "vae_anneal": ANNEAL,
    "beta_anneal": "--beta {beta} " + ANNEAL,  # Higgins et al. 2017
    "savae_anneal": "--model savae {svi} " + ANNEAL,  # Kim et al. 2018
    "aggressive": "--aggressive 1 --kl_start 1.0",
    "aggressive_anneal": "--aggressive 1 " + ANNEAL,
    "steady": "--aggressive 1 --steady --inner_clip encoder --kl_start 1.0",  # this project's
    "steady_anneal": "--aggressive 1 --steady --inner_clip encoder " + ANNEAL,
    "cyclical": "--kl_start 0.0 --warm_up {cycle} --kl_cycles 4",  # Fu et al. 2019
    "free_bits": "--free_bits 0.1",  # Kingma et al. 2016
    "free_bits_sum": "--free_bits 3 --free_bits_over sum",
    "ae_init": "--encoder_from {needed} --free_bits 3 --free_bits_over sum " + ANNEAL,  # Li et al. 2019
    "batch_norm": "--bn_gamma 0.6",  # Zhu et al. 2020
    "committed_rate": "--committed_rate 3",  # Razavi et al. 2019
}
OF_PAPER = ("lm", "vae", "vae_anneal", "aggressive", "aggressive_anneal")  # what the paper is about
OF_STEADY = ("steady", "steady_anneal")
MAIN = (*OF_PAPER, *OF_STEADY)  # rows with more seeds
COLUMNS = ("nll", "ppl", "kl", "mi", "mi_agg", "active_units", "aggressive_epochs", "hours")  # as in a log


@dataclass(frozen=True)
class Table:
    """One table: what all its runs have in common, how many seeds a row has, and what stands beside ours."""

    name: str
    title: str
    domain: Domain
    flags: str
    published: str  # the data of the paper's figures; "" if it has none
    beta: float  # of the beta-VAE, as published
    rows: tuple = tuple(ROWS)  # its rows
    seeds: tuple = (5, 5)  # of the rows in MAIN, of the others
    anneal: int = 10  # epochs of KL annealing
    cycle: int = 5  # epochs of each of the four rises of cyclical annealing
    svi: str = ""  # the flag of the semi-amortised VAE's steps, if they are not its domain's
    remark: str = ""  # on how far ours and the published figures compare
    columns: tuple = COLUMNS  # of our figures
    against: str = ""  # the row that others are compared with, seed by seed
    optimum: Optimum | None = None  # the best that can be done on these data, where it is known


PTB_TINY = "--dataset ptb_tiny --train_limit 5000 --iw_nsamples 100"
OMNIGLOT_TINY = "--dataset omniglot_tiny --train_limit 1600 --iw_nsamples 25"
REMARK = "Data and sizes differ from the published ones: compare the pattern, not the values."
SMALL = {
    "rows": tuple(row for row in ROWS if row not in OF_STEADY),
    "seeds": (3, 1),
    "anneal": 5,
    "svi": "--svi_steps 5",
    "remark": REMARK,
}
COMPARED = ("kl", "mi", "mi_agg", "active_units", "collapsed", "encoder_steps", "minutes")
PTB_SMALL = Table("ptb", "Penn Treebank, 5,000 sentences, a small LSTM", TEXT, PTB_TINY, "Yahoo", 0.4, cycle=2, **SMALL)
PTB_ADAM = replace(
    PTB_SMALL,
    name="ptb_adam",
    title=f"{PTB_SMALL.title}, Adam",
    flags=f"{PTB_TINY} --optimizer adam --lr 0.003",
    published="",
    rows=tuple(row for row in PTB_SMALL.rows if row not in ("savae_anneal", "aggressive")),
    seeds=(1, 1),
    svi="",
    remark="",
    columns=("nll", "kl", "mi", "mi_agg", "active_units"),
)
SYNTHETIC = Table(
    "synthetic",
    "The synthetic set, published data and sizes",
    TEXT,
    "--dataset synthetic",
    "",
    0.4,
    rows=(*MAIN, "beta_anneal", "savae_anneal", "ae_init"),
    seeds=(10, 3),
    svi="--svi_steps 5",
    columns=("nll", "gap", *COMPARED),
    against="vae_anneal",
    optimum=next(iter(KNOWN.values())),
)
SYNTHETIC_ADAM = replace(
    SYNTHETIC,
    name="synthetic_adam",
    title=f"{SYNTHETIC.title}, Adam",
    flags=f"{SYNTHETIC.flags} --optimizer adam",
    rows=("lm", "vae", "vae_anneal", "beta_anneal", "savae_anneal", "aggressive_anneal", "ae_init"),
    seeds=(3, 3),
)
PTB_SHORT = Table(
    "ptb_short",
    "Penn Treebank, sentences of 4 to 13 words",
    TEXT,
    "--dataset ptb_short",
    "",
    0.4,
    rows=MAIN,
    seeds=(3, 3),
    anneal=5,
    columns=("nll", *COMPARED),
    against="vae_anneal",
)
PTB_WHOLE = Table(
    "ptb",
    "Penn Treebank, whole",
    TEXT,
    "--dataset ptb --precision bf16 --epochs 20 --iw_nsamples 100",
    "",
    0.4,
    rows=("lm", "vae_anneal", "aggressive_anneal", "steady_anneal"),
    seeds=(1, 1),
    anneal=5,
    columns=("nll", "ppl", *COMPARED),
    against="vae_anneal",
)
DEMO = replace(
    SYNTHETIC,
    name="demo",
    title="The synthetic set, published data and sizes, 12 epochs",
    flags="--dataset synthetic --epochs 12 --jobid 12",
    rows=("vae_anneal", "steady_anneal"),
    seeds=(1, 1),
    svi="",
)
SCALES = {
    "demo": (DEMO,),
    "synthetic": (SYNTHETIC,),
    "ptb_short": (PTB_SHORT,),
    "ptb": (PTB_WHOLE,),
    "small": (
        PTB_SMALL,
        Table(
            "omniglot",
            "Omniglot, 1,600 images, a small PixelCNN",
            IMAGE,
            OMNIGLOT_TINY,
            "Omniglot",
            0.8,
            cycle=1,
            **SMALL,
        ),
    ),
    "adam": (PTB_ADAM, SYNTHETIC_ADAM),
    "paper": (
        Table("yahoo", "Yahoo", TEXT, "--dataset yahoo", "Yahoo", 0.4),
        Table("yelp", "Yelp", TEXT, "--dataset yelp", "Yelp", 0.4),
        Table("omniglot", "Omniglot", IMAGE, "--dataset omniglot", "Omniglot", 0.8),
    ),
}


@dataclass(frozen=True)
class Run:
    """One run of a script."""

    id: str
    script: str
    arguments: tuple  # of its command, which goes on where there is a state, else starts
    needs: "Run | None"  # the run whose best model this one starts from
    s: Settings = field(compare=False)
    files = property(lambda run: RunFiles(run.s.dataset, run.id))


def rows_of(table, rows=tuple(ROWS), seeds=None):
    """Of a table those among `rows`: {row: its runs, one a seed}; `seeds` overrides how many."""
    of_main, of_others = table.seeds
    counts = {row: seeds or (of_main if row in MAIN else of_others) for row in rows if row in table.rows}
    return {row: [plan_run(table, ROWS[row], task) for task in range(count)] for row, count in counts.items()}


def plan_run(table, flags, task):
    """The run with the flags of a method and seed number `task`."""
    needs = plan_run(table, AUTOENCODER[table.domain.name], task) if "{needed}" in flags else None
    flags = flags.format(**vars(table), needed=needs and needs.files.model.as_posix())
    arguments = *table.flags.split(), *flags.split(), "--taskid", str(task), "--resume"
    s = settle(parse((*table.domain.groups, RUNNING), "A planned run", arguments))
    return Run(table.domain.run_id(s), f"{table.domain.name}.py", arguments, needs, s)
