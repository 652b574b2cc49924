// The network operations part of the live page: open alarms as one whole state from their own stream, clusters and
// incidents read once and then kept up by the events that the page gets anyway.
"use strict";

const SEVERITIES = ["critical", "major", "minor", "warning", "indeterminate"];
const LEGAL = { open: ["acknowledged", "in_progress", "resolved"], acknowledged: ["in_progress", "resolved"], in_progress: ["resolved"], resolved: ["closed"] };
const WORDS = { acknowledged: "Acknowledge", in_progress: "Start", resolved: "Resolve", closed: "Close" };
const SHOWN = 8;

let board = null;
let boardTimer = 0;
const clusters = new Map();
const incidents = new Map();

function severityTag(severity) {
  return element("span", severity, `tag ${level(severity)}`);
}

function since(time) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1_000));
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

function act(text, label, path, options) {
  const button = element("button", text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await api(path, { headers: { "Content-Type": "application/json" }, ...options });
      $("noc-error").textContent = "";
    } catch (e) {
      $("noc-error").textContent = `${label}: ${e.message}`;
      button.disabled = false;
    }
  });
  return button;
}

function item(severity, title, detail, ...buttons) {
  const li = document.createElement("li");
  const text = document.createElement("div");
  text.append(element("b", title), element("small", detail));
  li.append(severityTag(severity), text, ...buttons);
  return li;
}

// --- Open alarms: each frame is the whole list, so it takes the place of the one before.

async function watchAlarms() {
  clearTimeout(boardTimer);
  board?.close();
  if (!token) return;
  try {
    const { ticket } = await api("/api/v1/stream/tickets", { method: "POST" });
    board = new EventSource(`/api/v1/stream/alarms?${new URLSearchParams({ ticket })}`);
    board.onmessage = (e) => showAlarms(JSON.parse(e.data));
    const mine = board;
    board.onerror = () => {
      if (mine === board && mine.readyState === EventSource.CLOSED) boardTimer = setTimeout(watchAlarms, 2_000 + 3_000 * Math.random());
    };
  } catch {
    boardTimer = setTimeout(watchAlarms, 10_000);
  }
}

function showAlarms(frame) {
  if (frame.event !== "alarms_updated") return;
  $("alarm-count").textContent = frame.total ?? frame.count;
  $("alarm-list").replaceChildren(...frame.alarms.slice(0, SHOWN).map((alarm) => {
    const where = alarm.alarmedObject?.id ?? "unknown";
    const seen = alarm.ackState === "acknowledged";
    const button = seen
      ? element("small", "acknowledged")
      : act("Acknowledge", `Acknowledge ${alarm.specificProblem} on ${where}`, `/api/v1/alarms/${encodeURIComponent(alarm.id)}/acknowledge`, { method: "POST" });
    return item(alarm.perceivedSeverity, alarm.specificProblem, `${where} · ${since(alarm.eventTime)}`, button);
  }));
}

// --- Clusters and incidents: read once, then told.

async function readLists() {
  if (!token) return;
  try {
    const [c, i] = await Promise.all([api(`/api/v1/clusters?limit=${SHOWN}`), api(`/api/v1/incidents?exclude_status=closed&page_size=${SHOWN}`)]);
    clusters.clear();
    incidents.clear();
    for (const cluster of c.clusters.toReversed()) clusters.set(cluster.cluster_id, cluster);
    for (const incident of i.incidents.toReversed()) incidents.set(incident.id, incident);
    $("incident-count").textContent = i.total;
    showClusters();
    showIncidents();
    $("noc").hidden = false;
  } catch { /* what this token may not see stays away */ }
}

function showClusters() {
  const latest = [...clusters.values()].filter((c) => !c.merged_into).slice(-SHOWN).reverse();
  $("cluster-list").replaceChildren(...latest.map((c) => item(c.severity, `${c.alarm_count} ${c.alarm_count === 1 ? "alarm" : "alarms"}`, `root ${c.root_cause_entity_id ?? "not known"}${c.is_emergency_service ? " · emergency service" : ""}`)));
}

function showIncidents() {
  const latest = [...incidents.values()].slice(-SHOWN).reverse();
  $("incident-list").replaceChildren(...latest.map((i) => {
    const [next] = LEGAL[i.status] ?? [];
    const button = next
      ? act(WORDS[next], `${WORDS[next]} the incident on ${i.entity_id ?? i.title}`, `/api/v1/incidents/${encodeURIComponent(i.id)}`, { method: "PATCH", body: JSON.stringify({ status: next }) })
      : element("small", "");
    return item(i.severity, i.entity_id ?? i.title, `${i.priority} · ${i.status.replace("_", " ")} · ${since(i.created_at)}`, button);
  }));
}

const stale = new Set();

// What an event says of one incident is that it has changed: the incident itself is read again, a few at a time.
async function refresh() {
  const [id] = stale;
  if (id && token) {
    stale.delete(id);
    try {
      const incident = await api(`/api/v1/incidents/${encodeURIComponent(id)}`);
      if (!incidents.has(id)) $("incident-count").textContent = Number($("incident-count").textContent) + 1;
      incidents.delete(id);
      if (incident.status !== "closed") incidents.set(id, incident);
      while (incidents.size > 4 * SHOWN) incidents.delete(incidents.keys().next().value);
      showIncidents();
    } catch { /* the next event tells again */ }
  }
  setTimeout(refresh, stale.size ? 50 : 500);
}

function hear(event) {
  const data = event.data ?? {};
  if (/^alarm_cluster_/.test(event.type)) {
    clusters.delete(data.cluster_id);
    clusters.set(data.cluster_id, data);
    while (clusters.size > 4 * SHOWN) clusters.delete(clusters.keys().next().value);
    showClusters();
  } else if (event.topic === "incidents") {
    stale.add(data.incident_id);
  }
}

addEventListener("tidings-event", (e) => hear(e.detail));
addEventListener("tidings-signed-in", () => { watchAlarms(); readLists(); });
if (token) { watchAlarms(); readLists(); }
refresh();
