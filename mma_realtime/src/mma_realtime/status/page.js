// The status page: one state, drawn anew with every event. Text goes in as text, never as HTML.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
const number = (x, digits) =>
  x.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }).replace("-", "−");
const clock = (s) => new Date(s * 1000).toISOString().slice(11, 19);
const HEALTH = {
  ok: "runs", late: "late", lost: "not heard of", down: "down", waiting: "waits", starting: "starts", ended: "ended",
};

function seconds(s) {
  if (s === null) return "–";
  if (s === 0) return "0 s";
  if (s < 0.0995) return `${number(s * 1000, s < 0.00995 ? 1 : 0)} ms`;
  if (s < 120) return `${number(s, s < 10 ? 2 : 0)} s`;
  return s < 7200 ? `${number(s / 60, 0)} min` : `${number(s / 3600, 1)} h`;
}

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

// A cell with a second, smaller line.
function cellWith(node, text, kind) {
  const td = cell("");
  td.append(node);
  if (text) {
    const line = document.createElement("span");
    line.className = kind ? `small ${kind}` : "small";
    line.textContent = text;
    td.append(line);
  }
  return td;
}

function rows(id, items, cells, none) {
  const columns = at(id).parentElement.tHead.rows[0].cells.length;
  const made = items.map((item) => {
    const tr = document.createElement("tr");
    tr.append(...cells(item));
    return tr;
  });
  if (!made.length) {
    const tr = document.createElement("tr");
    const td = cell(none, "small");
    td.colSpan = columns;
    tr.append(td);
    made.push(tr);
  }
  at(id).replaceChildren(...made);
}

function drawn(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// The line breaks where a window has no score.
function path(points, x, y) {
  let d = "", pen = false, before = null;
  for (const [gps, value] of points) {
    if (before !== null && gps - before > 1.5) pen = false;
    if (value !== null) d += `${pen ? "L" : "M"}${x(gps).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = value !== null;
    before = gps;
  }
  return d;
}

function scores(status) {
  const svg = at("scores"), points = status.scores.slice().sort((a, b) => a[0] - b[0]);
  const heard = points.filter((p) => p[1] !== null).map((p) => p[1]);
  if (!heard.length) {
    at("scores-text").textContent = points.length ? "No window has a score: the noise is still being learnt." : "No score yet.";
    svg.replaceChildren(drawn("title", { id: "scores-title" }, at("scores-text").textContent));
    return;
  }
  const width = svg.clientWidth, height = svg.clientHeight, left = 40, bottom = 20, top = 12;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const limit = status.threshold, end = points[points.length - 1][0], begin = end - 120;
  const low = Math.min(...heard, limit === null ? 0 : limit) - 1, high = Math.max(...heard, limit === null ? 0 : limit + 2) + 1;
  const x = (gps) => left + (width - left - 4) * (gps - begin) / 120;
  const y = (v) => top + (height - top - bottom) * (high - v) / (high - low);
  const parts = [drawn("title", { id: "scores-title" },
    `Largest score of each moment: highest ${number(Math.max(...heard), 1)}, now ${number(heard[heard.length - 1], 1)}`)];
  const tick = [1, 2, 5, 10, 20, 50, 100, 200].find((t) => (high - low) / t <= 5) || 500;
  for (let v = Math.ceil(low / tick) * tick; v <= high; v += tick) {
    parts.push(drawn("line", { class: "grid", x1: left, x2: width, y1: y(v), y2: y(v) }));
    parts.push(drawn("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, number(v, 0)));
  }
  for (const back of width < 500 ? [120, 60, 0] : [120, 90, 60, 30, 0]) {
    const anchor = back === 120 ? "start" : back === 0 ? "end" : "middle";
    parts.push(drawn("text", { x: x(end - back), y: height - 4, "text-anchor": anchor }, back ? `−${back} s` : "now"));
  }
  parts.push(drawn("path", { class: "line", d: path(points, x, y) }));
  if (limit !== null) {
    parts.push(drawn("line", { class: "limit", x1: left, x2: width, y1: y(limit), y2: y(limit) }));
    parts.push(drawn("text", { class: "limit", x: width - 4, y: y(limit) - 5, "text-anchor": "end" }, "threshold"));
  }
  svg.replaceChildren(...parts);
  const last = points[points.length - 1];
  at("scores-text").textContent = `GPS ${number(last[0], 1).replaceAll(",", "")}: ` +
    (last[1] === null ? "no score" : number(last[1], 1)) + `; highest of two minutes ${number(Math.max(...heard), 1)}`;
}

let shown = "";
function sky(event) {
  const key = event ? `${event.id}/${event.version}` : "";
  if (!event || key === shown) return;
  shown = key;
  const image = document.createElement("img");
  image.alt = `Sky map of ${event.id}: densest at right ascension ${number(event.ra, 1)}, declination ${number(event.dec, 1)} degrees`;
  image.width = 736;
  image.height = 376;
  image.src = `/map/${encodeURIComponent(event.id)}/${event.version}.svg`;
  const text = document.createElement("p");
  text.className = "small";
  const keys = [["p50", "50 %"], ["p90", "90 %"]].flatMap(([kind, name]) => {
    const box = document.createElement("span");
    box.className = `key ${kind}`;
    return [box, name];
  });
  text.append(`${event.id}, version ${event.version}: densest at RA ${number(event.ra, 1)}°, Dec ${number(event.dec, 1)}°; ` +
    `the 90 % region is as large as a circle of ${number(event.radius, 1)}°.`, ...keys);
  at("sky").replaceChildren(image, text);
}

function draw(status) {
  at("origin").textContent = {
    simulated: "Simulated noise with simulated signals. Everything here is a test: no alert is of a real event.",
    replayed: "Recorded strain, replayed. Everything here is a test: no alert is of a real event now.",
  }[status.origin] || "Everything here is a test: no alert is of a real event.";
  at("trouble").hidden = !status.trouble;
  at("trouble").textContent = status.trouble;
  scores(status);
  sky(status.superevent);
  rows("stages", status.stages, (s) => {
    const chip = document.createElement("span");
    chip.className = `chip ${s.health}`;
    chip.textContent = HEALTH[s.health];
    const silent = s.health === "late" || s.health === "lost" ? `silent for ${seconds(s.silent)}` : "";
    const says = [silent, s.note].filter(Boolean).join("; ");
    return [cell(s.name), cellWith(chip, says, "says"), cell(seconds(s.lag), "n"), cell(number(s.restarts, 0), "n")];
  }, "No stage has been heard of.");
  rows("triggers", status.triggers, (t) => [cellWith(t.superevent_id, `${t.utc.replace("T", " ").slice(0, 22)} in ${t.instruments.join(", ")}`),
    cell(number(t.statistic, 1), "n"), cell(t.far_text)], "None yet.");
  rows("alerts", status.alerts, (a) => [cell(a.superevent_id), cell(String(a.version), "n"), cell(a.alert_type.toLowerCase()),
    cell(clock(a.time))], "None yet.");
  rows("latency", status.latency, (l) => [cell(l.step), cell(seconds(l.p50), "n"), cell(seconds(l.p99), "n"),
    cell(number(l.n, 0), "n")], "Nothing measured yet.");
  const versions = Object.entries(status.alerts_per_version).map(([v, n]) => `${n} × version ${v}`).join(", ");
  const numbers = [
    ["GPS time of the search", status.gps === null ? "–" : number(status.gps, 1).replaceAll(",", "")],
    ["times real time", status.real_time_factor === null ? "–" : number(status.real_time_factor, 1)],
    ["notices that wait to be sent", status.outbox.waiting ? `${status.outbox.waiting} (${seconds(status.outbox.oldest)})` : "0"],
    ["alerts", versions || "0"],
    ["duplicates dropped", number(status.duplicates_dropped, 0)],
    ["seconds of strain missing", number(status.gaps, 0)],
  ];
  at("numbers").replaceChildren(...numbers.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

function linked(kind, text) {
  if (at("link").textContent === text) return; // a live region: told only when it changes
  at("link").className = `chip ${kind}`;
  at("link").textContent = text;
}

let latest = null, first = true;
const source = new EventSource("/events");
source.addEventListener("status", (event) => {
  latest = JSON.parse(event.data);
  draw(latest);
  first = false;
  linked("ok", "live");
  at("clock").textContent = `${clock(latest.now)} UTC`;
});
source.addEventListener("alert", (event) => {
  const alert = JSON.parse(event.data);
  if (!first) at("news").textContent = `New: ${alert.superevent_id}, version ${alert.version}, ${alert.alert_type.toLowerCase()}.`;
});
source.addEventListener("error", () => linked("down", "no connection: tries again"));
addEventListener("resize", () => latest && scores(latest));
