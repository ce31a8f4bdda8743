#!/usr/bin/env bash
# Everything that needs a GPU, in one command, in under ten minutes: the kernels' tests and table, then the service's
# parts and whole models of real shape.
# Needs an NVIDIA GPU, python3 with torch, triton and transformers; no network, nothing installed.
# Results: benchmarks/results/gpu (JSON, CSV, Markdown, PNG). PYTHON chooses another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=proto:client:service:kernels${PYTHONPATH:+:$PYTHONPATH}
unset TRITON_INTERPRET # which would run the kernels on the processor

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: there is no NVIDIA GPU that torch can use here: nothing was measured" >&2
    exit 2
fi
"$PYTHON" benchmarks/kernel_speed.py || failed=1
# What has not begun after eight minutes is left out, and its row says so: ten are the limit.
"$PYTHON" benchmarks/models.py --seconds "$((480 - SECONDS))" || failed=1
exit "${failed:-0}"
