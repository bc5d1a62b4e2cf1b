#!/usr/bin/env bash
# Measures the competition beside this project, on a fresh machine too: installs what the peers need,
# builds all of them, and runs bench/peers/run.py, which has the options. Linux.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/packages.sh

if [ "$(uname -s)" != Linux ]; then
    echo "the peers run on Linux only" >&2
    exit 1
fi
require_cargo

# Debian packages that are missing, separated by blanks.
missing_packages() {
    local package
    for package in python3 gcc g++ libc6-dev pkg-config protobuf-compiler protobuf-compiler-grpc \
        libasio-dev libboost-dev libzmq3-dev libnng-dev libgrpc++-dev libprotobuf-dev strace; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || printf '%s ' "$package"
    done
}

case " $* " in
    *" --no-build "* | *" --help "* | *" -h "*) packages="" ;;
    *)
        if ! command -v apt-get >/dev/null; then
            echo "not a Debian: peers whose libraries are missing will be left out" >&2
            packages=""
        else
            packages="$(missing_packages)"
        fi
        ;;
esac
# shellcheck disable=SC2086 # a list of package names
[ -z "$packages" ] || install_packages $packages

exec python3 bench/peers/run.py "$@"
