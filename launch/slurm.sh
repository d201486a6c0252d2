#!/usr/bin/env bash
#SBATCH --job-name=nanogpt2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=06:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nanogpt2-%j.log
# sbatch launch/slurm.sh --recipe run1 --out /shared/runs/run1
# sbatch --nodes=2 launch/slurm.sh ...    two nodes; --out on a disk that both see
# One task a node starts torchrun, which starts a rank on each GPU. Ten minutes before the time is
# up, Slurm sends this script SIGTERM: the run saves and ends, and the script puts its job back into
# the queue, to go on. (--requeue alone is for nodes that fail and jobs that are preempted.)
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

export NNODES=${SLURM_JOB_NUM_NODES:-1}
export RUN_ID=${SLURM_JOB_ID:-nanogpt2}
HEAD_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HEAD_ADDRESS
# since Slurm 22.05 a step does not take this over from its job
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

stopped=
srun --kill-on-bad-exit=1 launch/torchrun.sh "$@" &
step=$!
trap 'stopped=yes; kill -TERM "$step" || true' TERM
code=0
wait "$step" || code=$?
if [ -n "$stopped" ]; then # the signal ended that wait, not the run
    code=0
    wait "$step" || code=$?
    [ "$code" = 0 ] || scontrol requeue "$RUN_ID" # 0: it was done
fi
exit "$code"
