#!/usr/bin/env bash
# Trains in a Kubernetes JobSet (https://jobset.sigs.k8s.io), one process per pod:
#
#   experiments/pod/jobset.sh --name=heed --image=IMAGE --num_processes=4 --limit=nvidia.com/gpu=8 \
#     --claim=VOLUME_CLAIM -- --config=... --workdir=/runs/mine
#
# The flags of experiments.train follow --. The image has the installed checkout in /heed; the volume
# claim, which all pods can write to, is mounted on /runs. The script fills in jobset.yaml beside it
# and applies the result; --dry_run prints it instead. --select=KEY=VALUE, repeatable, selects nodes
# with that label, as TPUs need. If a pod fails or is evicted, all pods restart and resume from the
# last checkpoint. To resume a finished set, run kubectl delete jobset NAME and then the same
# command. A pod has 60 s to save: for --config.train.grace_seconds above 50, increase
# terminationGracePeriodSeconds in jobset.yaml.
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
  flag=${flag//\$(/\$\$(} # Kubernetes would expand $(NAME) as a variable
  flags+=$'\n'"                    - \"$flag\""
done
manifest=$(<"$(dirname "$0")/jobset.yaml")
manifest=${manifest//@NAME@/"$name"}
manifest=${manifest//@IMAGE@/"$image"}
manifest=${manifest//@PROCESSES@/"$processes"}
manifest=${manifest//@RESOURCE@/"${limit%=*}"}
manifest=${manifest//@COUNT@/"${limit##*=}"}
manifest=${manifest//@CLAIM@/"$claim"}
manifest=${manifest//$'\n'                    - \"@FLAGS@\"/"$flags"}
manifest=${manifest// \{\} # @LABELS@/"$labels"}

if [[ -n $dry_run ]]; then
  printf '%s\n' "$manifest"
else
  kubectl apply -f - <<<"$manifest"
fi
