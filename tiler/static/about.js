/* What a collection is, in words. */

import { address } from "./ask.js";
import { byId, element, link } from "./element.js";
import { prose } from "./prose.js";

/** Fill the card's account of a collection. */
export function drawAbout(collection) {
  const { periods } = collection;
  const facts = [
    ["Periods", periods.length > 1 ? `${periods.label(0)} to ${periods.label(periods.length - 1)} (${periods.length})` : periods.length ? periods.label(0) : null],
    ["Cell", collection.cell ? `${degrees(collection.cell[0])} × ${degrees(collection.cell[1])}` : null],
    ["Version", collection.version],
    ["Model", collection.models.join(", ")],
    ["Licence", collection.license],
    ["Cite as", collection.citation],
  ];
  const list = element("dl");
  for (const [name, value] of facts) if (value) list.append(element("dt", {}, name), element("dd", {}, value));
  if (collection.providers.length > 0) {
    const names = collection.providers.flatMap(({ name, url }, i) => [i > 0 ? ", " : "", url ? link(url, name) : name]);
    list.append(element("dt", {}, "From"), element("dd", {}, ...names));
  }
  const sources = element("p", { className: "quiet" }, link(address(`/collections/${collection.id}`), "STAC collection"), " · coastlines: Natural Earth · map: MapLibre");
  byId("about").replaceChildren(...prose(collection.description), list, sources);
}

function degrees(size) {
  return `${Number(size.toPrecision(4))}°`;
}
