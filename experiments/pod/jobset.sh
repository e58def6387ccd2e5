#!/usr/bin/env bash
# Trains in a Kubernetes JobSet (https://jobset.sigs.k8s.io), a process for each pod:
#
#   experiments/pod/jobset.sh --name=heed --image=IMAGE --num_processes=4 --limit=nvidia.com/gpu=8 \
#     --claim=VOLUME_CLAIM -- --config=... --workdir=/runs/mine
#
# What follows -- are the flags of experiments.train. The image has the checkout, installed, in
# /heed; the volume claim, which all pods can write to, is mounted on /runs. What is applied is
# jobset.yaml beside this script, filled in; --dry_run prints it. --select=KEY=VALUE, once or more,
# asks for nodes with that label, as TPUs need. Where a pod fails or is evicted, all begin again and
# go on from the last checkpoint. A set that has finished goes on by the same command after
# kubectl delete jobset NAME. A pod has 60 s to save: a larger --config.train.grace_seconds than 50
# wants a larger terminationGracePeriodSeconds there.
set -euo pipefail

name=heed image='' processes='' limit='' claim='' dry_run='' labels=' {}'
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --num_processes=*) processes=${1#*=} ;;
    --limit=*=*) limit=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --select=*=*)
      label=${1#*=}
      [[ $labels == ' {}' ]] && labels=''
      labels+=$'\n'"                \"${label%=*}\": \"${label##*=}\""
      ;;
    --dry_run) dry_run=1 ;;
    *)
      echo "$0: unknown option $1" >&2
      exit 2
      ;;
  esac
  shift
done
if [[ -z $image || -z $processes || -z $limit || -z $claim || $# -lt 2 ]]; then
  echo "usage: $0 --name=NAME --image=IMAGE --num_processes=N --limit=nvidia.com/gpu=N" \
    "--claim=CLAIM -- --config=... --workdir=/runs/..." >&2
  exit 2
fi
shift
if ! [[ $processes =~ ^[1-9][0-9]*$ && ${limit##*=} =~ ^[1-9][0-9]*$ ]]; then
  echo "$0: --num_processes=$processes and the number in --limit=$limit must be 1 or more" >&2
  exit 2
fi

flags=''
for flag in "$@"; do
  flag=${flag//\\/\\\\}
  flag=${flag//\"/\\\"}
  flag=${flag//\$(/\$\$(} # Kubernetes would read $(NAME) as a variable
  flags+=$'\n'"                    - \"$flag\""
done
filled=$(<"$(dirname "$0")/jobset.yaml")
filled=${filled//@NAME@/"$name"}
filled=${filled//@IMAGE@/"$image"}
filled=${filled//@PROCESSES@/"$processes"}
filled=${filled//@RESOURCE@/"${limit%=*}"}
filled=${filled//@COUNT@/"${limit##*=}"}
filled=${filled//@CLAIM@/"$claim"}
filled=${filled//$'\n'                    - \"@FLAGS@\"/"$flags"}
filled=${filled// \{\} # @LABELS@/"$labels"}

if [[ -n $dry_run ]]; then
  printf '%s\n' "$filled"
else
  kubectl apply -f - <<<"$filled"
fi
