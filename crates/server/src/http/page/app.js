// The live page: one native EventSource, opened by a ticket, and a few figures made from what it brings.
"use strict";

const $ = (id) => document.getElementById(id);
const SILENCE = 45_000; // a stream that says nothing for so long is lost: it has a heartbeat
const ROWS = 200;
const BACKOFF = [1_000, 2_000, 4_000, 8_000, 15_000];

let token = "";
let source = null;
let cursor = null;
let heard = 0;
let failures = 0;
let timer = 0;
let paused = false;
let total = 0;
const seconds = new Array(60).fill(0);
let latencies = [];
let waiting = [];

function state(name, text) {
  $("status").dataset.state = name;
  $("status").textContent = text ?? name;
}

function signIn() {
  const found = location.hash.match(/token=([^&]+)/);
  if (found) {
    sessionStorage.setItem("tidings-token", decodeURIComponent(found[1]));
    history.replaceState(null, "", location.pathname);
  }
  token = sessionStorage.getItem("tidings-token") ?? "";
  $("signin").hidden = token !== "";
  $("live").hidden = token === "";
  if (token) {
    connect();
    dispatchEvent(new Event("tidings-signed-in"));
  } else {
    state("offline", "not signed in");
  }
}

function signOut(why) {
  sessionStorage.removeItem("tidings-token");
  token = "";
  $("signin-error").textContent = why;
  signIn();
}

async function api(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...options.headers };
  const response = await fetch(path, { ...options, headers });
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) signOut(body.detail ?? "The token is not accepted.");
  if (!response.ok) throw new Error(body.detail ?? `the server answers ${response.status}`);
  return body;
}

async function connect() {
  clearTimeout(timer);
  source?.close();
  state(failures ? "reconnecting" : "connecting", failures ? "reconnecting …" : "connecting …");
  try {
    const { ticket } = await api("/api/v1/stream/tickets", { method: "POST" });
    const query = new URLSearchParams({ topic: "**", named: "false", ticket });
    if (cursor) query.set("last_event_id", cursor);
    open(`/api/v1/stream?${query}`);
  } catch (e) {
    if (token) again();
  }
}

function again() {
  state(navigator.onLine ? "reconnecting" : "offline", navigator.onLine ? "reconnecting …" : "offline");
  const wait = BACKOFF[Math.min(failures, BACKOFF.length - 1)] * (0.5 + Math.random());
  failures += 1;
  timer = setTimeout(connect, wait);
}

function open(url) {
  source = new EventSource(url);
  const stream = source;
  const alive = () => { heard = performance.now(); };
  stream.addEventListener("connected", (e) => {
    alive();
    failures = 0;
    cursor ??= JSON.parse(e.data).cursor;
    state(paused ? "paused" : "connected");
  });
  stream.addEventListener("checkpoint", (e) => { alive(); cursor = e.lastEventId; });
  for (const name of ["gap", "reset", "dropped", "unsubscribed"]) {
    stream.addEventListener(name, (e) => { alive(); row({ time: new Date().toISOString(), topic: "–", type: name, data: JSON.parse(e.data) }); });
  }
  stream.onmessage = (e) => {
    alive();
    if (e.lastEventId) cursor = e.lastEventId;
    take(JSON.parse(e.data));
  };
  stream.onerror = () => {
    if (stream !== source) return;
    if (stream.readyState === EventSource.CLOSED) again();
    else state("reconnecting", "reconnecting …");
  };
}

function take(event) {
  total += 1;
  seconds[59] += 1;
  const age = Date.now() - Date.parse(event.time);
  if (age >= 0 && age < 60_000) latencies.push(age);
  if (latencies.length > 500) latencies = latencies.slice(-250);
  dispatchEvent(new CustomEvent("tidings-event", { detail: event }));
  waiting.push(event);
  if (waiting.length > ROWS) waiting.shift();
}

const LEVELS = [
  [/critical|emergency|high|error|fatal/i, "bad"],
  [/major|minor|warn|medium|escalated/i, "warn"],
  [/clear|resolved|acknowledged|ok|info|low/i, "good"],
];

function level(text) {
  return LEVELS.find(([pattern]) => pattern.test(text))?.[1] ?? "";
}

function summary(event) {
  const d = event.data ?? {};
  const line = Array.isArray(d.logs) ? d.logs.at(-1) : undefined;
  const tag = d.severity ?? d.perceivedSeverity ?? d.priority ?? d.tier ?? line?.level ?? d.level ?? event.type.split(/[_-]/)[0];
  const measured = d.value === undefined ? undefined : `${d.type ?? event.type} ${d.value} ${d.unit ?? ""}`;
  const title = line?.message ?? measured ?? d.title ?? d.message ?? d.specific_problem ?? d.alarm_type ?? d.kind ?? event.type;
  const where = d.entity_id ?? d.device_entity_id ?? d.patient_id ?? d.patientId ?? event.topic;
  return { tag: String(tag), title: String(title), where: String(where) };
}

function kind(event) {
  const prefix = event.topic.split("/")[0];
  return { incidents: "alarms", vitals: "alerts", signals: "devices" }[prefix] ?? prefix;
}

function element(name, text, className) {
  const e = document.createElement(name);
  e.textContent = text;
  if (className) e.className = className;
  return e;
}

function row(event) {
  const filter = $("filter").value.trim().toLowerCase();
  if (filter && !`${event.topic} ${event.type}`.toLowerCase().includes(filter)) return;
  const tr = document.createElement("tr");
  const data = JSON.stringify(event.data);
  for (const text of [event.time.slice(11, 23).replace("Z", ""), event.topic, event.type, data]) {
    const td = element("td", text);
    td.title = text.length > 500 ? `${text.slice(0, 500)} …` : text;
    tr.append(td);
  }
  $("events").prepend(tr);
  while ($("events").rows.length > ROWS) $("events").deleteRow(-1);
  $("none").hidden = true;
}

function draw() {
  if (!paused) {
    for (const event of waiting) {
      row(event);
      const list = document.querySelector(`[data-kind="${CSS.escape(kind(event))}"] ol`);
      if (!list) continue;
      const { tag, title, where } = summary(event);
      const li = document.createElement("li");
      li.append(element("span", tag, `tag ${level(tag)}`), element("b", title), element("small", where));
      list.prepend(li);
      list.classList.remove("empty");
      while (list.children.length > 4) list.lastChild.remove();
    }
    waiting = [];
  }
  $("total").textContent = total.toLocaleString("en");
  const recent = latencies.slice(-100).sort((a, b) => a - b);
  $("latency").textContent = recent.length ? recent[recent.length >> 1] : "–";
  requestAnimationFrame(draw);
}

function tick() {
  $("rate").textContent = seconds[59];
  const most = Math.max(5, ...seconds);
  const points = seconds.map((n, i) => `${(i * 600) / 59},${58 - (54 * n) / most}`).join(" L");
  document.querySelector(".line").setAttribute("d", `M${points}`);
  document.querySelector(".area").setAttribute("d", `M0,60 L${points} L600,60 Z`);
  seconds.shift();
  seconds.push(0);
  if (source && heard && performance.now() - heard > SILENCE && $("status").dataset.state === "connected") {
    state("lost", "connection lost");
    source.close();
    again();
  }
}

async function figures() {
  if (token && !document.hidden) {
    try {
      const [status, open] = await Promise.all([api("/api/v1/status"), api("/api/v1/connections?limit=20")]);
      const { sse, websocket, long_poll } = status.connections;
      $("connections").textContent = sse + websocket + long_poll;
      $("head").textContent = Number(status.log.head.split("-").pop()).toLocaleString("en");
      $("open").replaceChildren(...open.connections.map((c) => element("li", `${c.transport} · ${c.subject} · ${c.topics.join(", ")}${c.behind > 1_000 ? ` · ${c.behind} behind` : ""}`)));
      // An idle stream has nothing to say for half a minute: the server that answers is heard too.
      heard = performance.now();
    } catch { /* the stream's own status tells */ }
  }
  setTimeout(figures, 5_000);
}

$("signin-form").addEventListener("submit", (e) => {
  e.preventDefault();
  sessionStorage.setItem("tidings-token", $("token").value.trim());
  $("token").value = "";
  $("signin-error").textContent = "";
  signIn();
});

$("publish").addEventListener("submit", async (e) => {
  e.preventDefault();
  try {
    const event = { topic: $("p-topic").value, type: $("p-type").value, data: JSON.parse($("p-data").value) };
    const { cursor: at } = await api("/api/v1/events", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(event) });
    $("published").textContent = at ? `Durable at ${at.split("-").pop()}.` : "Sent; this topic is never stored.";
  } catch (error) {
    $("published").textContent = error.message;
  }
});

function pause() {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  if (source?.readyState === EventSource.OPEN) state(paused ? "paused" : "connected");
}

$("pause").addEventListener("click", pause);
document.addEventListener("keydown", (e) => {
  if (e.key === " " && e.target === document.body) { e.preventDefault(); pause(); }
});
$("filter").addEventListener("input", () => { $("events").replaceChildren(); });
addEventListener("online", () => { failures = 0; if (token) connect(); });
addEventListener("offline", () => state("offline"));

signIn();
figures();
setInterval(tick, 1_000);
requestAnimationFrame(draw);
