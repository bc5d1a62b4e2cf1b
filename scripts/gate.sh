#!/usr/bin/env bash
# Counts what a message costs and fails when it is more than was agreed, on a fresh machine too: the
# instructions, system calls and allocations of bench/gate, beside its baseline. Linux.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/packages.sh

usage() {
    cat <<'TEXT'
usage: scripts/gate.sh [--update | --prepare]

  (no option)  measures, and fails when a figure is more than 5 % worse than bench/gate/baseline.toml
  --update     writes what it measures there: how a change says that it makes something worse
  --prepare    only install what the gate needs
TEXT
}

mode=check
for argument in "$@"; do
    case "$argument" in
        --update) mode=update ;;
        --prepare) mode=prepare ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'unknown option: %s\n\n' "$argument" >&2; usage >&2; exit 2 ;;
    esac
done

if [ "$(uname -s)" != Linux ]; then
    echo "the gate runs on Linux only" >&2
    exit 1
fi
require_cargo
packages=""
command -v cc >/dev/null || packages="$packages gcc libc6-dev"
command -v valgrind >/dev/null || packages="$packages valgrind"
# shellcheck disable=SC2086 # a list of package names
[ -z "$packages" ] || install_packages $packages

case "$mode" in
    prepare) ;;
    check) cargo run --release --locked --package network-system-gate ;;
    update) cargo run --release --locked --package network-system-gate -- --update ;;
esac
