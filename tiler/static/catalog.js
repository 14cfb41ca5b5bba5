/* What is published, from the service's STAC collections. */

import { address, ask } from "./ask.js";
import { Periods, instantOf, regular } from "./periods.js";

const SIZE = 512;

/** All collections, sorted by title. */
export async function readCollections() {
  const found = [];
  let url = address("/collections");
  while (url) {
    const { document } = await ask(url);
    found.push(...document.collections);
    url = document.links?.find((link) => link.rel === "next")?.href;
  }
  return found.map((entry) => ({ id: entry.id, title: entry.title ?? entry.id })).sort((a, b) => a.title.localeCompare(b.title));
}

/**
 * A collection as the page needs it, fixed to the version that was current: whatever is asked of `path` from now on is
 * answered from that one, so that map, legend and series agree.
 */
export async function readCollection(id) {
  const { document: stac } = await ask(address(`/collections/${encodeURIComponent(id)}`));
  const version = stac.version;
  const dimensions = stac["cube:dimensions"] ?? {};
  const variables = Object.entries(stac["cube:variables"] ?? {}).map(([name, said]) => ({
    name,
    title: said.title ?? said.description ?? name,
    unit: said.unit ?? "1",
    role: said["cenote:role"] ?? "value",
    ancillaryOf: said["cenote:ancillary_of"] ?? null,
    render: stac.renders?.[name] ?? null,
  }));
  for (const variable of variables) {
    variable.spread = variables.find((other) => other.role === "uncertainty" && other.ancillaryOf === variable.name) ?? null;
    variable.range = variable.render?.rescale?.[0] ?? null;
  }
  const cell = [dimensions.x?.step, dimensions.y?.step].map((step) => Math.abs(Number(step)));
  return {
    id: stac.id,
    path: `/collections/${encodeURIComponent(stac.id)}/instances/${encodeURIComponent(version)}`,
    version,
    title: stac.title ?? stac.id,
    description: stac.description ?? "",
    synthetic: stac["cenote:synthetic"] === true,
    model: stac["cenote:model"] ?? null,
    license: stac.license ?? null,
    citation: stac["sci:citation"] ?? null,
    providers: stac.providers ?? [],
    bounds: stac.extent.spatial.bbox[0],
    cell: cell.every((size) => size > 0) ? cell : null,
    variables,
    periods: readPeriods(dimensions.time),
  };
}

/** How the tiles of a variable are asked for, and the colours they are drawn in. */
export async function readTiles(collection, variable) {
  const [{ document: tilejson }, colours] = await Promise.all([
    ask(address(`${collection.path}/WebMercatorQuad/tilejson.json`, { variable: variable.name, tilesize: SIZE })),
    readColours(variable.render?.colormap_name),
  ]);
  const [path, query = ""] = tilejson.tiles[0].split("?");
  return {
    at: (period) => {
      const search = new URLSearchParams(query);
      search.set("datetime", period);
      return `${path}?${search}`;
    },
    size: SIZE,
    bounds: tilejson.bounds,
    minzoom: tilejson.minzoom,
    maxzoom: tilejson.maxzoom,
    colours,
  };
}

async function readColours(name) {
  if (!name) return [];
  const { document } = await ask(address(`/colorMaps/${encodeURIComponent(name)}`));
  const indices = Object.keys(document).map(Number).sort((a, b) => a - b);
  const every = Math.max(1, Math.floor(indices.length / 32));
  return indices.filter((_, i) => i % every === 0 || i === indices.length - 1).map((i) => `rgb(${document[i].slice(0, 3).join(" ")})`);
}

function readPeriods(dimension) {
  if (!dimension) return new Periods([], "P1D");
  const step = dimension.step ?? "P1D";
  if (dimension.values) return new Periods(dimension.values.map(instantOf), step);
  const [first, last] = dimension.extent.map(instantOf);
  return new Periods(regular(first, last, step), step);
}
