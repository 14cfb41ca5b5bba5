/* The values at one place over time, from the service's CoverageJSON. */

import { address, ask } from "./ask.js";
import { instantOf } from "./periods.js";

/** The address of the series at a place; `format` is one that the service names. */
export function seriesAddress(collection, variables, { lon, lat }, format) {
  return address(`${collection.path}/position`, {
    coords: `POINT(${round(lon)} ${round(lat)})`,
    "parameter-name": variables.join(","),
    f: format,
  });
}

/** Read a series: instants (milliseconds), values by variable (null where missing), and where its cell lies. */
export async function readSeries(collection, variables, point, signal) {
  const coverage = await ask(seriesAddress(collection, variables, point, "CoverageJSON"), signal);
  const { axes } = coverage.domain;
  const times = (axes.t?.values ?? []).map(instantOf);
  const values = {};
  for (const name of variables) values[name] = coverage.ranges[name]?.values ?? times.map(() => null);
  return { times, values, x: axes.x?.values?.[0], y: axes.y?.values?.[0] };
}

function round(degrees) {
  return Number(degrees.toFixed(6));
}
