#!/usr/bin/env bash
# Measures the competition beside this project, on a fresh machine too: installs what the peers need,
# builds all of them, and runs bench/peers/run.py, which has the options. Linux.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(uname -s)" != Linux ]; then
    echo "the peers run on Linux only" >&2
    exit 1
fi
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again" >&2
    exit 1
fi

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
if [ -n "$packages" ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "not root, and there is no sudo; run as root: apt-get install -y $packages" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing $packages"
    "${as_root[@]+"${as_root[@]}"}" apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    "${as_root[@]+"${as_root[@]}"}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

exec python3 bench/peers/run.py "$@"
