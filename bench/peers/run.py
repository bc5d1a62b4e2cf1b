#!/usr/bin/env python3
"""Builds the peers, measures them in turn, and writes results as JSON lines, tables and charts."""
import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time

import chart
import tables
from measure import measure, raise_file_limit, system_calls
from plan import BUILDS, CRATES, FRAMED, PACKAGES, PEERS, PLACEMENTS, knobs, label, workloads

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODES = {"quick": (1, 0.3), "default": (5, 1.0), "full": (7, 1.0)}  # rounds, seconds


def options():
    p = argparse.ArgumentParser(description=__doc__)
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="mode", action="store_const", const="quick", help="a few minutes: does it all work")
    mode.add_argument("--full", dest="mode", action="store_const", const="full", help="every size: hours")
    p.add_argument("--peers", help="names separated by commas; default: all")
    p.add_argument("--only", help="workload groups separated by commas: stream, pipeline, ping, many, fanout, rate, connect, idle")
    p.add_argument("--placement", help="same, apart, free, separated by commas; default: same,apart (full: all)")
    p.add_argument("--sizes", help="only these message sizes in bytes, separated by commas")
    p.add_argument("--rounds", type=int, help="interleaved rounds; default 5")
    p.add_argument("--seconds", type=float, help="of each measurement; default 1")
    p.add_argument("--calls", action="store_true", help="also count system calls, in extra runs under strace")
    p.add_argument("--add", action="append", default=[], metavar="NAME=PROGRAM", help="one more peer with the same interface")
    p.add_argument("--build-dir", default=os.path.join(ROOT, "target", "peers"))
    p.add_argument("--out", help="where results go; default: `results` in the build folder")
    p.add_argument("--no-build", action="store_true")
    p.add_argument("--limit", type=float, default=6 * 3600, help="seconds after which no new round begins")
    p.set_defaults(mode="default")
    return p.parse_args()


def build(groups, folder):
    """Runs the builds; those that failed, with their logs."""
    failed = {}
    for group in groups:
        print(f"build {group} ...", flush=True)
        log = os.path.join(folder, f"build-{group}.log")
        with open(log, "w") as f:
            command = BUILDS[group].format(src=shlex.quote(HERE))
            done = subprocess.run(["bash", "-c", command], cwd=folder, stdout=f, stderr=f, stdin=subprocess.DEVNULL)
        if done.returncode:
            failed[group] = log
            print(f"  failed: see {log}", flush=True)
    return failed


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def machine():
    with open("/proc/cpuinfo") as f:
        text = f.read()
    cpu = re.search(r"model name\s*: (.*)", text)
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) // 2**20
    parts = [cpu.group(1) if cpu else platform.machine(), f"{os.cpu_count()} cores", f"{memory} GiB",
             f"Linux {platform.release().split('-')[0]}"]
    return ", ".join(parts + (["virtual machine"] if " hypervisor " in text else []))


def revision():
    return "network-system " + first_line("git", "-C", ROOT, "describe", "--always", "--dirty")


def versions():
    found = [first_line("gcc", "--version"), first_line("rustc", "--version")]
    found += [f"{p} {first_line('dpkg-query', '-W', '-f=${Version}', p)}" for p in PACKAGES]
    with open(os.path.join(HERE, "rust", "Cargo.lock")) as f:
        lock = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', f.read()))
    found += [f"{c} {lock[c]}" for c in CRATES if c in lock]
    found.append(revision())
    return "; ".join(found)


def chosen(a, failed):
    """The peers that can be measured: name to program."""
    names = a.peers.split(",") if a.peers else list(PEERS)
    peers = {n: PEERS[n] for n in names}
    programs = {n: os.path.join(a.build_dir, p.program) for n, p in peers.items() if p.build not in failed}
    for extra in a.add:
        name, program = extra.split("=", 1)
        programs[name] = os.path.abspath(program)
    return {n: p for n, p in programs.items() if os.path.exists(p)}


def plan(a):
    """The (workload, placement) pairs."""
    todo = workloads(a.mode)
    if a.only:
        todo = [w for w in todo if w.group in a.only.split(",")]
    if a.sizes:
        todo = [w for w in todo if str(w.size) in a.sizes.split(",") or w.kind in ("connect", "idle")]
    placements = (a.placement or ("same,apart,free" if a.mode == "full" else "same,apart")).split(",")
    if (os.cpu_count() or 1) < 2:
        placements = ["same"]
    # memory does not depend on the placement
    return [(w, p) for w in todo for p in (placements if w.kind != "idle" else [placements[-1]])]


class Run:
    """The results so far."""

    def __init__(self, a, programs):
        self.a, self.programs = a, programs
        self.results, self.failures, self.calls = [], {}, {}
        self.raw = programs.get("raw") or os.path.join(a.build_dir, PEERS["raw"].program)

    def takes_part(self, name, w):
        if w.kind == "rate":
            return name in FRAMED and os.path.exists(self.raw)
        return not (w.kind == "fanout" and name == "ours-coroutine")

    def client(self, name, w):
        return self.raw if w.kind == "rate" else self.programs[name]

    def one(self, name, w, placement, number, file):
        key = (name, label(w), placement)
        if not self.takes_part(name, w) or key in self.failures and number > 1:
            return
        server = self.programs[name]
        env = knobs(name, w, placement)
        r, why = measure(server, self.client(name, w), w, PLACEMENTS[placement], self.a.seconds, env)
        if r is None:
            self.failures[key] = why
            print(f"  {name}: {label(w)} ({placement}): {why}", flush=True)
            return
        r.update(peer=name, case=label(w), kind=w.kind, size=w.size, conns=w.conns, window=w.window,
                 placement=placement, round=number)
        self.results.append(r)
        file.write(json.dumps(r) + "\n")
        file.flush()

    def count_calls(self, todo):
        for w, placement in todo:
            if w.kind in ("idle", "rate"):
                continue
            for name in self.programs:
                if self.takes_part(name, w) and (name, label(w), placement) not in self.failures:
                    server, client = self.programs[name], self.client(name, w)
                    v = system_calls(server, client, w, PLACEMENTS[placement], self.a.build_dir)
                    self.calls[((w, placement), name)] = v


def write(run, todo, head, about):
    a = run.a
    by_name = {label(w): w for w, _ in todo}
    with open(os.path.join(a.out, "results.md"), "w") as f:
        f.write(tables.document(head, run.results, by_name, run.calls, run.failures))
    for (case, placement), peers in tables.cases(run.results).items():
        w = by_name[case]
        name = f"{w.kind}-{w.size}-c{w.conns}-w{w.window}-{placement}.svg"
        with open(os.path.join(a.out, name), "w") as f:
            f.write(chart.svg(w, placement, peers, about, f"{a.rounds} x {a.seconds} s"))


def main():
    a = options()
    rounds, seconds = MODES[a.mode]
    a.rounds, a.seconds = a.rounds or rounds, a.seconds or seconds
    a.build_dir = os.path.abspath(a.build_dir)
    a.out = os.path.abspath(a.out or os.path.join(a.build_dir, "results"))
    os.makedirs(a.out, exist_ok=True)
    unknown = [n for n in (a.peers or "raw").split(",") if n not in PEERS]
    if unknown:
        sys.exit(f"unknown peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    raise_file_limit()
    failed = {}
    if not a.no_build:
        wanted = (a.peers or ",".join(PEERS)).split(",") + ["raw"]
        failed = build(list(dict.fromkeys(PEERS[n].build for n in wanted)), a.build_dir)
    programs = chosen(a, failed)
    todo = plan(a)
    if not programs or not todo:
        sys.exit("nothing to measure")
    run, began = Run(a, programs), time.monotonic()
    about = f"{machine()}; {revision()}"
    pieces = len(programs) * len(todo)
    print(f"{pieces} measurements of {a.seconds} s in each of {a.rounds} rounds", flush=True)
    with open(os.path.join(a.out, "results.jsonl"), "w") as f:
        f.write(json.dumps({"machine": machine(), "versions": versions(), "rounds": a.rounds, "seconds": a.seconds}) + "\n")
        for number in range(1, a.rounds + 1):
            if time.monotonic() - began > a.limit:
                a.rounds = number - 1
                break
            for w, placement in todo:
                if w.kind == "idle" and number > 1:
                    continue
                for name in programs:  # A B C, A B C: a slow minute hits everyone
                    run.one(name, w, placement, number, f)
            print(f"round {number} of {a.rounds} done after {time.monotonic() - began:.0f} s", flush=True)
    if a.calls and shutil.which("strace"):
        run.count_calls(todo)
    head = (f"# Peers\n\n{machine()}\n\n{versions()}\n\nMedians of {a.rounds} interleaved rounds of {a.seconds} s, delivery "
            "verified. Ratios hold within one table only.\n")
    write(run, todo, head, about)
    with open(os.path.join(a.out, "results.md")) as f:
        print(f.read())
    print(f"written: {a.out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
