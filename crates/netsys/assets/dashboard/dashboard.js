// The dashboard: reads the admin API, draws what it says. Text from the server goes into text nodes only.
"use strict";
const $ = (id) => document.getElementById(id);
const KEEP = 3600;
const samples = [];
let table = { page: 0, sort: "queued_bytes", order: "desc" };
const PER_PAGE = 100;

const headers = () => ($("token").value ? { authorization: `Bearer ${$("token").value}` } : {});
async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).trim()}`);
  return answer;
}
const json = async (path) => (await ask(path)).json();
const say = (text) => { if ($("state").textContent !== text) $("state").textContent = text; };

const number = (n) => n >= 1e9 ? `${(n / 1e9).toFixed(2)} G` : n >= 1e6 ? `${(n / 1e6).toFixed(2)} M`
  : n >= 1e4 ? `${(n / 1e3).toFixed(1)} k` : `${Math.round(n)}`;
const time = (us) => us >= 1e6 ? `${(us / 1e6).toFixed(2)} s` : us >= 1e3 ? `${(us / 1e3).toFixed(2)} ms` : `${us.toFixed(1)} µs`;

function numbers(s) {
  $("version").textContent = `${s.version}, process ${s.pid}`;
  const all = [["connections", "connections_active", s.connections_active], ["sessions", "sessions", s.sessions],
    ["messages in", "messages_in", s.messages_in], ["messages out", "messages_out", s.messages_out],
    ["in per second", "", s.messages_in_per_second], ["out per second", "", s.messages_out_per_second],
    ["bytes in", "bytes_in", s.bytes_in], ["bytes out", "bytes_out", s.bytes_out],
    ["queued bytes", "queued_bytes", s.queued_bytes], ["dropped", "messages_dropped", s.messages_dropped]];
  const rows = all.map(([name, key, n]) => pair(name, number(n), key, n));
  for (const p of ["p50", "p90", "p99", "p999"]) rows.push(pair(`latency ${p}`, time(s.latency_us[p]), "", 0));
  $("numbers").replaceChildren(...rows);
  const counts = [];
  for (const [name, t] of Object.entries(s.transports)) {
    counts.push(["connections open", name, t.connections_active], ["connections in all", name, t.connections_total]);
    if (t.listeners) counts.push(["listeners", name, t.listeners]);
  }
  for (const [why, n] of Object.entries(s.connections_refused)) if (n) counts.push(["refused", why, n]);
  for (const [why, n] of Object.entries(s.connections_ended)) counts.push(["ended", why, n]);
  $("counts").tBodies[0].replaceChildren(...counts.map((row) => line(row)));
}
function pair(name, text, key, exact) {
  const box = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
  dt.textContent = name; dd.textContent = text;
  if (key) { dd.dataset.key = key; dd.dataset.value = exact; }
  box.append(dt, dd);
  return box;
}
function line(cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) { const td = document.createElement("td"); td.append(cell instanceof Node ? cell : String(cell)); tr.append(td); }
  return tr;
}

const CHARTS = [["Messages per second", "messages_in_per_second", "messages_out_per_second", "in", "out"],
  ["Bytes per second", "bytes_in_per_second", "bytes_out_per_second", "in", "out"],
  ["Latency, µs", "latency_p50_us", "latency_p99_us", "p50", "p99"],
  ["Connections, queued bytes", "connections_active", "queued_bytes", "connections", "queued"]];
let charts = [];
function build() {
  const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--dim"), grid = style.getPropertyValue("--line");
  $("charts").replaceChildren();
  charts = CHARTS.map(([title, , , a, b]) => {
    const box = document.createElement("div"), h = document.createElement("h3");
    h.textContent = title; box.append(h); $("charts").append(box);
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, size: 60 };
    return new uPlot({ width: Math.max(240, box.clientWidth), height: 180, axes: [{ ...axis, size: 30 }, axis],
      series: [{}, { label: a, stroke: style.getPropertyValue("--accent") }, { label: b, stroke: "#bc4c00", dash: [6, 3] }] }, [[], [], []], box);
  });
  draw();
}
function draw() {
  const x = samples.map((s) => s.time);
  charts.forEach((chart, n) => chart.setData([x, samples.map((s) => s[CHARTS[n][1]]), samples.map((s) => s[CHARTS[n][2]])]));
}

const COLUMNS = [["id", "id"], ["peer", "who"], ["", "transport"], ["", "TLS"], ["age", "age"], ["messages_in", "in"], ["messages_out", "out"],
  ["bytes_in", "bytes in"], ["bytes_out", "bytes out"], ["queued_bytes", "queued"], ["", ""]];
function head() {
  const tr = document.createElement("tr");
  for (const [key, name] of COLUMNS) {
    const th = document.createElement("th"); th.scope = "col";
    if (!name) { const td = document.createElement("td"); tr.append(td); continue; }
    if (key) {
      const button = document.createElement("button"); button.type = "button"; button.textContent = name;
      button.addEventListener("click", () => {
        table = { page: 0, sort: key, order: table.sort === key && table.order === "desc" ? "asc" : "desc" };
        [...tr.cells].forEach((cell) => cell.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", table.order === "desc" ? "descending" : "ascending");
        sessions();
      });
      th.append(button);
      if (key === table.sort) th.setAttribute("aria-sort", "descending");
    } else th.textContent = name;
    tr.append(th);
  }
  $("sessions").tHead.append(tr);
}
let asking = false;
async function sessions() {
  if (asking) return;
  asking = true;
  try {
    const query = new URLSearchParams({ search: $("search").value, sort: table.sort, order: table.order, page: table.page, per_page: PER_PAGE });
    const found = await json(`api/sessions?${query}`);
    $("total").textContent = `${found.total}, page ${table.page + 1} of ${Math.max(1, Math.ceil(found.total / PER_PAGE))}`;
    $("before").disabled = table.page === 0;
    $("after").disabled = (table.page + 1) * PER_PAGE >= found.total;
    const kept = document.activeElement?.dataset?.session;
    $("sessions").tBodies[0].replaceChildren(...found.sessions.map((s) => {
      const kick = document.createElement("button");
      kick.type = "button"; kick.textContent = "Kick"; kick.dataset.session = s.id;
      kick.setAttribute("aria-label", `Kick session ${s.id}`);
      kick.addEventListener("click", () => ask(`api/sessions/${s.id}`, { method: "DELETE" }).then(sessions, (e) => say(`not kicked, ${e.message}`)));
      const tls = s.tls ? `${s.tls.version} ${s.tls.subject ?? ""}` : "";
      return line([s.id, s.peer, s.transport, tls, time(s.age_seconds * 1e6), number(s.messages_in), number(s.messages_out),
        number(s.bytes_in), number(s.bytes_out), number(s.queued_bytes), kick]);
    }));
    if (kept) document.querySelector(`button[data-session="${CSS.escape(kept)}"]`)?.focus();
  } finally { asking = false; }
}

// Server-sent events by fetch, since EventSource cannot carry a token. Whatever ends, it begins anew with
// the history, so that nothing is missing after a restart of the server.
async function follow() {
  look().catch(() => {});
  for (;;) {
    try {
      samples.splice(0, samples.length, ...(await json("api/history")));
      const reader = (await ask("api/events")).body.pipeThrough(new TextDecoderStream()).getReader();
      say("live");
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const data = event.split("\n").find((l) => l.startsWith("data:"));
          if (data) push(JSON.parse(data.slice(5)));
        }
      }
      say("the server has ended, trying again");
    } catch (error) { say(`no connection, trying again: ${error.message}`); }
    await new Promise((r) => setTimeout(r, 1000));
  }
}
async function look() {
  numbers(await json("api/statistics"));
  await sessions();
}
function push(sample) {
  if (!(sample.time > (samples.at(-1)?.time ?? 0))) return;
  samples.push(sample);
  if (samples.length > KEEP) samples.shift();
  if (document.hidden) return;
  draw();
  look().catch(() => {}); // follow() tells
}

head(); build();
$("tools").addEventListener("submit", (event) => event.preventDefault());
$("search").addEventListener("input", () => { table.page = 0; sessions().catch((e) => say(e.message)); });
$("before").addEventListener("click", () => { table.page--; sessions(); });
$("after").addEventListener("click", () => { table.page++; sessions(); });
addEventListener("resize", () => charts.forEach((c, n) => c.setSize({ width: Math.max(240, $("charts").children[n].clientWidth), height: 180 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
follow();
