#!/usr/bin/env bash
# For the day when a GPU is lent: all that is to be known of it, in slices of under ten minutes each.
#
#   OUT=results bash benchmarks/gpu.sh tests        # the commands on the card
#   OUT=results bash benchmarks/gpu.sh steps        # training steps, likelihood and drawing images against the textbook
#   OUT=results bash benchmarks/gpu.sh sampling     # sentences: greedy and beam search, batched against one by one
#   OUT=results bash benchmarks/gpu.sh train        # the published Omniglot row; Yahoo, 20,000 documents at most; again: goes on
#   OUT=results bash benchmarks/gpu.sh table        # the figures of all runs so far
#
# Several slices may stand in one command. What a slice prints is kept in $OUT/<slice>.txt, runs in $OUT/runs. No network:
# `datasets/` must hold what `prepare_data.py` makes of Omniglot and Yahoo, or else MIRROR the folder of their upstream
# files. Also read from the environment: FROM, the $OUT of an earlier day, whose runs go on here; SLICE, seconds (520);
# PYTHON; and SMALL=1, tiny sizes to try the script with.

set -u -o pipefail
cd "$(dirname "$0")/.." || exit
repository=$PWD
[ $# -gt 0 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' benchmarks/gpu.sh; exit 2; }
: "${OUT:?where results go}" "${SLICE:=520}" "${SMALL:=}" "${FROM:=}" "${MIRROR:=}"
PYTHON=$(command -v "${PYTHON:-python}") || exit
mkdir -p "$OUT/runs" && OUT=$(cd "$OUT" && pwd) || exit

limited() {                     # limited SECONDS COMMAND...: Ctrl-C after so long, so that a run saves its state
    local status=0
    timeout --signal=INT --kill-after=30 "$@" || status=$?
    case $status in 0) ;; 124) echo "--- ends after $1 s" ;; *) echo "--- exit code $status: ${*:2}" ;; esac
}

tests() {
    limited "$SLICE" "$PYTHON" -m pytest -q -rs tests/test_cuda.py
}

steps() {
    local sizes=(toy ptb yahoo) third=$((SLICE / 3))
    [ -z "$SMALL" ] || sizes=(toy)
    limited $((2 * third)) "$PYTHON" benchmarks/bench_text.py --sizes "${sizes[@]}" --seconds $((SLICE / 9))
    limited "$third" "$PYTHON" benchmarks/bench_image.py --seconds $((SLICE / 9))
}

sampling() {
    limited "$SLICE" "$PYTHON" benchmarks/bench_decoding.py ${SMALL:+--sentences 20 --part 2}
}

train() {
    local published="--aggressive 1 --warm_up 10 --kl_start 0.1 --save_every 2 --resume"
    local image="--dataset omniglot" text="--dataset yahoo --train_limit 20000"
    [ -z "$SMALL" ] || image="--dataset omniglot --train_limit 100 --enc_layers 4 --dec_layers 4 --dec_kernel_size 3 \
        --max_iterations 3" text="--dataset yahoo --train_limit 40 --ni 4 --enc_nh 4 --dec_nh 4 \
        --vocab_limit 100 --max_iterations 3"
    prepare
    cd "$OUT/runs" || exit
    # shellcheck disable=SC2086     # several words each
    limited $((SLICE / 2)) "$PYTHON" "$repository/image.py" $image $published
    # shellcheck disable=SC2086
    limited $((SLICE / 2)) "$PYTHON" "$repository/text.py" $text $published
    table
}

prepare() {                     # the data, and in $OUT/runs what the scripts read there; runs of an earlier day, once
    [ -z "$MIRROR" ] || for name in omniglot yahoo; do
        "$PYTHON" prepare_data.py --dataset "$name" --mirror "$MIRROR" || exit
    done
    ln -sfn "$repository/config" "$OUT/runs/config"
    ln -sfn "$repository/datasets" "$OUT/runs/datasets"
    if [ -n "$FROM" ] && [ ! -e "$OUT/runs/models" ]; then
        cp -R "$FROM/runs/models" "$FROM/runs/logs" "$OUT/runs/" && chmod -R u+w "$OUT/runs/models" "$OUT/runs/logs" || exit
    fi
}

table() {
    local logs=("$OUT"/runs/logs/*/*.jsonl)
    [ -e "${logs[0]}" ] || { echo "no run yet"; return; }
    "$PYTHON" "$repository/plot_scripts/table.py" "${logs[@]}"
    for log in "${logs[@]/%.jsonl/.log}"; do    # what stands there of runs that are not finished
        echo "last validation of $(basename "$log" .log):" "$(grep '^VAL' "$log" | tail -n 1)"
    done
}

for slice in "$@"; do
    case $slice in
    tests | steps | sampling | train | table) (cd "$repository" && "$slice") 2>&1 | tee -a "$OUT/$slice.txt" ;;
    *) echo "no slice $slice: tests, steps, sampling, train or table" >&2; exit 2 ;;
    esac
done
