#!/bin/sh
# Usage: build.sh RELEASE TARGET
#
# Bundles src/ with esbuild into TARGET/public, with names that carry the hash of their content, and writes the
# index.html and the nginx.conf that go with them.
set -eu

release=$1
target=$2
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
public="$target/public"

esbuild "$root/src/app.ts" "$root/src/app.css" --bundle --minify --format=esm --target=es2022 \
    --outdir="$public/assets" --entry-names='[name]-[hash]' --log-level=warning

script=$(basename "$public"/assets/app-*.js)
style=$(basename "$public"/assets/app-*.css)
sed -e "s|@SCRIPT@|$script|" -e "s|@STYLE@|$style|" -e "s|@RELEASE@|$release|" \
    "$root/src/index.html" >"$public/index.html"
sed -e "s|@RELEASE@|$release|" "$root/nginx.conf" >"$target/nginx.conf"
# Compressed once here instead of at every request.
gzip -9 -k -n "$public"/assets/*
