/* What the page shows, in the address after #, so that a copied address shows the same. */

/** Read the address; what it does not say is absent. */
export function readLocation() {
  const said = new URLSearchParams(window.location.hash.slice(1));
  const numbers = (name, count) => {
    const parts = (said.get(name) ?? "").split(",").map((part) => (part === "" ? NaN : Number(part)));
    return parts.length === count && parts.every(Number.isFinite) ? parts : null;
  };
  const view = numbers("map", 3);
  const point = numbers("at", 2);
  const opacity = numbers("opacity", 1);
  return {
    collection: said.get("c"),
    variable: said.get("v"),
    period: said.get("t"),
    view: view && { zoom: view[0], lat: within(view[1], -85, 85), lon: within(view[2], -180, 180) },
    point: point && { lat: within(point[0], -90, 90), lon: within(point[1], -180, 180) },
    opacity: opacity && within(opacity[0], 0, 100),
    globe: said.get("globe") === "1",
  };
}

/** Write the address, without a step in the browser's history. */
export function writeLocation({ collection, variable, period, view, point, opacity, globe }) {
  const parts = [
    ["c", collection],
    ["v", variable],
    ["t", period],
    ["map", view && `${view.zoom.toFixed(2)},${view.lat.toFixed(3)},${view.lon.toFixed(3)}`],
    ["at", point && `${point.lat.toFixed(4)},${point.lon.toFixed(4)}`],
    ["opacity", opacity === undefined || opacity === 100 ? null : opacity],
    ["globe", globe ? 1 : null],
  ];
  const text = parts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => `${name}=${encode(value)}`);
  history.replaceState(null, "", `#${text.join("&")}`);
}

function encode(value) {
  return encodeURIComponent(value).replaceAll("%2C", ",").replaceAll("%3A", ":");
}

function within(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
