"""Judges the JSON that testssl.sh has written: exits 1 when it found anything above LOW that is not an
exception, or when it has not looked at all that it should have."""

import json
import sys

# What is about the certificate of the test, or the machine, and not about the listener; and why.
EXCEPTIONS = {
    "cert_revocation": "the authority is made for this run: it has no list and no responder to name",
    "engine_problem": "the OpenSSL of this machine has no GOST ciphers, which nobody here speaks",
}

# What is about testssl.sh itself, in these words, and why.
UNABLE = {
    # With TLS 1.3 the ticket follows the handshake, and `openssl s_client </dev/null` may be gone by then:
    # it then leaves an empty session file, which the second s_client cannot read. With openssl's own
    # s_server it is the same. Whether TLS 1.3 is asked for depends on whether an earlier s_client has seen a
    # ticket, so it comes once in many runs. tests/tls_interop.rs, openssl_resumes_its_session, has what
    # this would have found out.
    "sessionresumption_ticket": "check failed because of connect problem",
}

# Fine or of no interest; LOW is what a default listener may have. WARN and FATAL mean that testssl.sh
# could not look.
ACCEPTED = {"OK", "INFO", "DEBUG", "LOW"}

# Proof that it has looked: protocols, the certificate, and the attacks that come last.
EXPECTED = {
    "SSLv2": "OK",
    "SSLv3": "OK",
    "TLS1": "INFO",
    "TLS1_1": "INFO",
    "TLS1_2": "OK",
    "TLS1_3": "OK",
    "cert_chain_of_trust": "OK",
    "cert_trust": "OK",
    "heartbleed": "OK",
    "ROBOT": "OK",
    "secure_client_renego": "OK",
    "LUCKY13": "OK",
    "RC4": "OK",
    "clientsimulation-openssl_111d": "INFO",
}


def main(path):
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    good, bad = 0, []
    for finding in found:
        unable = finding["finding"] == UNABLE.get(finding["id"])
        if finding["severity"] in ACCEPTED or finding["id"] in EXCEPTIONS or unable:
            good += 1
        else:
            bad.append("{severity}: {id}: {finding}".format(**finding))
    severities = {finding["id"]: finding["severity"] for finding in found}
    for name, severity in EXPECTED.items():
        if severities.get(name) != severity:
            bad.append(f"{name} is {severities.get(name)} and not {severity}")
    for line in bad:
        print(line)
    # as cargo says it, for scripts/test.sh
    verdict = "FAILED" if bad else "ok"
    print(f"test result: {verdict}. {good} passed; {len(bad)} failed; 0 ignored")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
