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
netsys="${CARGO_TARGET_DIR:-target}/debug/netsys"
folder="$(mktemp -d)"
server=""
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT

"$netsys" cert --out "$folder" >/dev/null
"$netsys" serve --listen tls://127.0.0.1:0 --tls-cert "$folder/server.pem" --tls-key "$folder/server.key" \
    >"$folder/log" 2>&1 &
server=$!
port=""
for _ in $(seq 300); do
    port="$(sed -n 's|.*tls://127\.0\.0\.1:\([1-9][0-9]*\).*|\1|p' "$folder/log" | head -n 1)"
    [ -z "$port" ] || break
    kill -0 "$server" || break
    sleep 0.1
done
if [ -z "$port" ]; then
    echo "netsys serve does not listen:" >&2
    cat "$folder/log" >&2
    exit 1
fi

# its exit status counts the findings, and says nothing about how bad they are
timeout 300 "$scan" --quiet --warnings off --color 0 --nodns none --ip 127.0.0.1 \
    --add-ca "$folder/ca.pem" --jsonfile "$folder/found.json" "localhost:$port" \
    </dev/null >"$folder/report" 2>&1 || true
if ! python3 conformance/testssl/findings.py "$folder/found.json"; then
    cat "$folder/report" >&2
    exit 1
fi
