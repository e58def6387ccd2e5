#!/usr/bin/env bash
# Trains in a Slurm job, a process for each task:
#
#   experiments/pod/slurm.sh --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 -- \
#     --config=... --workdir=...
#
# What precedes -- are options of sbatch, what follows are the flags of experiments.train. Where
# there are GPUs, each task has one. Run it in the checkout, on a disk that all nodes share, as
# --workdir is. PYTHON is the Python to use, by default .venv/bin/python. A minute before the job's
# time is up, and when it is preempted, the run saves and the job goes back into the queue. Inside
# of an allocation (salloc) it trains there, and what precedes -- are options of srun.
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
trap : TERM # Slurm tells this shell as well: it waits for the run to save
# The processes end by themselves where one is missing, and say which: srun is not to be faster.
srun --label --kill-on-bad-exit=0 "${options[@]}" "${PYTHON:-.venv/bin/python}" \
  -m experiments.train --auto_cluster --sigterm_status=143 "$@" &
while true; do
  status=0
  wait $! || status=$?
  kill -0 $! 2>/dev/null || break # else it was the signal that ended the wait
done
if [[ $status -eq 143 && ${SLURM_JOB_NAME:-interactive} != interactive ]]; then
  scontrol requeue "$SLURM_JOB_ID" # a job that ends with 143 is not begun again by itself
fi
exit "$status"
