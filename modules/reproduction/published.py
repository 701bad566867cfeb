"""The figures of the paper's tables (He et al. 2019): NLL, KL, MI and AU, mean (standard deviation), as printed."""

import re

NAMES = {"nll": "NLL", "kl": "KL", "mi": "MI", "active_units": "AU"}
PRINTED = """
Yahoo     lm                 328.0 (0.3)
Yahoo     vae                329.0 (0.1)   0.0          0.0          0.0
Yahoo     vae_anneal         328.6 (0.0)   0.0          0.0          0.0
Yahoo     beta_anneal        328.7 (0.1)   6.3 (1.7)    2.8 (0.6)    8.0 (5.2)
Yahoo     savae_anneal       327.2 (0.2)   5.2 (1.4)    2.7 (0.5)    9.8 (1.3)
Yahoo     aggressive         328.2 (0.2)   5.6 (0.2)    3.0 (0.0)    8.0 (0.0)
Yahoo     aggressive_anneal  326.7 (0.1)   5.7 (0.7)    2.9 (0.2)    15.0 (3.5)
Yelp      lm                 358.1 (0.6)
Yelp      vae                358.3 (0.2)   0.0          0.0          0.0
Yelp      vae_anneal         357.9 (0.1)   0.0          0.0          0.0
Yelp      beta_anneal        358.2 (0.3)   4.2 (0.4)    2.0 (0.3)    4.2 (3.8)
Yelp      savae_anneal       355.9 (0.1)   2.8 (0.5)    1.7 (0.3)    8.4 (0.9)
Yelp      aggressive         356.9 (0.2)   3.4 (0.3)    2.4 (0.1)    7.4 (1.3)
Yelp      aggressive_anneal  355.9 (0.1)   3.8 (0.2)    2.4 (0.1)    11.3 (1.0)
Omniglot  lm                 89.73 (0.04)
Omniglot  vae                89.41 (0.04)  1.51 (0.05)  1.43 (0.07)  3.0 (0.0)
Omniglot  vae_anneal         89.21 (0.04)  1.97 (0.12)  1.79 (0.11)  5.3 (1.0)
Omniglot  beta_anneal        89.15 (0.04)  9.98 (0.20)  3.84 (0.03)  13.0 (0.7)
Omniglot  savae_anneal       89.07 (0.06)  3.32 (0.08)  2.63 (0.04)  8.6 (0.5)
Omniglot  aggressive         89.05 (0.05)  2.51 (0.14)  2.19 (0.08)  5.6 (0.5)
Omniglot  aggressive_anneal  89.11 (0.04)  2.36 (0.15)  2.02 (0.12)  7.2 (1.3)
"""


def printed(data, method):
    """What the paper prints of a method on `data`: {name of NAMES: "mean (deviation)" or "mean"}, as far as it does."""
    rows = (re.split("  +", line) for line in PRINTED.strip().splitlines())
    return next((dict(zip(NAMES, row[2:])) for row in rows if row[:2] == [data, method]), {})


def figures(data, method):
    """The same as numbers: {name of NAMES: (mean, standard deviation or None)}."""
    return {name: (*map(float, re.findall(r"[\d.]+", cell)), None)[:2] for name, cell in printed(data, method).items()}
