/* The map page: one state, shown by the map, the legend, the time bar and the panel. */

import { Refusal } from "./ask.js";
import { readCollection, readCollections, readTiles } from "./catalog.js";
import { drawAbout } from "./about.js";
import { byId, element } from "./element.js";
import { drawLegend } from "./legend.js";
import { readLocation, writeLocation } from "./location.js";
import { Panel } from "./panel.js";
import { instantOf } from "./periods.js";
import { Timeline } from "./timeline.js";
import { readPlace } from "./units.js";
import { World, canDraw } from "./world.js";

const REFRESH = 60_000;
const SAID = 9000;

const state = { collection: null, variable: null, tiles: null, at: 0, point: null, opacity: 100 };
let turn = 0;
let silence = 0;

const world = openWorld();
const timeline = new Timeline(showPeriod);
const panel = new Panel({ pick: (at) => showPeriod(at, {}), close: leave, found: outline });

/** The map, or null where the browser cannot draw one: all the rest works without it. */
function openWorld() {
  if (!canDraw()) return null;
  const { view, globe } = readLocation();
  try {
    return new World({ view, globe, pick: visit, moved: remember, says: say });
  } catch (error) {
    console.warn(error);
    return null;
  }
}

function say(text) {
  const box = byId("says");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => (box.hidden = true), SAID);
}

/** What is left undone says why; a defect of the page is not hidden behind a sentence. */
async function attempt(work) {
  try {
    await work;
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error instanceof Refusal ? error.message : `The page failed: ${error.message}`);
    if (!(error instanceof Refusal)) throw error;
  }
}

/**
 * Show a collection (read it unless it is `known`): the variable and period named, else its first variable and the
 * period nearest to the one shown.
 */
async function showCollection(id, { variable, period, point, fit = true, known = null } = {}) {
  const mine = ++turn;
  const instant = period ? instantOf(period) : state.collection?.periods.length ? state.collection.periods.starts[state.at] : null;
  const collection = known ?? (await readCollection(id));
  if (mine !== turn) return;
  const chosen = collection.variables.find((one) => one.name === variable) ?? collection.variables[0];
  const tiles = await readTiles(collection, chosen);
  await world?.ready;
  if (mine !== turn) return;
  const { periods } = collection;
  const at = periods.length === 0 ? 0 : instant === null ? periods.length - 1 : periods.nearest(instant);
  Object.assign(state, { collection, variable: chosen, tiles, at });
  byId("collection").value = collection.id;
  document.title = `${collection.title} · cenote`;
  byId("synthetic").hidden = !collection.synthetic;
  byId("variable-field").hidden = collection.variables.length < 2;
  byId("variable").replaceChildren(...collection.variables.map((one) => element("option", { value: one.name }, one.title)));
  byId("variable").value = chosen.name;
  drawAbout(collection);
  drawLegend(chosen, tiles.legend);
  timeline.over(periods, at);
  world?.clear();
  if (fit) world?.fit(collection.bounds, room());
  state.point = point ?? state.point;
  if (fit && point) world?.seek(point);
  if (state.point) visit(state.point);
  await showPeriod(at, {});
}

async function showVariable(name) {
  const mine = ++turn;
  const variable = state.collection.variables.find((one) => one.name === name);
  const tiles = await readTiles(state.collection, variable);
  if (mine !== turn) return;
  Object.assign(state, { variable, tiles });
  drawLegend(variable, tiles.legend);
  if (state.point) visit(state.point);
  await showPeriod(state.at, {});
}

/** Show a period; resolves when its map is drawn. */
async function showPeriod(at, { playing = false }) {
  const forward = at >= state.at ? 1 : -1;
  const before = state.at;
  state.at = at;
  const { periods } = state.collection;
  if (periods.length === 0) return;
  timeline.show(at);
  panel.show(at);
  remember();
  if (!playing) byId("status").textContent = periods.label(at);
  await world?.show(frame(at));
  if (state.at !== at) return;
  byId("map").dataset.drawn = periods.id(at);
  if (at === before) return;
  const next = playing ? (at + 1) % periods.length : at + forward;
  if (next >= 0 && next < periods.length) world?.expect(frame(next));
}

function frame(at) {
  const { collection, variable, tiles } = state;
  const { periods } = collection;
  return { ...tiles, key: `${collection.path} ${variable.name} ${periods.id(at)}`, tiles: tiles.at(periods.id(at)) };
}

/** Show the series of a place. */
function visit(point) {
  state.point = point;
  if (!state.collection) return;
  world?.mark(point, null);
  remember();
  attempt(panel.open(state.collection, state.variable, point, state.at));
}

/** Draw the cell that the values of a place hold for. */
function outline(point, { x, y }) {
  const { cell } = state.collection;
  if (!cell || x === undefined || y === undefined) return;
  const [dx, dy] = [cell[0] / 2, cell[1] / 2];
  world?.mark(point, [x - dx, y - dy, x + dx, y + dy]);
}

function leave() {
  state.point = null;
  world?.mark(null, null);
  panel.hide();
  remember();
}

function remember() {
  const { collection, variable, at, point, opacity } = state;
  if (!collection) return;
  const period = collection.periods.length ? collection.periods.id(at) : null;
  writeLocation({ collection: collection.id, variable: variable.name, period, view: world?.view, point, opacity, globe: world?.globe });
}

/** Keep what the cards cover free when a box is fitted into view. */
function room() {
  const wide = innerWidth > 900;
  const rest = { top: 40, right: 40, bottom: 110, left: wide ? 360 : 40 };
  return innerHeight > 500 ? rest : 20;
}

function fade(opacity) {
  state.opacity = opacity;
  byId("opacity").value = String(opacity);
  if (world) world.strength = opacity / 100;
}

/** A version published meanwhile takes the place of the one shown. */
async function refresh() {
  if (document.hidden || !state.collection?.periods.length || timeline.playing) return;
  const { collection, variable, at } = state;
  let now;
  try {
    now = await readCollection(collection.id);
  } catch (error) {
    // The map goes on with the version it has; whoever clicks is told what is wrong.
    if (error instanceof Refusal) return;
    throw error;
  }
  if (state.collection !== collection || now.version === collection.version) return;
  await showCollection(collection.id, { variable: variable.name, period: collection.periods.id(at), fit: false });
  byId("status").textContent = "A newer version was published and is shown now.";
}

async function start() {
  const said = readLocation();
  fade(said.opacity ?? 100);
  if (!world) say("This browser offers no WebGL 2, so no map can be drawn; a position typed under Options shows its series.");
  const collections = await readCollections();
  if (collections.length === 0) throw new Refusal("Nothing is published yet: `cenote sample` or `cenote ingest` publishes a first collection.");
  byId("collection").replaceChildren(...collections.map(({ id, title }) => element("option", { value: id }, title)));
  const asked = said.collection ?? (document.documentElement.dataset.collection || collections[0].id);
  const known = collections.find(({ id }) => id === asked);
  byId("collection").addEventListener("change", (event) => attempt(showCollection(event.target.value)));
  byId("variable").addEventListener("change", (event) => attempt(showVariable(event.target.value)));
  await showCollection(asked, { variable: said.variable, period: said.period, point: said.point, fit: !said.view, known });
}

byId("opacity").addEventListener("input", (event) => fade(Number(event.target.value)));
byId("opacity").addEventListener("change", remember);
byId("says").addEventListener("click", () => (byId("says").hidden = true));
byId("more").addEventListener("click", () => {
  const open = document.querySelector(".chooser").classList.toggle("open");
  byId("more").setAttribute("aria-expanded", String(open));
});
byId("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const point = readPlace(byId("place").value);
  if (!point) {
    say("A position is a latitude and a longitude in degrees, such as 12.5, -68.9.");
    return;
  }
  world?.seek(point);
  visit(point);
});
addEventListener("hashchange", () => {
  const said = readLocation();
  if (said.view) world?.map.jumpTo({ center: [said.view.lon, said.view.lat], zoom: said.view.zoom });
  if (world && said.globe !== world.globe) world.round(said.globe);
  fade(said.opacity ?? 100);
  const { collection, variable } = state;
  if (!collection) return;
  if (!said.point) leave();
  const id = said.collection ?? collection.id;
  attempt(showCollection(id, { variable: said.variable ?? variable.name, period: said.period, point: said.point, fit: !said.view }));
});
setInterval(() => attempt(refresh()), REFRESH);
document.addEventListener("visibilitychange", () => attempt(refresh()));
attempt(start());
