# make test   the whole test suite
# make demo   collapse and its cure on synthetic data, in minutes
# Both need only Python >= 3.10: they create .venv and install the pinned requirements there.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

DEMO := --dataset synthetic --train_limit 4000 --epochs 4 --iw_nsamples 100 --test_nepoch 50 \
	--overwrite --jobid 1

.PHONY: test demo

test: $(VENV)/installed
	$(RUN) -m pytest -q

demo: $(VENV)/installed
	$(RUN) prepare_data.py --dataset synthetic --generate
	$(RUN) text.py $(DEMO) --aggressive 0
	$(RUN) text.py $(DEMO) --aggressive 1
	$(RUN) plot_scripts/table.py logs/synthetic/synthetic_aggressive?_kls1.00_warm10_1_0_783435.jsonl

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
