#!/usr/bin/env bash
# Runs vlbeit_jax.main on a TPU slice of a GKE cluster with the JobSet controller: one pod per host, restarted together.
# Usage: launch/gke.sh [--dry-run] start ARGUMENTS of vlbeit_jax.main | status | log [LINES] | delete NAME
# Settings (environment):
#   NAME            of the JobSet
#   IMAGE           made from launch/Dockerfile, by digest: registry/name@sha256:...
#   ACCELERATOR     node label, e.g. tpu-v5-lite-podslice
#   TOPOLOGY        e.g. 16x16
#   HOSTS           number of hosts of the slice, e.g. 64 for v5e 16x16
#   CHIPS           chips per host, e.g. 4
#   CLAIM           PersistentVolumeClaim that all pods mount at /data, for data sets and --workdir; both may also be gs://BUCKET/NAME
#   NAMESPACE=default  MAX_RESTARTS=10  GRACE_SECONDS=120  PYTHON=.venv/bin/python
#   SHARED_MEMORY   size of /dev/shm in a pod, e.g. 4Gi; default: computed from ARGUMENTS by python -m vlbeit_jax.shared_memory
# start checks ARGUMENTS as training does, on this machine: run launch/install.sh first. Relative paths start at the checkout.
# shellcheck disable=SC2153 # The settings come from the environment.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }

json() { # json WORD...: a list of JSON strings, which YAML reads as they are
  "$python" -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"
}

shared_memory() { # shared_memory ARGUMENTS...: bytes that /dev/shm of a pod needs
  cd "$top"
  "$python" -m vlbeit_jax.shared_memory --hosts="$HOSTS" --chips="$CHIPS" "$@"
}

manifest() { # manifest ARGUMENTS SIZE: the JobSet
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  namespace: ${NAMESPACE:-default}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: ${MAX_RESTARTS:-10}
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          parallelism: $HOSTS
          completions: $HOSTS
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: train
                  operator: In
                  values: [2, 65, 66, 67, 130]
          template:
            spec:
              restartPolicy: Never
              shareProcessNamespace: true # Process 1 is then an init. As process 1 itself, a stuck run could not be killed from within.
              terminationGracePeriodSeconds: ${GRACE_SECONDS:-120}
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
                cloud.google.com/gke-tpu-topology: $TOPOLOGY
              containers:
                - name: train
                  image: $IMAGE
                  command: [/vlbeit_jax/.venv/bin/python, -m, vlbeit_jax.main]
                  args: $1
                  resources:
                    limits:
                      google.com/tpu: $CHIPS
                  volumeMounts:
                    - name: data
                      mountPath: /data
                    - name: shm
                      mountPath: /dev/shm
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: $CLAIM
                - name: shm # Loader processes hand their batches over here. With Kubernetes' default of 64 MiB, SIGBUS ends them.
                  emptyDir:
                    medium: Memory
                    sizeLimit: $2
YAML
}

verb=${1:-}
shift || true
case $verb in
  start | status | log | delete) ;;
  *) fail "unknown verb '$verb'; there are start, status, log, delete (see the head of $0)" ;;
esac
require NAME
[[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "NAME=$NAME: give lower-case letters, digits and -, with a letter first and no - at the end, as Kubernetes needs"
require_command kubectl
kubectl=(kubectl --namespace="${NAMESPACE:-default}")
case $verb in
  start)
    require IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS CLAIM
    [[ $IMAGE == *@sha256:* ]] || fail "IMAGE=$IMAGE: name the image by digest (…@sha256:…), so that a restart runs the same code"
    for word in "$ACCELERATOR" "$TOPOLOGY" "$CLAIM"; do
      [[ $word =~ ^[A-Za-z0-9._-]+$ ]] || fail "'$word': ACCELERATOR, TOPOLOGY and CLAIM may contain only letters, digits, . _ -"
    done
    require_number 1 HOSTS CHIPS
    [[ ${SHARED_MEMORY:-1} =~ ^[1-9][0-9]*([KMGT]i?)?$ ]] || fail "SHARED_MEMORY=$SHARED_MEMORY: give a size, e.g. 4Gi"
    (($# > 0)) || fail "give the arguments of vlbeit_jax.main, at least --config and --workdir"
    require_python
    # Each has an assignment of its own, because set -e does not see a failure within the text of the manifest.
    arguments=$(json "$@")
    size=${SHARED_MEMORY:-$(shared_memory "$@")}
    written=$(manifest "$arguments" "$size")
    if $dry_run; then printf '%s\n' "$written"; fi
    run "${kubectl[@]}" apply --filename=- <<<"$written"
    ;;
  status) run "${kubectl[@]}" get jobset,pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" ;;
  log)
    run "${kubectl[@]}" logs --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0" --tail="${1:-50}"
    ;;
  delete)
    [[ ${1:-} == "$NAME" ]] || fail "to delete the JobSet, repeat its name: launch/gke.sh delete $NAME"
    run "${kubectl[@]}" delete jobset "$NAME"
    ;;
esac
