#!/bin/sh
# Prints the digests of the images that are built on or run, for deploy/.env:
#   deploy/pin-images.sh > deploy/.env
# Run it again to update them, read what has changed (docker buildx imagetools inspect), and keep the file: two hosts with the same
# file run the same bytes.
set -eu
pin() {
  digest=$(docker buildx imagetools inspect "$2" --format '{{.Manifest.Digest}}')
  case $digest in
    sha256:????????????????????????????????????????????????????????????????) printf '%s=%s\n' "$1" "$digest" ;;
    *) printf 'no digest for %s\n' "$2" >&2; exit 1 ;;
  esac
}
pin NODE_DIGEST node:26-bookworm-slim
pin REDIS_DIGEST redis:7-bookworm
pin NGINX_DIGEST nginxinc/nginx-unprivileged:1.29-alpine
