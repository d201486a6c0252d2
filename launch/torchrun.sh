#!/usr/bin/env bash
# One machine, or several that see each other; arguments go on to nanogpt2.speedrun.
#
# One machine, all its GPUs:
#   launch/torchrun.sh --recipe run1
# Two machines: the same on both, with the address of the first; torchrun numbers them itself.
#   NNODES=2 HEAD_ADDRESS=10.0.0.1 launch/torchrun.sh --recipe run1 --out /shared/runs/run1
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
NNODES=${NNODES:-1}
HEAD_ADDRESS=${HEAD_ADDRESS:-localhost}
PORT=${PORT:-29500}
RANKS=${RANKS:-gpu} # processes on each machine: a number, or gpu for one on each GPU
RESTARTS=${RESTARTS:-3}
# seconds that ranks have to save after SIGTERM; torch would kill them after 30
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

exec "$PYTHON" -m torch.distributed.run \
    --nnodes "$NNODES" --nproc-per-node "$RANKS" --max-restarts "$RESTARTS" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD_ADDRESS:$PORT" --rdzv-id "${RUN_ID:-nanogpt2}" \
    -m nanogpt2.speedrun "$@"
