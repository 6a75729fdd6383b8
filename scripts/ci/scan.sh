#!/usr/bin/env bash
# Scans images for known vulnerabilities and fails on the severity chosen, and when the scanner is missing or broken.
#   IMAGES     one per line, best NAME@DIGEST
#   SEVERITY   critical (default) or high; worse ones always count
#   SCANNER    the command, default: trivy
# The host judges again when it deploys (app_image_policy); this is so that a developer hears of it first.
set -euo pipefail
: "${IMAGES:?IMAGES is empty: name at least one image}"
case ${SEVERITY:=critical} in
  critical) levels=CRITICAL ;;
  high) levels=HIGH,CRITICAL ;;
  *) echo "scan: SEVERITY is '$SEVERITY'; use critical or high" >&2; exit 2 ;;
esac
scanner=${SCANNER:-trivy}
command -v "$scanner" > /dev/null || { echo "scan: there is no '$scanner' on this runner, so nothing was scanned" >&2; exit 1; }
failed=0
while read -r image; do
  [ -n "$image" ] || continue
  echo "scan: $image ($levels)" >&2
  "$scanner" image --quiet --scanners vuln --severity "$levels" --exit-code 1 "$image" || failed=1
done <<< "$IMAGES"
exit "$failed"
