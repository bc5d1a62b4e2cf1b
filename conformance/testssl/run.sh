#!/usr/bin/env bash
# testssl.sh looks at a listener with TLS and the default settings: `netsys serve` with a certificate of
# an authority made for this run, which testssl.sh trusts. Fails when it finds anything above LOW that is
# not in the list of exceptions of findings.py, and when it could not look. About 40 seconds. Linux.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

scan=""
for name in testssl testssl.sh; do # Debian's name, and everybody else's
    command -v "$name" >/dev/null && scan="$name" && break
done
if [ -z "$scan" ]; then
    echo "testssl.sh is missing: run scripts/test.sh --prepare, or install the Debian package testssl.sh" >&2
    exit 1
fi

cargo build --package netsys --locked --quiet
target="${CARGO_TARGET_DIR:-target}"
netsys="$target/debug/netsys"
folder="$(mktemp -d)"
server=""
clean_up() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT

# Says why, shows what there is, and keeps it: a failure that does not come again must not be lost.
fail() {
    local kept="$target/testssl-failure" file
    rm -rf "$kept"
    # without the keys
    mkdir -p "$kept"
    for file in log report found.json; do
        [ ! -e "$folder/$file" ] || cp "$folder/$file" "$kept/"
    done
    for file in log report; do
        [ ! -s "$kept/$file" ] || { echo "--- $file:"; cat "$kept/$file"; }
    done >&2
    echo "$1; what there is of it is kept in $kept" >&2
    exit 1
}

"$netsys" cert --out "$folder" >/dev/null
"$netsys" serve --listen tls://127.0.0.1:0 --tls-cert "$folder/server.pem" --tls-key "$folder/server.key" \
    >"$folder/log" 2>&1 &
server=$!
port=""
for _ in $(seq 300); do
    port="$(sed -n 's|.*tls://127\.0\.0\.1:\([1-9][0-9]*\).*|\1|p' "$folder/log" | head -n 1)"
    [ -z "$port" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
[ -n "$port" ] || fail "netsys serve does not listen"

# its exit status counts the findings, and says nothing about how bad they are
status=0
timeout 300 "$scan" --quiet --warnings off --color 0 --nodns none --ip 127.0.0.1 \
    --add-ca "$folder/ca.pem" --jsonfile "$folder/found.json" "localhost:$port" \
    </dev/null >"$folder/report" 2>&1 || status=$?
kill -0 "$server" 2>/dev/null || fail "netsys serve has ended"
[ "$status" -ne 124 ] || fail "testssl.sh was not done within 300 s"
[ -s "$folder/found.json" ] || fail "testssl.sh has found nothing and ended with $status"
python3 conformance/testssl/findings.py "$folder/found.json" || fail "testssl.sh has ended with $status"
