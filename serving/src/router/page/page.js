"use strict";

// Points in each plot, and the milliseconds between two paintings: fast enough to look live, slow enough
// that thousands of events a second cost no more than a few.
const POINTS = 120;
const PAINT_MS = 200;
const REFRESH_MS = 5000;
const SEARCH_MS = 150;

// A browser keeps six connections to one server; each asset's stream is one, and questions need one too.
const MAX_WATCHED = 4;

const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function fetchJson(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || answer.statusText);
  return body;
}

// ---- Shards and groups

async function refresh() {
  try {
    const { epoch, shards } = await fetchJson("shards");
    byId("epoch").textContent = `Shard map ${epoch}`;
    const rows = shards.map((shard) => row(shard.name, `${(shard.share * 100).toFixed(1)} %`, shard.nats_urls.length));
    byId("shards").replaceChildren(...rows);
  } catch (error) {
    byId("epoch").textContent = error.message;
  }
  try {
    const { groups } = await fetchJson("groups");
    byId("groups").replaceChildren(...groups.map((group) => row(group.name, group.assets, group.serving ? "awake" : "asleep")));
    showGroupChoice(groups.map((group) => group.name));
  } catch (error) {
    byId("groups").replaceChildren(row("This router serves no groups", "", ""));
  }
  setTimeout(refresh, REFRESH_MS);
}

function row(...cells) {
  const made = element("tr");
  made.append(...cells.map((cell) => element("td", cell)));
  return made;
}

function showGroupChoice(names) {
  const select = byId("group");
  const shown = [...select.options].slice(1).map((option) => option.value);
  if (shown.join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.length = 1;
  for (const name of names) select.add(new Option(name, name));
  select.value = names.includes(chosen) ? chosen : "";
}

// ---- Assets

let searches = 0;

async function search() {
  const mine = ++searches;
  const query = new URLSearchParams({ search: byId("search").value, group: byId("group").value, limit: "200" });
  try {
    const { total, assets } = await fetchJson(`assets?${query}`);
    if (mine !== searches) return;
    byId("found").textContent = total > assets.length ? `${assets.length} of ${total} shown` : `${total} found`;
    byId("assets").replaceChildren(...assets.map(assetLine));
  } catch (error) {
    if (mine === searches) byId("found").textContent = error.message;
  }
}

function assetLine({ asset_uuid: asset, group }) {
  const line = element("li");
  const label = element("label");
  const box = element("input");
  box.type = "checkbox";
  box.checked = watched.has(asset);
  box.disabled = group === null;
  box.addEventListener("change", () => {
    if (!box.checked) return unwatch(asset);
    if (watched.size < MAX_WATCHED) return watch(asset, group);
    box.checked = false;
    byId("hint").textContent = `At most ${MAX_WATCHED} assets at a time; take one off the list first.`;
  });
  label.append(box, element("span", asset), element("span", group ?? "in no group", "of"));
  line.append(label);
  return line;
}

// ---- Live values

const watched = new Map();
const dirty = new Set();

function watch(asset, group) {
  const article = element("article");
  const title = element("h3", asset);
  const rate = element("span", "waiting");
  title.append(rate);
  article.append(title);
  byId("live").append(article);
  const source = new EventSource(`group/${encodeURIComponent(group)}/asset_stream?asset_uuid=${encodeURIComponent(asset)}`);
  const entry = { article, rate, source, items: new Map(), count: 0 };
  watched.set(asset, entry);
  source.addEventListener("asset_update", (event) => update(entry, event.data));
  source.addEventListener("gap", (event) => showGap(entry, event.data));
  source.addEventListener("open", showConnection);
  source.addEventListener("error", () => retryIfClosed(asset, group, source));
  showConnection();
  rememberWatched();
}

// EventSource comes back by itself from a broken connection, but gives up on an answer that is no stream.
function retryIfClosed(asset, group, source) {
  showConnection();
  if (source.readyState !== EventSource.CLOSED) return;
  setTimeout(() => {
    if (watched.get(asset)?.source !== source) return;
    unwatch(asset);
    watch(asset, group);
  }, 2000);
}

function unwatch(asset) {
  const entry = watched.get(asset);
  entry.source.close();
  entry.article.remove();
  watched.delete(asset);
  dirty.delete(entry);
  showConnection();
  rememberWatched();
}

// The page's address names the assets, so that it can be kept, sent and loaded again.
function rememberWatched() {
  const names = new URLSearchParams([...watched.keys()].map((asset) => ["asset", asset]));
  history.replaceState(null, "", `#${names}`);
}

async function watchRemembered() {
  const names = new URLSearchParams(location.hash.slice(1)).getAll("asset");
  for (const name of names.slice(0, MAX_WATCHED)) {
    try {
      const { assets } = await fetchJson(`assets?${new URLSearchParams({ search: name, limit: "1000" })}`);
      const found = assets.find((it) => it.asset_uuid === name && it.group !== null);
      if (found && !watched.has(name)) watch(name, found.group);
    } catch {
      byId("hint").textContent = `${name} cannot be looked up at the moment; choose it from the list.`;
    }
  }
}

function update(entry, data) {
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    return;
  }
  const member = (name) => event[name] ?? event[name.toLowerCase()] ?? event[`S_${name}`];
  const id = String(member("ID"));
  const item = entry.items.get(id) ?? addItem(entry, id);
  item.value = member("VALUE");
  const number = Number(item.value);
  if (item.value !== null && item.value !== "" && Number.isFinite(number)) {
    item.points.push(number);
    if (item.points.length > POINTS) item.points.shift();
  }
  entry.count += 1;
  dirty.add(entry);
}

function addItem(entry, id) {
  const line = element("div", undefined, "value");
  const shown = element("b");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  const plot = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.append(plot);
  line.append(element("span", id), shown, svg);
  entry.article.append(line);
  const item = { shown, plot, points: [], value: null };
  entry.items.set(id, item);
  return item;
}

function showGap(entry, data) {
  entry.article.append(element("p", `Some events are missing: ${JSON.parse(data).reason}`, "gap"));
}

function paint() {
  for (const entry of dirty) {
    entry.rate.textContent = `${entry.count} events`;
    for (const item of entry.items.values()) paintItem(item);
  }
  dirty.clear();
}

function paintItem({ shown, plot, points, value }) {
  shown.textContent = value;
  shown.title = value;
  const low = Math.min(...points);
  const span = Math.max(...points) - low || 1;
  plot.setAttribute("points", points.map((y, x) => `${x},${0.95 - (0.9 * (y - low)) / span}`).join(" "));
}

function showConnection() {
  const states = [...watched.values()].map((entry) => entry.source.readyState);
  const open = states.filter((state) => state === EventSource.OPEN).length;
  const connection = byId("connection");
  connection.className = states.length === 0 ? "" : open === states.length ? "live" : "lost";
  connection.textContent = states.length === 0 ? "" : open === states.length ? "live" : `reconnecting (${open} of ${states.length} live)`;
}

// ---- Start

let searching;
byId("search").addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(search, SEARCH_MS);
});
byId("group").addEventListener("change", search);
setInterval(paint, PAINT_MS);
refresh();
watchRemembered().then(search);
