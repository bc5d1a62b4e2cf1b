#!/usr/bin/env python3
"""Compares Autobahn's reports with the list of what is expected.

usage: compare.py REPORTS EXPECTED [--update]

EXPECTED has one line for each case: agent, case, result. Any other result than there is a failure,
and so is a case that fails, whatever stands there. NON-STRICT needs a reason in comments above.
"""

import json
import sys
from pathlib import Path

FAILED = ("FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT")


def results(reports):
    found = {}
    for index in sorted(Path(reports).glob("*/index.json")):
        for agent, cases in json.loads(index.read_text()).items():
            for case, result in cases.items():
                close = result["behaviorClose"]
                behavior = result["behavior"]
                text = behavior if close == "OK" else f"{behavior}, close {close}"
                found[agent, case] = text
    return found


def order(key):
    agent, case = key
    return agent, [int(part) for part in case.split(".")]


def main():
    reports, expected = sys.argv[1:3]
    found = results(reports)
    lines = Path(expected).read_text().splitlines() if Path(expected).exists() else []
    comments = [line for line in lines if line.startswith("#")]
    if "--update" in sys.argv:
        body = [f"{agent} {case} {found[agent, case]}" for agent, case in sorted(found, key=order)]
        Path(expected).write_text("\n".join(comments + body) + "\n")
    known = {}
    for line in Path(expected).read_text().splitlines():
        if line and not line.startswith("#"):
            agent, case, result = line.split(" ", 2)
            known[agent, case] = result
    failed = 0
    for key in sorted(set(found) | set(known), key=order):
        is_, want = found.get(key, "did not run"), known.get(key, "nothing")
        if is_ != want or any(word in is_ for word in FAILED):
            failed += 1
            print(f"{' '.join(key)}: {is_}, expected {want}")
    counts = {}
    for agent, _ in sorted(found, key=order):
        counts.setdefault(agent, {})
    for (agent, _), result in found.items():
        counts[agent][result] = counts[agent].get(result, 0) + 1
    for agent, of in counts.items():
        print(agent + ": " + ", ".join(f"{n} {result}" for result, n in sorted(of.items())))
    passed = len(set(found) | set(known)) - failed
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored")
    sys.exit(1 if failed or not found else 0)


main()
