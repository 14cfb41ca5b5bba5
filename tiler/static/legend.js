/* The legend: the colours of the map, their range and unit. */

import { byId, element } from "./element.js";
import { number, places, rounds, unit } from "./units.js";

/** Draw the legend of a variable; `colours` are CSS colours from the lowest to the highest value. */
export function drawLegend(variable, { low, high, colours }) {
  const figure = byId("legend");
  figure.hidden = false;
  byId("legend-title").textContent = variable.title;
  byId("legend-unit").textContent = unit(variable.unit);
  byId("ramp").style.background = `linear-gradient(to right, ${sampled(colours).join(", ")})`;
  const values = rounds(low, high, 5);
  const decimals = places(values);
  const ticks = values.map((value) => {
    const share = (value - low) / (high - low);
    const tick = element("span", {}, number(value, decimals));
    tick.style.left = `${share * 100}%`;
    // A label at an end stays inside the card.
    tick.className = share < 0.06 ? "start" : share > 0.94 ? "end" : "";
    return tick;
  });
  byId("ticks").replaceChildren(...ticks);
  figure.setAttribute("aria-label", `${variable.title}, ${number(low, decimals)} to ${number(high, decimals)} ${unit(variable.unit)}`);
}

/** Enough of them for a smooth bar: a browser's gradient blends in between. */
function sampled(colours) {
  const every = Math.max(1, Math.floor(colours.length / 48));
  return colours.filter((_, i) => i % every === 0 || i === colours.length - 1);
}
