"use strict";

// Points in each plot, and the milliseconds between two paintings: fast enough to look live, slow enough
// that thousands of events a second cost no more than a few.
const POINTS = 120;
const PAINT_MS = 200;
const REFRESH_MS = 3000;
const SEARCH_MS = 150;

// A browser keeps six connections to one server; each asset's stream is one, and questions need one too.
const MAX_WATCHED = 4;

// Of the list only the rows in sight are there; what is around them is asked for in pieces of this many rows.
const ROW_PX = 26;
const PIECE = 100;
const ROWS_AROUND = 10;

const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- Token

function askForToken(error) {
  if (error.status !== 401) return false;
  byId("login").hidden = false;
  byId("login-note").textContent = sessionStorage.getItem(TOKEN) ? "This one is not valid, or not any more." : "This router asks for one.";
  return true;
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  byId("login").hidden = true;
  refresh();
  watchRemembered().then(search);
});

// ---- Shards and groups

let reachable = true;

async function refresh() {
  try {
    showShards(await fetchJson("shards"));
    reachable = true;
  } catch (error) {
    reachable = error instanceof Refused;
    if (!askForToken(error)) byId("epoch").textContent = reachable ? error.message : "The router does not answer.";
  }
  try {
    if (reachable) showGroups((await fetchJson("groups")).groups);
  } catch (error) {
    if (!askForToken(error)) byId("groups").replaceChildren(row("This router serves no groups", "", "", ""));
  }
  showConnection();
}

function showShards({ epoch, shards, forwarder_lag: lag }) {
  byId("epoch").textContent = `Shard map ${epoch}`;
  const rows = shards.map((shard) => row(shard.name, `${(shard.share * 100).toFixed(1)} %`, shard.nats_urls.length));
  byId("shards").replaceChildren(...rows);
  byId("forwarder-lag").textContent = events(lag);
}

function events(count) {
  return count === null || count === undefined ? "an unknown number of events" : count === 1 ? "1 event" : `${count} events`;
}

function showGroups(groups) {
  byId("groups").replaceChildren(...groups.map((group) => row(group.name, group.assets, group.lag ?? "", group.serving ? "awake" : "asleep")));
  showGroupChoice(groups.map((group) => group.name));
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

// What has been found so far of the search: pieces by their number, and how many assets there are.
let found = { number: 0, total: 0, pieces: new Map() };

async function search() {
  found = { number: found.number + 1, total: 0, pieces: new Map() };
  byId("assets").scrollTop = 0;
  await loadPiece(found, 0);
  remember();
}

async function loadPiece(of, piece) {
  if (of.pieces.has(piece)) return;
  of.pieces.set(piece, []);
  const query = new URLSearchParams({ search: byId("search").value, group: byId("group").value, offset: piece * PIECE, limit: PIECE });
  try {
    const { total, assets } = await fetchJson(`assets?${query}`);
    of.total = total;
    of.pieces.set(piece, assets);
    if (of === found) byId("found").textContent = `${total} found`;
  } catch (error) {
    of.pieces.delete(piece);
    if (of === found && !askForToken(error)) byId("found").textContent = error.message;
  }
  if (of === found) showRows();
}

function showRows() {
  const list = byId("assets");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - ROWS_AROUND);
  const last = Math.min(found.total, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + ROWS_AROUND);
  const lines = [];
  for (let at = first; at < last; at += 1) {
    const asset = found.pieces.get(Math.floor(at / PIECE))?.[at % PIECE];
    lines.push(asset ? assetLine(asset) : element("li", "…"));
  }
  const rows = byId("rows");
  rows.style.paddingTop = `${first * ROW_PX}px`;
  rows.style.height = `${found.total * ROW_PX}px`;
  rows.replaceChildren(...lines);
  for (let piece = Math.floor(first / PIECE); piece * PIECE < last; piece += 1) loadPiece(found, piece);
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
  const entry = { article, rate, items: new Map(), count: 0 };
  watched.set(asset, entry);
  entry.stream = new AssetStream(`asset_stream?asset_uuid=${encodeURIComponent(asset)}`, {
    onEvent: (event) => (event.type === "gap" ? showGap(entry, event.data) : update(entry, event.data)),
    onState: (error) => showState(entry, error),
  });
  showConnection();
  remember();
}

function showState(entry, error) {
  if (error instanceof Refused && !askForToken(error)) entry.rate.textContent = error.message;
  showConnection();
}

function unwatch(asset) {
  const entry = watched.get(asset);
  entry.stream.close();
  entry.article.remove();
  watched.delete(asset);
  dirty.delete(entry);
  showConnection();
  remember();
}

// The page's address names what is shown, so that it can be kept, sent and loaded again.
function remember() {
  const names = new URLSearchParams([...watched.keys()].map((asset) => ["asset", asset]));
  if (byId("search").value) names.set("search", byId("search").value);
  if (byId("group").value) names.set("group", byId("group").value);
  history.replaceState(null, "", `#${names}`);
}

const remembered = new URLSearchParams(location.hash.slice(1));

async function watchRemembered() {
  for (const name of remembered.getAll("asset").slice(0, MAX_WATCHED)) {
    try {
      const { assets } = await fetchJson(`assets?${new URLSearchParams({ search: name, limit: "1000" })}`);
      const known = assets.find((it) => it.asset_uuid === name && it.group !== null);
      if (known && !watched.has(name)) watch(name, known.group);
    } catch (error) {
      if (!askForToken(error)) byId("hint").textContent = `${name} cannot be looked up at the moment; choose it from the list.`;
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
  const all = watched.size;
  const live = [...watched.values()].filter((entry) => entry.stream?.state === "live").length;
  const connection = byId("connection");
  const lost = !reachable || live < all;
  connection.className = lost ? "lost" : all > 0 ? "live" : "";
  connection.textContent = !reachable ? "reconnecting to the router" : lost ? `reconnecting (${live} of ${all} live)` : all > 0 ? "live" : "";
}

// ---- Start

let searching;
byId("search").addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(search, SEARCH_MS);
});
byId("group").addEventListener("change", search);
byId("assets").addEventListener("scroll", () => requestAnimationFrame(showRows), { passive: true });
addEventListener("resize", showRows);
setInterval(paint, PAINT_MS);
setInterval(refresh, REFRESH_MS);
byId("search").value = remembered.get("search") ?? "";
refresh().then(() => {
  byId("group").value = remembered.get("group") ?? "";
  return watchRemembered().then(search);
});
