/* Land, coasts and borders of Natural Earth, made fit for a flat map: world-atlas draws them on a sphere. */

import "./vendor/topojson-client/topojson-client.min.js";

const POLE = -89.9;

/** GeoJSON of the land's surface, its coasts, and the borders between countries. */
export async function readCoastlines() {
  const response = await fetch(new URL("./vendor/world-atlas/countries-50m.json", import.meta.url));
  if (!response.ok) throw new Error(String(response.status));
  const atlas = await response.json();
  const { countries, land } = atlas.objects;
  const { feature, mesh } = globalThis.topojson;
  const surface = feature(atlas, land).features.flatMap(({ geometry }) => (geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates));
  return {
    land: shape("MultiPolygon", surface.map((rings) => rings.filter(isNoPole).map(closed))),
    coast: shape("MultiLineString", mesh(atlas, land).coordinates.filter(isNoPole).flatMap(uncut)),
    borders: shape("MultiLineString", mesh(atlas, countries, (a, b) => a !== b).coordinates.flatMap(uncut)),
  };
}

function shape(type, coordinates) {
  return { type: "Feature", properties: {}, geometry: { type, coordinates } };
}

/** The point that a sphere's Antarctica leaves open. */
function isNoPole(line) {
  return line.some(([, lat]) => lat > POLE);
}

/** A line without jumps from one side of the map to the other: it goes on past 180 degrees. */
function unrolled(line) {
  let turn = 0;
  return line.map(([lon, lat], i) => {
    const step = i === 0 ? 0 : lon - line[i - 1][0];
    if (step > 180) turn -= 360;
    else if (step < -180) turn += 360;
    return [lon + turn, lat];
  });
}

/** A ring unrolled; one that goes round the world, Antarctica's, is closed along the south pole. */
function closed(ring) {
  const line = unrolled(ring);
  const [first, last] = [line[0], line.at(-1)];
  return Math.abs(last[0] - first[0]) < 180 ? line : [...line, [last[0], -90], [first[0], -90], first];
}

/** The pieces of a line without what runs along the antimeridian, where land was cut and no coast is. */
function uncut(line) {
  const pieces = [[]];
  const points = unrolled(line);
  points.forEach((point, i) => {
    if (i > 0 && isSeam(point) && isSeam(points[i - 1])) pieces.push([]);
    pieces.at(-1).push(point);
  });
  return pieces.filter((piece) => piece.length > 1);
}

function isSeam([lon]) {
  return Math.abs(Math.abs(lon) - 180) < 0.01;
}
