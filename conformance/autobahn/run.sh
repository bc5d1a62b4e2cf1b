#!/usr/bin/env bash
# Runs the Autobahn test suite against `netsys serve` and against our client, each with and without
# compression, and compares the results with expected.txt. The suite needs Python 2.7, which is looked
# for as python2.7 and in pyenv; with `--update` expected.txt is written. What is wrong is in
# target/autobahn/reports.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target="${CARGO_TARGET_DIR:-target}"
work="$target/autobahn"
port="${AUTOBAHN_PORT:-19001}"
update="${1:-}"

find_python2() {
    local found
    for found in "$(command -v python2.7 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        [ -x "$found" ] && "$found" -c 'import ssl' 2>/dev/null && echo "$found" && return 0
    done
    echo "Python 2.7 is missing, which the Autobahn test suite needs; pyenv can build it" >&2
    return 1
}

python2="$(find_python2)"
site="$work/site"
if ! [ -f "$site/installed" ]; then
    echo "installing the Autobahn test suite into $site"
    rm -rf "$site"
    "$python2" -m pip install --quiet --disable-pip-version-check --target "$site" \
        --requirement conformance/autobahn/requirements.txt 2>/dev/null
    # a namespace package that is not found when it lies beside others
    touch "$site/zope/__init__.py" "$site/installed"
fi

cargo build --quiet --locked --package netsys --package network-system --bin netsys --example autobahn_client

reports="$work/reports"
rm -rf "$reports"
mkdir -p "$reports"
pids=""
stop() {
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill $pids 2>/dev/null || true
    pids=""
}
trap stop EXIT

export PYTHONPATH="$site"

wait_for() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    return 1
}

# Our server: one with compression for all cases, one without for those that need none.
serve() { # PORT QUERY
    "$target/debug/netsys" serve --log error \
        --listen "ws://127.0.0.1:$1?max_message=67108864$2" >"$work/serve-$1.log" 2>&1 &
    pids="$pids $!"
    wait_for "$1"
}
serve "$port" ""
serve "$((port + 1))" "&deflate=true"
cat >"$work/client.json" <<TEXT
{
  "outdir": "$reports/server",
  "servers": [
    {"agent": "server", "url": "ws://127.0.0.1:$port"},
    {"agent": "server-deflate", "url": "ws://127.0.0.1:$((port + 1))"}
  ],
  "cases": ["*"],
  "exclude-cases": [],
  "exclude-agent-cases": {"server": ["12.*", "13.*"]}
}
TEXT
"$python2" -m autobahntestsuite.wstest -m fuzzingclient -s "$work/client.json" >"$work/fuzzingclient.log" 2>&1
stop

# Our client, against their server.
cat >"$work/server.json" <<TEXT
{
  "url": "ws://127.0.0.1:$((port + 2))",
  "outdir": "$reports/client",
  "cases": ["*"],
  "exclude-cases": [],
  "exclude-agent-cases": {"client": ["12.*", "13.*"]}
}
TEXT
"$python2" -m autobahntestsuite.wstest -m fuzzingserver --webport 0 -s "$work/server.json" >"$work/fuzzingserver.log" 2>&1 &
pids="$!"
wait_for "$((port + 2))"
"$target/debug/examples/autobahn_client" "ws://127.0.0.1:$((port + 2))" client false
"$target/debug/examples/autobahn_client" "ws://127.0.0.1:$((port + 2))" client-deflate true
stop

unset PYTHONPATH
python3 conformance/autobahn/compare.py "$reports" conformance/autobahn/expected.txt $update
