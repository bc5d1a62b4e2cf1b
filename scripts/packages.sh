# What the scripts here install: sourced by them, from the root of the repository. bash 3.2 is enough.
# shellcheck shell=bash

# Says what to do where there is no Rust; this is nothing that a script should install.
require_cargo() {
    command -v cargo >/dev/null && return 0
    echo "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again" >&2
    return 1
}

# install_packages PACKAGE...: on Debian and what derives from it. Anything else is told what to install.
install_packages() {
    local -a as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "missing on this machine, by the names of Debian's packages: $*" >&2
        echo "install them with your system's package manager and run this again" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "not root, and there is no sudo; run as root: apt-get install -y $*" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "installing $*"
    "${as_root[@]+"${as_root[@]}"}" apt-get update -qq
    "${as_root[@]+"${as_root[@]}"}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
