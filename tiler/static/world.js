/* The map: coastlines on a neutral ground, the collection's tiles beneath them, the chosen place on top. */

import * as maplibregl from "./vendor/maplibre-gl/maplibre-gl.mjs";
import { sentence } from "./ask.js";
import { readCoastlines } from "./coastlines.js";
import { byId } from "./element.js";
import { wrapped } from "./units.js";

const LIGHT = { water: "#e8edee", land: "#d5dad8", coast: "#36454a", mark: "#111719", halo: "#ffffff" };
const DARK = { water: "#12181b", land: "#242c30", coast: "#c3ced1", mark: "#ffffff", halo: "#0c1113" };
const KEPT = 4;
const PATIENCE = 6000;
const GROUND = 2000;
const FARTHEST = 85.0511287798066;
const EMPTY = { type: "FeatureCollection", features: [] };

export class World {
  /** `pick({lon, lat})`: somebody chose a place; `moved()`: the view changed; `says(text)`: something to tell. */
  constructor({ pick, moved, says, view, globe }) {
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.frames = new Map();
    this.wanted = null;
    this.opacity = 1;
    this.clock = 0;
    this.says = says;
    this.globe = globe;
    this.drawn = new Promise((done) => (this.first = done));
    this.map = new maplibregl.Map({
      container: byId("map"),
      style: { version: 8, sources: {}, layers: [{ id: "water", type: "background", paint: { "background-color": this.#paint().water } }] },
      center: view ? [view.lon, view.lat] : [0, 18],
      zoom: view?.zoom ?? 1.4,
      minZoom: 0,
      maxZoom: 16,
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 0,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new maplibregl.GlobeControl(), "top-right");
    this.map.addControl(new maplibregl.ScaleControl({ maxWidth: 90 }), "bottom-right");
    this.map.on("click", (event) => {
      // The arrow keys go on stepping through time; they move the map for whoever came to it by the Tab key.
      this.map.getCanvas().blur();
      pick({ lon: wrapped(event.lngLat.lng), lat: event.lngLat.lat });
    });
    this.map.on("moveend", () => {
      for (const frame of this.frames.values()) this.map.setPaintProperty(frame.id, "raster-resampling", this.#resampling(frame.maxzoom));
      moved();
    });
    this.map.on("movestart", () => this.#forget());
    this.map.on("error", (event) => this.#failed(event));
    this.map.on("sourcedata", (event) => this.#arrived(event.sourceId));
    this.map.getCanvas().addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const { lng, lat } = this.map.getCenter();
      pick({ lon: wrapped(lng), lat });
    });
    this.dark.addEventListener("change", () => this.#repaint());
    this.ready = new Promise((done) => this.map.once("load", done)).then(() => {
      if (globe) this.round(true);
      this.map.on("projectiontransition", () => {
        const now = this.map.getProjection()?.type === "globe";
        if (now === this.globe) return;
        this.globe = now;
        moved();
      });
      this.#lay();
    });
  }

  get view() {
    const { lng, lat } = this.map.getCenter();
    return { zoom: this.map.getZoom(), lat, lon: wrapped(lng) };
  }

  /** Bring a box into view; its west is greater than its east where it crosses the antimeridian. */
  fit([west, south, east, north], room) {
    const right = east < west ? east + 360 : east;
    if (right - west > 300) {
      const { clientWidth: width, clientHeight: height } = this.map.getContainer();
      this.map.jumpTo({ center: [0, 18], zoom: Math.max(Math.log2(width / 512), Math.log2((0.8 * height) / 512)) });
    } else this.map.fitBounds([[west, Math.max(south, -FARTHEST)], [right, Math.min(north, FARTHEST)]], { padding: room, duration: 0, maxZoom: 9 });
  }

  /** Draw tiles: `spec` holds `key`, `tiles`, `size`, `bounds`, `minzoom`, `maxzoom`. Resolves when they are there. */
  show(spec) {
    this.wanted = spec.key;
    const frame = this.#frame(spec);
    if (![...this.frames.values()].some((other) => other.shown)) this.#reveal(frame);
    return Promise.race([frame.drawn, new Promise((done) => setTimeout(done, PATIENCE))]).then(() => {
      this.first();
      if (this.wanted !== spec.key || !this.frames.has(spec.key)) return;
      this.#reveal(frame);
      for (const other of this.frames.values()) if (other !== frame && other.shown) this.#hide(other);
      this.#prune();
    });
  }

  /** Load tiles that are likely to be asked for next. */
  expect(spec) {
    if (!navigator.connection?.saveData) this.#frame(spec);
  }

  /** Take all tiles away. */
  clear() {
    this.wanted = null;
    for (const key of [...this.frames.keys()]) this.#remove(key);
  }

  set strength(opacity) {
    this.opacity = opacity;
    for (const frame of this.frames.values()) if (frame.shown) this.map.setPaintProperty(frame.id, "raster-opacity", opacity);
  }

  /** Mark a place and, where known, the cell `[west, south, east, north]` that its value holds for. */
  mark(point, cell) {
    const features = [];
    if (cell) {
      const [west, south, east, north] = cell;
      features.push({ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [[[west, south], [east, south], [east, north], [west, north], [west, south]]] } });
    }
    if (point) features.push({ type: "Feature", properties: {}, geometry: { type: "Point", coordinates: [point.lon, point.lat] } });
    this.map.getSource("mark")?.setData({ type: "FeatureCollection", features });
  }

  /** Show the earth as a globe, or flat. */
  round(globe) {
    this.map.setProjection({ type: globe ? "globe" : "mercator" });
  }

  /** Bring a place into view if it is not. */
  seek({ lon, lat }) {
    if (!this.map.getBounds().contains([lon, lat])) this.map.easeTo({ center: [lon, lat] });
  }

  #paint() {
    return this.dark.matches ? DARK : LIGHT;
  }

  #frame(spec) {
    const known = this.frames.get(spec.key);
    if (known) {
      known.used = ++this.clock;
      return known;
    }
    const frame = { id: `tiles-${++this.clock}`, key: spec.key, maxzoom: spec.maxzoom, used: this.clock, shown: false };
    frame.drawn = new Promise((done) => (frame.arrived = done));
    this.frames.set(spec.key, frame);
    const source = { type: "raster", tiles: [spec.tiles], tileSize: spec.size, minzoom: spec.minzoom, maxzoom: spec.maxzoom };
    const [west, south, east, north] = spec.bounds;
    if (west < east) source.bounds = [west, Math.max(south, -FARTHEST), east, Math.min(north, FARTHEST)];
    this.map.addSource(frame.id, source);
    const paint = {
      "raster-opacity": 0,
      "raster-opacity-transition": { duration: 0 },
      "raster-fade-duration": 0,
      "raster-resampling": this.#resampling(spec.maxzoom),
    };
    this.map.addLayer({ id: frame.id, type: "raster", source: frame.id, paint }, "borders");
    return frame;
  }

  /** Beyond the finest tiles each cell stays a cell; below, smooth. */
  #resampling(maxzoom) {
    return this.map.getZoom() > maxzoom ? "nearest" : "linear";
  }

  #reveal(frame) {
    frame.shown = true;
    frame.used = ++this.clock;
    this.map.setPaintProperty(frame.id, "raster-opacity", this.opacity);
  }

  #hide(frame) {
    frame.shown = false;
    this.map.setPaintProperty(frame.id, "raster-opacity", 0);
  }

  #remove(key) {
    const frame = this.frames.get(key);
    this.frames.delete(key);
    this.map.removeLayer(frame.id);
    this.map.removeSource(frame.id);
    frame.arrived();
  }

  #prune() {
    const idle = [...this.frames.values()].filter((frame) => !frame.shown && frame.key !== this.wanted);
    idle.sort((a, b) => b.used - a.used);
    for (const frame of idle.slice(KEPT - 1)) this.#remove(frame.key);
  }

  /** Hidden tiles would be loaded for the new view too, which nobody may ever look at. */
  #forget() {
    for (const frame of [...this.frames.values()]) if (!frame.shown && frame.key !== this.wanted) this.#remove(frame.key);
  }

  #arrived(id) {
    const frame = [...this.frames.values()].find((one) => one.id === id);
    if (frame && this.map.isSourceLoaded(id)) frame.arrived();
  }

  async #failed(event) {
    const frame = [...this.frames.values()].find((one) => one.id === event.sourceId);
    const { error } = event;
    if (frame) frame.arrived();
    if (!error || error.name === "AbortError") return;
    // A 404 is a tile outside the matrix: nothing is drawn there and nothing is wrong.
    if (frame && error.status === 404) return;
    if (error.body instanceof Blob) {
      const answer = new Response(error.body, { status: error.status, statusText: error.statusText });
      this.says(`A part of the map could not be drawn. ${await sentence(answer)}`);
    } else this.says(frame ? "A part of the map could not be drawn: the service did not answer." : error.message);
  }

  /** Lay the layers: coastlines come when they are read, tiles go beneath them. */
  #lay() {
    const paint = this.#paint();
    const line = { "line-join": "round", "line-cap": "round" };
    const width = ["interpolate", ["linear"], ["zoom"], 0, 0.6, 4, 1, 9, 1.4];
    for (const id of ["land", "borders", "coast", "mark"]) this.map.addSource(id, { type: "geojson", data: EMPTY });
    this.map.addLayer({ id: "land", type: "fill", source: "land", paint: { "fill-color": paint.land, "fill-antialias": false } });
    this.map.addLayer({ id: "borders", type: "line", source: "borders", layout: line, paint: { "line-color": paint.coast, "line-opacity": 0.28, "line-width": 0.6 } });
    this.map.addLayer({ id: "coast", type: "line", source: "coast", layout: line, paint: { "line-color": paint.coast, "line-opacity": 0.75, "line-width": width } });
    const cell = { type: "line", source: "mark", filter: ["==", ["geometry-type"], "Polygon"] };
    this.map.addLayer({ ...cell, id: "halo", paint: { "line-color": paint.halo, "line-width": 4, "line-opacity": 0.8 } });
    this.map.addLayer({ ...cell, id: "cell", paint: { "line-color": paint.mark, "line-width": 1.5 } });
    this.map.addLayer({
      id: "point",
      type: "circle",
      source: "mark",
      filter: ["==", ["geometry-type"], "Point"],
      paint: { "circle-radius": 4.5, "circle-color": paint.mark, "circle-stroke-color": paint.halo, "circle-stroke-width": 2 },
    });
    // Coastlines take half a second of a small machine: the values that somebody came for go first.
    const soon = new Promise((done) => setTimeout(done, GROUND));
    Promise.race([this.drawn, soon]).then(readCoastlines).then(
      (lines) => Object.entries(lines).forEach(([id, data]) => this.map.getSource(id).setData(data)),
      () => this.says("The coastlines could not be read."),
    );
  }

  #repaint() {
    const paint = this.#paint();
    const set = (layer, property, value) => this.map.getLayer(layer) && this.map.setPaintProperty(layer, property, value);
    set("water", "background-color", paint.water);
    set("land", "fill-color", paint.land);
    set("coast", "line-color", paint.coast);
    set("borders", "line-color", paint.coast);
    set("halo", "line-color", paint.halo);
    set("cell", "line-color", paint.mark);
    set("point", "circle-color", paint.mark);
    set("point", "circle-stroke-color", paint.halo);
  }
}

/** Whether this browser can draw the map at all. */
export function canDraw() {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}
