"""One measurement: a server process, a client process, a result. Children die with the runner, and
at a deadline that the kernel keeps."""
import ctypes
import glob
import json
import os
import re
import resource
import select
import signal
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
LIMIT = 90  # seconds that any child may live
_port = [21000 + os.getpid() % 2000 * 4]


def raise_file_limit(wanted=65536):
    """As many descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for soft, most in ((wanted, max(wanted, hard)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
            return
        except (ValueError, OSError):
            continue


def start(command, core, env=None, **streams):
    """Starts a program, on one core if there is one."""
    parent = os.getpid()

    def in_child():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.alarm(LIMIT)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=in_child,
                            env={**os.environ, **(env or {})}, **streams)


def end(p):
    """Kills a child of ours and reaps it; its CPU seconds."""
    try:
        os.kill(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    for pipe in (p.stdin, p.stdout, p.stderr):
        if pipe:
            pipe.close()
    return usage.ru_utime + usage.ru_stime


def read_line(p, limit):
    """One line of p's output within `limit` seconds, or None."""
    until, got = time.monotonic() + limit, b""
    while not got.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([p.stdout], [], [], left)[0]:
            return None
        b = os.read(p.stdout.fileno(), 1)
        if not b:
            return None
        got += b
    return got.decode()


def cpu_so_far(pid):
    """CPU seconds of a running process, to the nanosecond."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as f:
                total += int(f.read().split()[0])
        except OSError:
            continue
    return total / 1e9


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def last_words(p):
    """What a child that failed has said."""
    if not select.select([p.stderr], [], [], 0.2)[0]:
        return ""
    return os.read(p.stderr.fileno(), 300).decode(errors="replace").strip().split("\n")[0]


def next_port():
    _port[0] = _port[0] + 4 if _port[0] < 31000 else 21000
    return str(_port[0])


def measure(server, client, w, cores, seconds, env=None):
    """One result, or None and why there is none."""
    ours, theirs = cores or (None, None)
    port = next_port()
    quiet = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    s = start([server, "server", port], ours, env, **quiet)
    c = result = None
    try:
        if not read_line(s, 10):
            return None, f"the server did not start: {last_words(s)}"
        time.sleep(0.02)
        base, cpu0 = memory_kib(s.pid), cpu_so_far(s.pid)
        c = start([client, "client", port, *client_arguments(w, seconds)], theirs, env, **quiet)
        line = read_line(c, 80 if w.kind == "idle" else seconds * 4 + 10)
        if not line:
            return None, f"the client gave no result: {last_words(c) or last_words(s) or 'it hung'}"
        if w.kind == "idle":
            time.sleep(0.5)
            full = memory_kib(s.pid)
            result = {"value": (full - base) / w.conns, "base_mib": base / 1024, "full_mib": full / 1024}
        else:
            result = json.loads(line)
    finally:
        if c:
            end(c)
        cpu = end(s) - cpu0 if c else end(s)
    if "count" in result:
        result["server_cpu_s"] = cpu
        result["client_cpu_s"] = result.pop("cpu_s")
        result["cpu_s_per_million"] = (cpu + result["client_cpu_s"]) / max(1, result["count"]) * 1e6
    return result, None


def client_arguments(w, seconds):
    return [w.kind, str(w.size), str(w.conns), str(w.window), str(seconds)]


def system_calls(server, client, w, cores, folder):
    """System calls per message, both processes together, from a run of its own under strace (which
    makes everything slower, so batches may be larger than otherwise). None when it fails."""
    ours, theirs = cores or (None, None)
    port = next_port()
    logs = [os.path.join(folder, f"strace-{side}") for side in ("server", "client")]
    trace = lambda log: ["strace", "-f", "-c", "-q", "-o", log]
    quiet = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    s = start([server, "server", port], ours, **quiet)
    watch = c = line = None
    try:
        if read_line(s, 10):
            watch = start([*trace(logs[0]), "-p", str(s.pid)], None, **quiet)
            time.sleep(0.3)
            c = start([*trace(logs[1]), client, "client", port, *client_arguments(w, 0.5)], theirs, **quiet)
            line = read_line(c, 20)
    finally:
        if c:
            finish(c)
        if watch:
            finish(watch, signal.SIGINT)
        end(s)
    count = json.loads(line).get("count") if line else None
    return sum(total_calls(log) for log in logs) / count if count else None


def finish(tracer, how=None):
    """Lets a tracer end: by itself, by a signal, by force."""
    try:
        if how:
            tracer.send_signal(how)
        tracer.wait(3)
    except subprocess.TimeoutExpired:
        with open(f"/proc/{tracer.pid}/task/{tracer.pid}/children") as f:
            for child in f.read().split():
                os.kill(int(child), signal.SIGKILL)
        tracer.kill()
        tracer.wait()
    for pipe in (tracer.stdin, tracer.stdout):
        pipe.close()


def total_calls(log):
    """The calls in the `total` line of a summary of strace."""
    with open(log) as f:
        for line in f:
            if line.rstrip().endswith("total"):
                return int(line.split()[3])
    return 0
