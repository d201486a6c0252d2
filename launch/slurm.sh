#!/usr/bin/env bash
#SBATCH --job-name=nanogpt2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=06:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --output=nanogpt2-%j.log
# sbatch launch/slurm.sh --recipe run1 --out /shared/runs/run1
# sbatch --nodes=2 launch/slurm.sh ...    two nodes; --out on a disk that both see
# One task a node starts torchrun, which starts a rank on each GPU. Ten minutes before the time is
# up, or when the job is preempted, Slurm sends SIGTERM: the run saves, and the requeued job goes on.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

export NNODES=${SLURM_JOB_NUM_NODES:-1}
export RUN_ID=${SLURM_JOB_ID:-nanogpt2}
HEAD_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HEAD_ADDRESS

exec srun --kill-on-bad-exit=1 launch/torchrun.sh "$@"
