#!/usr/bin/env bash
# Runs every test of the project, on a fresh machine too: installs what the tests need, then runs
# one step after the other and ends with one line that says what passed, what failed and what did
# not run. Exits 0 only when every step that ran has passed. Linux and macOS; bash 3.2 is enough.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/packages.sh

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--quick | --full | --prepare]

  (no option)  unit, integration, example and doc tests; then loom explores the interleavings
  --quick      without loom
  --full       also: testssl.sh looks at a listener with TLS (Linux); the Autobahn test suite of WebSocket,
               for which Python 2.7 must be present; minutes of fuzzing on stable, and
               miri on the wire crate, for which a nightly toolchain with miri must be present; says
               so if it is not
  --prepare    only install what the tests need
TEXT
}

mode=default
for argument in "$@"; do
    case "$argument" in
        --quick) mode=quick ;;
        --full) mode=full ;;
        --prepare) mode=prepare ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'unknown option: %s\n\n' "$argument" >&2; usage >&2; exit 2 ;;
    esac
done

target="${CARGO_TARGET_DIR:-target}"

# --- what the tests need -------------------------------------------------------------------------

# Debian has it where only root's PATH leads.
has_haproxy() {
    command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ]
}

# The other implementations that our servers and clients are tested against: their Debian packages,
# separated by blanks; nothing when all are there.
missing_packages() {
    local packages=""
    command -v cc >/dev/null || packages="$packages gcc libc6-dev"
    command -v g++ >/dev/null || packages="$packages g++"
    command -v python3 >/dev/null || packages="$packages python3"
    python3 -c "import ensurepip" >/dev/null 2>&1 || packages="$packages python3-venv"
    command -v socat >/dev/null || packages="$packages socat"
    # for its program systemd-socket-activate
    [ "$(uname -s)" = Darwin ] || command -v systemd-socket-activate >/dev/null || packages="$packages systemd"
    command -v openssl >/dev/null || packages="$packages openssl"
    command -v curl >/dev/null || packages="$packages curl"
    command -v h2load >/dev/null || packages="$packages nghttp2-client"
    command -v wrk >/dev/null || packages="$packages wrk"
    command -v node >/dev/null || packages="$packages nodejs"
    command -v npm >/dev/null || packages="$packages npm"
    # for its promtool; on macOS it is in Homebrew's package
    command -v promtool >/dev/null || packages="$packages prometheus"
    # the tests of haproxy need the addresses of 127.0.0.0/8, which only Linux has
    if [ "$(uname -s)" = Linux ]; then
        has_haproxy || packages="$packages haproxy"
        command -v chromium >/dev/null || packages="$packages chromium"
        command -v testssl.sh >/dev/null || command -v testssl >/dev/null || packages="$packages testssl.sh"
    fi
    # macOS has a netcat that can do the same; on Linux only OpenBSD's has -U and -N
    if [ "$(uname -s)" = Darwin ]; then
        command -v nc >/dev/null || packages="$packages netcat"
    else
        nc -h 2>&1 | grep -qi openbsd || packages="$packages netcat-openbsd"
    fi
    printf '%s' "${packages# }"
}

prepare() {
    case "$(uname -s)" in
        Linux | Darwin) ;;
        *)
            echo "this script is for Linux and macOS; elsewhere run: cargo test --workspace" >&2
            return 1
            ;;
    esac
    require_cargo || return 1
    local packages
    packages="$(missing_packages)"
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086 # a list of package names
        install_packages $packages || return 1
        packages="$(missing_packages)"
        if [ -n "$packages" ]; then
            echo "still missing after the installation: $packages" >&2
            return 1
        fi
    fi
    python_packages && node_packages
}

# What the Python peers import, in an environment of its own. Made again when the list has changed.
python_packages() {
    local list=crates/network-system/tests/interop/requirements.txt python="$target/python"
    cmp -s "$list" "$python/installed.txt" && return 0
    echo "installing what $list names into $python"
    python3 -m venv --clear "$python" &&
        "$python/bin/python3" -m pip install --quiet --disable-pip-version-check --requirement "$list" &&
        cp "$list" "$python/installed.txt"
}

# What the Node peers import, likewise.
node_packages() {
    local list=crates/network-system/tests/interop/package.json node="$target/node"
    cmp -s "$list" "$node/installed.json" && return 0
    echo "installing what $list names into $node"
    rm -rf "$node" && mkdir -p "$node" && cp "$list" "$node/package.json" &&
        npm install --prefix "$node" --silent --no-audit --no-fund --ignore-scripts &&
        cp "$list" "$node/installed.json"
}

# --- the steps: one function each, run from the root of the repository ---------------------------

# Unit, integration, example and doc tests of all crates.
step_workspace() {
    cargo test --workspace --locked --no-fail-fast
}

# loom: every interleaving of the outbox, the pool's slots and the breaker. `--cfg` is another RUSTFLAGS, hence a target directory of
# its own, so that nothing else is built again; optimised, because loom runs millions of schedules.
step_loom() {
    CARGO_TARGET_DIR="$target/loom" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
        RUSTFLAGS="${RUSTFLAGS:-} --cfg network_system_loom" \
        cargo test --package network-system-core --lib --release --locked -- loom
}

# testssl.sh finds nothing above LOW on a listener with the default settings.
step_testssl() {
    bash conformance/testssl/run.sh
}

# Autobahn: every rule of WebSocket and of its compression, against our server and our client. Half an hour.
step_autobahn() {
    bash conformance/autobahn/run.sh
}

# Longer fuzzing on the stable toolchain: the same fuzz targets and property tests, more inputs.
step_fuzz() {
    PROPTEST_CASES="${PROPTEST_CASES:-20000}" \
        BOLERO_RANDOM_TEST_TIME_MS="${BOLERO_RANDOM_TEST_TIME_MS:-60000}" \
        BOLERO_RANDOM_ITERATIONS="${BOLERO_RANDOM_ITERATIONS:-1000000000}" \
        cargo test --package network-system-wire --package network-system-fuzz --tests --locked --no-fail-fast
}

# miri: undefined behaviour in the codecs. It interprets, so the generated tests get few inputs; they
# read their settings from the environment, hence no isolation.
step_miri() {
    MIRIFLAGS="-Zmiri-disable-isolation" PROPTEST_CASES=8 \
        BOLERO_RANDOM_TEST_TIME_MS=2000 BOLERO_RANDOM_ITERATIONS=8 \
        cargo +nightly miri test --package network-system-wire --tests --locked
}

# --- running them --------------------------------------------------------------------------------

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
number=0 passed=0 failed=0 ignored=0
steps_ok="" steps_failed="" not_run=""

# run STEPS NAME FUNCTION: runs one step and counts its tests. A step fails with its command, and
# when it ran no test at all: a filter that no longer matches anything must not look like success.
run() {
    local name="$2" started="$SECONDS" status=0 counts
    number=$((number + 1))
    printf '\n==> [%d/%d] %s\n' "$number" "$1" "$name"
    # cargo's own progress goes to stderr and stays as it is
    "$3" </dev/null | tee "$log" || status=$?
    counts="$(awk '/^test result: / { p += $4; f += $6; i += $8 } END { print p+0, f+0, i+0 }' "$log")"
    # shellcheck disable=SC2086 # three numbers
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) ignored=$((ignored + $3))
    if [ "$status" = 0 ] && [ "$1" = 0 ]; then
        echo "no test ran in this step" >&2
        status=1
    fi
    if [ "$status" = 0 ]; then
        steps_ok="$steps_ok, $name"
        printf '==> ok: %s, %d tests in %ds\n' "$name" "$1" $((SECONDS - started))
    else
        steps_failed="$steps_failed, $name"
        printf '==> FAILED: %s, after %ds\n' "$name" $((SECONDS - started))
    fi
}

prepare
[ "$mode" = prepare ] && exit 0

# only Linux has it as a package
more=0
if [ "$(uname -s)" = Linux ]; then
    more=1
else
    not_run=", testssl.sh (Linux)"
fi
testssl() {
    [ "$more" = 0 ] || run "$1" testssl step_testssl
}

case "$mode" in
    quick)
        run 1 workspace step_workspace
        not_run=", loom (left out by --quick), testssl.sh, Autobahn, long fuzzing and miri (--full)"
        ;;
    default)
        run 2 workspace step_workspace
        run 2 loom step_loom
        not_run=", testssl.sh, Autobahn, long fuzzing and miri (--full)"
        ;;
    full)
        run $((5 + more)) workspace step_workspace
        run $((5 + more)) loom step_loom
        testssl $((5 + more))
        run $((5 + more)) autobahn step_autobahn
        run $((5 + more)) fuzz step_fuzz
        if cargo +nightly miri --version >/dev/null 2>&1; then
            run $((5 + more)) miri step_miri
        else
            not_run="$not_run, miri (not installed: rustup toolchain install nightly --component miri)"
        fi
        ;;
esac

summary="$passed tests passed, $failed failed, $ignored ignored in $((SECONDS / 60))m $((SECONDS % 60))s"
[ -z "$steps_ok" ] || summary="$summary; passed: ${steps_ok#, }"
[ -z "$not_run" ] || summary="$summary; not run: ${not_run#, }"
if [ -n "$steps_failed" ]; then
    printf '\nFAILED: %s; %s\n' "${steps_failed#, }" "$summary"
    exit 1
fi
printf '\nPASSED: %s\n' "$summary"
