#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster that has the JobSet controller: one pod a host, restarted together.
# Usage: launch/gke.sh [--dry-run] start ARGUMENTS of vlbeit_jax.main | status | log [LINES] | delete NAME
# Settings (environment):
#   NAME            of the JobSet
#   IMAGE           made from launch/Dockerfile, by digest: registry/name@sha256:...
#   ACCELERATOR     node label, e.g. tpu-v5-lite-podslice
#   TOPOLOGY        e.g. 16x16
#   HOSTS           of the slice, e.g. 64 for v5e 16x16
#   CHIPS           a host has, e.g. 4
#   CLAIM           PersistentVolumeClaim that all pods mount at /data: data sets and --workdir
#   NAMESPACE=default  MAX_RESTARTS=10  GRACE_SECONDS=120
# shellcheck disable=SC2153 # The settings come from the environment.
set -euo pipefail
[[ ${1:-} != --dry-run ]] || { dry_run=true && shift; }
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$top/launch/common.sh"

json() { # json WORD...: a list of JSON strings, which YAML reads as they are
  python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"
}

manifest() {
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
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: ${GRACE_SECONDS:-120}
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
                cloud.google.com/gke-tpu-topology: $TOPOLOGY
              containers:
                - name: train
                  image: $IMAGE
                  command: [/vlbeit_jax/.venv/bin/python, -m, vlbeit_jax.main]
                  args: $(json "$@")
                  resources:
                    limits:
                      google.com/tpu: $CHIPS
                  volumeMounts:
                    - name: data
                      mountPath: /data
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: $CLAIM
YAML
}

verb=${1:-}
shift || true
case $verb in
  start | status | log | delete) ;;
  *) fail "unknown verb '$verb'; there are start, status, log, delete (see the head of $0)" ;;
esac
require NAME
[[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "NAME=$NAME: Kubernetes wants small letters, digits and -"
require_command kubectl
kubectl=(kubectl --namespace="${NAMESPACE:-default}")
case $verb in
  start)
    require IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS CLAIM
    [[ $IMAGE == *@sha256:* ]] || fail "IMAGE=$IMAGE: name it by digest (…@sha256:…), so that a restart runs the same code"
    for word in "$ACCELERATOR" "$TOPOLOGY" "$CLAIM"; do
      [[ $word =~ ^[A-Za-z0-9._-]+$ ]] || fail "'$word': ACCELERATOR, TOPOLOGY and CLAIM are letters, digits, . _ -"
    done
    [[ $HOSTS =~ ^[1-9][0-9]*$ && $CHIPS =~ ^[1-9][0-9]*$ ]] || fail "HOSTS=$HOSTS CHIPS=$CHIPS: give numbers above 0"
    written=$(manifest "$@")
    if $dry_run; then printf '%s\n' "$written"; fi
    run "${kubectl[@]}" apply --filename=- <<<"$written"
    ;;
  status) run "${kubectl[@]}" get jobset,pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" ;;
  log) run "${kubectl[@]}" logs --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0" --tail="${1:-50}" ;;
  delete)
    [[ ${1:-} == "$NAME" ]] || fail "delete needs the name once more: launch/gke.sh delete $NAME"
    run "${kubectl[@]}" delete jobset "$NAME"
    ;;
esac
