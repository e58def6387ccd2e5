#!/usr/bin/env bash
# Trains in a Slurm job, one process per task:
#
#   experiments/pod/slurm.sh --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 -- \
#     --config=... --workdir=...
#
# Options of sbatch precede --, the flags of experiments.train follow it. On GPU nodes, each task
# has one GPU. Run it in the checkout; the checkout and --workdir must be on a disk that all nodes
# share. PYTHON is the Python to use, by default .venv/bin/python. A minute before the job's time
# limit, and when it is preempted, the run saves and the job is requeued. Inside an allocation
# (salloc) it trains there, and options of srun precede --.
set -euo pipefail

options=()
while [[ $# -gt 0 && $1 != -- ]]; do
  options+=("$1")
  shift
done
if [[ $# -lt 2 ]]; then
  echo "usage: $0 --nodes=N --ntasks-per-node=N ... -- --config=... --workdir=..." >&2
  exit 2
fi
shift

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  exec sbatch --requeue --signal=TERM@60 "${options[@]}" "$0" -- "$@"
fi
trap : TERM # Slurm also signals this shell, which waits for the run to save
# If a process is missing, the others report it and exit by themselves; srun must not kill them.
srun --label --kill-on-bad-exit=0 "${options[@]}" "${PYTHON:-.venv/bin/python}" \
  -m experiments.train --auto_cluster --sigterm_status=143 "$@" &
while true; do
  status=0
  wait $! || status=$?
  kill -0 $! 2>/dev/null || break # otherwise a signal interrupted the wait
done
if [[ $status -eq 143 && ${SLURM_JOB_NAME:-interactive} != interactive ]]; then
  scontrol requeue "$SLURM_JOB_ID" # Slurm does not requeue a job that exits with 143
fi
exit "$status"
