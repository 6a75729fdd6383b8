#!/bin/sh
# Usage: assemble.sh PART RELEASE TARGET
#
# Copies PART ("api" or "web") to TARGET and lays the overlays of RELEASE over it. A release may name a parent in
# releases/<version>/parent; the parents' overlays are laid first, so that each overlay shows only its own changes.
set -eu

part=$1
release=$2
target=$3
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

overlays=
while [ -n "$release" ]; do
    if [ ! -d "$root/releases/$release" ]; then
        echo "assemble: there is no release '$release'; known are: $(cd "$root/releases" && printf '%s ' *)" >&2
        exit 2
    fi
    overlays="$release $overlays"
    parent="$root/releases/$release/parent"
    release=
    if [ -f "$parent" ]; then
        release=$(cat "$parent")
    fi
done

mkdir -p "$target"
cp -R "$root/$part/." "$target/"
for overlay in $overlays; do
    if [ -d "$root/releases/$overlay/$part" ]; then
        cp -R "$root/releases/$overlay/$part/." "$target/"
    fi
done
