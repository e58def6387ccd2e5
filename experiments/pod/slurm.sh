#!/usr/bin/env bash
# Trains in a Slurm job, a process for each task:
#
#   experiments/pod/slurm.sh --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 -- \
#     --config=... --workdir=...
#
# What precedes -- are options of sbatch, what follows are the flags of experiments.train. Where
# there are GPUs, each task has one. Run it in the checkout, on a disk that all nodes share, as
# --workdir is. PYTHON is the Python to use, by default .venv/bin/python. A minute before the job's
# time is up the run saves and ends: the same command goes on. A job that is preempted saves, too,
# and goes back into the queue. Inside of an allocation (salloc) it trains there.
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
# The processes end by themselves where one is missing, and say which: srun is not to be faster.
exec srun --label --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m experiments.train --cluster "$@"
