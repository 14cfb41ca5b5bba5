/* What is published, from the service's STAC collections. */

import { address, ask } from "./ask.js";
import { Periods, instantOf } from "./periods.js";

const SIZE = 512;
const BEYOND = 4;

/** All collections, sorted by title. */
export async function readCollections() {
  const { collections } = await ask(address("/collections"));
  return collections.map(described).sort((a, b) => a.title.localeCompare(b.title));
}

/** One collection as it is now. */
export async function readCollection(id) {
  return described(await ask(address(`/collections/${encodeURIComponent(id)}`)));
}

/**
 * A collection as the page needs it, fixed to the version that was current: whatever is asked of `path` from now on is
 * answered from that one, so that map, legend and series agree.
 */
function described(stac) {
  const version = stac.version;
  const dimensions = stac["cube:dimensions"] ?? {};
  const variables = Object.entries(stac.parameter_names ?? {}).map(([name, said]) => ({
    name,
    title: said.label ?? name,
    unit: said.unit?.symbol?.value ?? "1",
    role: said["cenote:role"],
    ancillaryOf: said["cenote:ancillary_of"] ?? null,
  }));
  for (const variable of variables) {
    variable.spread = variables.find((other) => other.role === "uncertainty" && other.ancillaryOf === variable.name) ?? null;
  }
  const cell = [dimensions.x?.step, dimensions.y?.step].map((step) => Math.abs(Number(step)));
  return {
    id: stac.id,
    path: `/collections/${encodeURIComponent(stac.id)}/instances/${encodeURIComponent(version)}`,
    version,
    title: stac.title ?? stac.id,
    description: stac.description ?? "",
    synthetic: stac["cenote:synthetic"] === true,
    models: Object.entries(stac["cenote:models"] ?? {}).map(([name, digest]) => `${name}@${digest.slice(0, 12)}`),
    license: stac.license ?? null,
    citation: stac["sci:citation"] ?? null,
    providers: stac.providers ?? [],
    bounds: stac.extent.spatial.bbox[0],
    cell: cell.every((size) => size > 0) ? cell : null,
    variables,
    periods: readPeriods(stac),
  };
}

/** How the tiles of a variable are asked for, and its legend. */
export async function readTiles(collection, variable) {
  const query = { variable: variable.name };
  const [tilejson, legend] = await Promise.all([
    ask(address(`${collection.path}/WebMercatorQuad/tilejson.json`, query)),
    ask(address(`${collection.path}/legend`, query)),
  ]);
  // Not the addresses that the document gives: behind a proxy that says nothing of itself they name another origin.
  const tiles = `${location.origin}${address(`${collection.path}/tiles/WebMercatorQuad`)}/{z}/{x}/{y}.png`;
  return {
    at: (period) => `${tiles}?${new URLSearchParams({ ...query, datetime: period, tilesize: SIZE })}`,
    size: SIZE,
    bounds: tilejson.bounds,
    minzoom: tilejson.minzoom,
    // The service draws beyond the native zoom too: cells get true edges, where stretching its tiles would blur them.
    maxzoom: Math.min(tilejson.maxzoom + BEYOND, 22),
    legend: { low: legend.minimum, high: legend.maximum, colours: legend.colors },
  };
}

/**
 * The periods of a collection. Its values are the times that the source gave them, anywhere from a period's start to
 * its end; long axes are told as runs of starts, `R<count>/<start>/<step>`.
 */
function readPeriods(stac) {
  const step = stac["cenote:step"];
  const { values, interval } = stac.extent.temporal;
  const runs = values.map((value) => /^R(\d+)\/([^/]+)\//.exec(value));
  if (runs.every(Boolean)) return Periods.ofRuns(runs.map(([, count, start]) => [instantOf(start), Number(count)]), step);
  return Periods.ofTimes(values.map(instantOf), instantOf(interval[0][0]), step);
}
