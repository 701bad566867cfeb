# make test   the whole test suite
# make lint   ruff: likely mistakes, and whether the code is laid out as ruff does it
# make torture   kills, damaged files and bad inputs at random: docs/reliability.md
# make demo   collapse and its cure on synthetic data, in minutes
# make figures   the pictures of the README, from toy runs of its own, into images/
# They need only Python >= 3.10: each creates .venv and installs the pinned requirements there.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# The runs of demo and figures lie in folders of their own, so that they never meet yours.
CLOUD := --plot_mode multiple --max_iterations 2000 --num_plot 200 --overwrite
PATH_OF_ONE := --plot_mode single --max_iterations 40 --overwrite
IN_BUILD = mkdir -p build/$@ && cd build/$@ && ../../$(RUN) ../..

.PHONY: test lint torture demo figures

test: $(VENV)/installed
	$(RUN) -m pytest -q -n auto

lint: $(VENV)/installed
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

torture: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) tests/faults/torture.py --trials kill=300 flip=300 input=600

demo: $(VENV)/installed
	$(IN_BUILD)/prepare_data.py --dataset synthetic --generate
	$(IN_BUILD)/reproduce.py --scale demo --workers 2
	mkdir -p plot_figure && cp build/demo/build/tables/demo_demo_optimum.png plot_figure/demo.png

figures: $(VENV)/installed
	$(IN_BUILD)/prepare_data.py --dataset synthetic --generate
	$(IN_BUILD)/toy.py --aggressive 0 $(CLOUD)
	$(IN_BUILD)/toy.py --aggressive 1 $(CLOUD)
	$(IN_BUILD)/toy.py --aggressive 0 $(PATH_OF_ONE)
	$(IN_BUILD)/toy.py --aggressive 1 $(PATH_OF_ONE)
	$(IN_BUILD)/plot_scripts/plot_multiple.py --aggressive 0 1 --iter 0 200 600 1200 2000 --dpi 120 \
		--output $(CURDIR)/images/trajectory.png
	$(IN_BUILD)/plot_scripts/animate.py --aggressive 0 --id 3 --steps 1 30 --output $(CURDIR)/images/basic_single.gif
	$(IN_BUILD)/plot_scripts/animate.py --aggressive 1 --id 3 --steps 1 30 --output $(CURDIR)/images/aggr_single.gif
	$(RUN) plot_scripts/draw_model.py --output images/model.png

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
