"""One workload as a picture: a bar for each peer with its range, as SVG text without dependencies."""
import statistics
from html import escape

from tables import figure, number, ranked, title

WIDTH, LEFT, RIGHT, ROW, HEAD, FOOT = 980, 140, 230, 30, 74, 74
COLOURS = {"raw": "#8c8c8c", "ours": "#1f6fb2", "ours-coroutine": "#5aa0d8"}
OTHER = "#d9a441"
FONT = "font-family='Helvetica, Arial, sans-serif'"


def text(x, y, s, size=13, anchor="start", weight="normal", colour="#222"):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' {FONT} text-anchor='{anchor}' "
            f"font-weight='{weight}' fill='{colour}'>{escape(s)}</text>")


def step(top):
    """A round distance between grid lines, of which about five fit below `top`."""
    size = 10.0 ** len(str(int(max(top, 1)))) / 1000
    for factor in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if top / (size * factor) <= 6:
            return size * factor
    return top


def short(v):
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if v >= size:
            return f"{v / size:.3g} {name}"
    return f"{v:.3g}"


def svg(w, placement, peers, machine, settings):
    key, unit = figure(w)
    rows = ranked(w, peers)
    medians = [statistics.median([r[key] for r in v]) for _, v in rows]
    # a bar that is far longer than all others is cut, so that the others can be read
    whole = sorted(max(r[key] for r in v) for _, v in rows)
    top = whole[-1]
    if key != "value" or w.kind == "idle":
        top = min(top, 4 * whole[len(whole) // 2])
    base = statistics.median([r[key] for r in peers["raw"]]) if "raw" in peers else None
    height = HEAD + ROW * len(rows) + FOOT
    scale = (WIDTH - LEFT - RIGHT) / top if top else 1
    x = lambda v: LEFT + min(v, top) * scale
    bottom = HEAD + ROW * len(rows)
    better = "shorter is better" if w.kind in ("idle", "rate") else "longer is better"
    out = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' "
           f"viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(title(w, placement), quote=True)}'>",
           f"<rect width='{WIDTH}' height='{height}' fill='white'/>",
           text(16, 28, title(w, placement), 18, weight="bold"),
           text(16, 50, f"{unit}; {better}; bar: median of {settings}, line: min..max; × : ratio to raw", 12, colour="#555")]
    gap, v = step(top), 0.0
    while v <= top * 1.0001:
        out.append(f"<line x1='{x(v):.1f}' y1='{HEAD - 6}' x2='{x(v):.1f}' y2='{bottom}' stroke='#ddd'/>")
        out.append(text(x(v), bottom + 16, short(v), 11, "middle", colour="#555"))
        v += gap
    for i, (name, v) in enumerate(rows):
        values, y = [r[key] for r in v], HEAD + i * ROW
        middle = medians[i]
        mark = "bold" if name.startswith("ours") else "normal"
        out.append(text(LEFT - 8, y + 19, name, 13, "end", mark))
        out.append(f"<rect x='{LEFT}' y='{y + 5}' width='{max(1, x(middle) - LEFT):.1f}' height='{ROW - 10}' "
                   f"fill='{COLOURS.get(name, OTHER)}'/>")
        low, high, mid = x(min(values)), x(max(values)), y + ROW / 2
        out.append(f"<path d='M{low:.1f} {mid - 5}V{mid + 5}M{low:.1f} {mid}H{high:.1f}M{high:.1f} {mid - 5}V{mid + 5}' "
                   "stroke='#222' stroke-width='1.5' fill='none'/>")
        ratio = f"  × {middle / base:.2f}" if base else ""
        out.append(text(WIDTH - RIGHT + 14, y + 19, number(middle) + (" (cut)" if middle > top else "") + ratio, 13, weight=mark))
    if base and base <= top:
        out.append(f"<line x1='{x(base):.1f}' y1='{HEAD - 6}' x2='{x(base):.1f}' y2='{bottom}' stroke='#444' "
                   "stroke-dasharray='4 3'/>")
    out.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, unit, 12, "middle"))
    out.append(text(16, height - 12, machine, 11, colour="#777"))
    return "\n".join(out + ["</svg>"]) + "\n"
