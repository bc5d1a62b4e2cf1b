"""Results as Markdown: one table for each workload and placement."""
import statistics

from plan import label

PLACED = {"same": "both processes on one core", "apart": "a core each", "free": "wherever the scheduler puts them"}


def number(v):
    if v is None:
        return "-"
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}"


def median(rows, key):
    values = [r[key] for r in rows if r.get(key) is not None]
    return statistics.median(values) if values else None


def unit(kind):
    return {"stream": "messages/s", "echo": "round trips/s", "fanout": "deliveries/s", "connect": "connections/s",
            "idle": "KiB/connection", "rate": "messages/s"}[kind]


def lower_is_better(kind):
    return kind in ("idle", "rate")


def figure(w):
    """The key that a workload is judged by, and its unit."""
    return ("p99_us", "us, p99 from the scheduled time") if w.kind == "rate" else ("value", unit(w.kind))


def cases(results):
    """The (workload, placement) pairs that were measured, in order, each with its rows by peer."""
    found = {}
    for r in results:
        peers = found.setdefault((r["case"], r["placement"]), {})
        peers.setdefault(r["peer"], []).append(r)
    return found


def ranked(w, peers):
    """The peers, best first, with their rows."""
    key, _ = figure(w)
    have = [(n, rows) for n, rows in peers.items() if median(rows, key) is not None]
    return sorted(have, key=lambda x: median(x[1], key), reverse=not lower_is_better(w.kind))


def title(w, placement):
    return label(w) + ("" if w.kind == "idle" else f" ({PLACED[placement]})")


def table(w, placement, peers, calls, failed):
    key, what = figure(w)
    base = median(peers["raw"], key) if "raw" in peers else None
    more = {
        "idle": [("base_mib", "MiB before"), ("full_mib", "MiB with all")],
        "rate": [("p50_us", "p50 us"), ("p999_us", "p99.9 us"), ("max_us", "max us"), ("value", "messages/s")],
    }.get(w.kind, [("p50_us", "p50 us"), ("p99_us", "p99 us"), ("p999_us", "p99.9 us")] if w.window == 1 else [])
    if w.kind != "idle":
        more = more + [("cpu_s_per_million", "CPU s per million")]
    with_calls = any(k[0] == (w, placement) for k in calls)
    heads = ["peer", what, "min..max", "ratio to raw"] + [h for _, h in more]
    if with_calls:
        heads.append("system calls per message")
    lines = [f"### {title(w, placement)}", "", "| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, rows in ranked(w, peers):
        values = [r[key] for r in rows]
        middle = statistics.median(values)
        cells = [name, number(middle), f"{number(min(values))}..{number(max(values))}",
                 f"{middle / base:.2f}" if base else "-"]
        cells += [number(median(rows, k)) for k, _ in more]
        if with_calls:
            v = calls.get(((w, placement), name))
            cells.append(number(v))
        lines.append("| " + " | ".join(cells) + " |")
    for name, why in failed:
        lines += ["", f"{name}: no result: {why}"]
    return "\n".join(lines) + "\n"


def document(head, results, by_name, calls, failures):
    out = [head]
    for (case, placement), peers in cases(results).items():
        w = by_name[case]
        failed = [(n, why) for (n, c, p), why in failures.items() if (c, p) == (case, placement)]
        out.append(table(w, placement, peers, calls, failed))
    return "\n".join(out)
