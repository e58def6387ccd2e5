#!/usr/bin/env bash
# Trains on every worker of a Cloud TPU pod slice:
#
#   experiments/pod/tpu.sh NAME --zone=ZONE [more options of gcloud] -- --config=... --workdir=...
#
# The flags of experiments.train follow --. On each worker the checkout is in ~/heed, installed with
# its extra [tpu] into ~/heed/.venv (HEED=DIR for another folder), and --workdir is a folder that all
# workers share. To resume, run it again.
set -euo pipefail

options=()
while [[ $# -gt 0 && $1 != -- ]]; do
  options+=("$1")
  shift
done
if [[ ${#options[@]} -eq 0 || $# -lt 2 ]]; then
  echo "usage: $0 NAME --zone=ZONE -- --config=... --workdir=..." >&2
  exit 2
fi
shift

command="cd ${HEED:-heed} && exec .venv/bin/python -m experiments.train --auto_cluster"
exec gcloud compute tpus tpu-vm ssh "${options[@]}" --worker=all \
  --command="$command$(printf ' %q' "$@")"
