#!/usr/bin/env bash
# Builds and pushes images under VERSION, each at most once: scripts/ci/build.sh, in the application's checkout.
#   IMAGES    one per line: NAME CONTEXT [DOCKERFILE], such as `ghcr.io/me/api api`
#   VERSION   the tag; CACHE=off leaves out the layer cache, which is kept in the registry beside the image
#   PUSH      `false` builds only
#   DOCKER_USERNAME, DOCKER_PASSWORD, REGISTRY   the registry's login, if it wants one
# A tag that is there already is left alone: a version never changes. Outputs: images (NAME@DIGEST, or NAME:VERSION when
# nothing is pushed; one per line), reused.
set -euo pipefail
: "${IMAGES:?IMAGES is empty: name at least one image}" "${VERSION:?VERSION is empty}"
[[ $VERSION =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$ ]] || { echo "build: '$VERSION' is no version" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
umask 077
work=$(mktemp -d "${RUNNER_TEMP:-/tmp}/switchyard-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The login lives as long as this script; nothing of it stays on the runner. Plugins such as buildx stay in reach.
if [ -n "${DOCKER_PASSWORD:-}" ]; then
  plugins=${DOCKER_CONFIG:-$HOME/.docker}
  for part in cli-plugins buildx contexts; do [ ! -d "$plugins/$part" ] || ln -s "$plugins/$part" "$work/$part"; done
  export DOCKER_CONFIG=$work
  printf '%s' "$DOCKER_PASSWORD" | docker login --username "${DOCKER_USERNAME:?}" --password-stdin ${REGISTRY:+"$REGISTRY"}
fi
built=() reused=0
while read -r name context dockerfile; do
  [ -n "$name" ] || continue
  reference=$name:$VERSION
  if [ "${PUSH:-true}" = true ] && docker buildx imagetools inspect "$reference" > "$work/there" 2> /dev/null; then
    digest=$(awk '$1 == "Digest:" { print $2; exit }' "$work/there")
    echo "build: $reference is in the registry already ($digest), and is left alone" >&2
    built+=("$name@$digest") reused=$((reused + 1))
    continue
  fi
  # These scripts lie in the application's checkout, and are no part of its images.
  ignored=${dockerfile:-$context/Dockerfile}.dockerignore
  [ -f "$ignored" ] || ignored=$context/.dockerignore
  if [ -e "$context/.switchyard-ci" ]; then printf '\n.switchyard-ci\n' >> "$ignored"; fi
  options=(--tag "$reference" --file "${dockerfile:-$context/Dockerfile}" --metadata-file "$work/metadata.json"
    --label "org.opencontainers.image.version=$VERSION" --build-arg "VERSION=$VERSION" --provenance=false)
  [ -z "${COMMIT:=${GITHUB_SHA:-}}" ] || options+=(--label "org.opencontainers.image.revision=$COMMIT")
  # A builder of docker's own driver keeps its layers in the engine and cannot export them.
  if [ "${CACHE:-registry}" = registry ]; then
    options+=(--cache-from "type=registry,ref=$name:buildcache")
    [ "${PUSH:-true}" != true ] || options+=(--cache-to "type=registry,ref=$name:buildcache,mode=max")
  fi
  if [ "${PUSH:-true}" = true ]; then options+=(--push); else options+=(--load); fi
  docker buildx build "${options[@]}" "$context" 2> >(tee "$work/log" >&2)
  python3 "$here/cache.py" "$reference" < "$work/log"
  # What was not pushed is in no registry under its digest; the scanner finds it in the engine, by its tag.
  if [ "${PUSH:-true}" != true ]; then built+=("$reference"); continue; fi
  digest=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1])).get("containerimage.digest", ""))' "$work/metadata.json")
  built+=("$name${digest:+@$digest}")
done <<< "$IMAGES"
list=$(printf '%s\n' "${built[@]}")
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'images<<IMAGES_END\n%s\nIMAGES_END\nreused=%s\n' "$list" "$reused" >> "$GITHUB_OUTPUT"
fi
printf '%s\n' "$list"
