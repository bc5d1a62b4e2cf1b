#!/usr/bin/env bash
# Pool, request pool, client and circuit breaker for half an hour over three servers that are killed
# again and again: see docs/RELIABILITY.md. Linux; loopback only.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/packages.sh

case "${1:-}" in
    -h | --help)
        echo "usage: scripts/soak.sh [MINUTES] [--json]   (30 minutes by default)"
        exit 0
        ;;
esac
if [ "$(uname -s)" != Linux ]; then
    echo "the soak runs on Linux only" >&2
    exit 1
fi
require_cargo
exec cargo run --release --locked --manifest-path bench/soak/Cargo.toml -- "$@"
