/* The legend: the colours of the map, their range and unit. */

import { byId, element } from "./element.js";
import { number, places, rounds, unit } from "./units.js";

/** Draw the legend of a variable; `colours` are CSS colours from the lowest to the highest value. */
export function drawLegend(variable, colours) {
  const figure = byId("legend");
  figure.hidden = !variable.range || colours.length === 0;
  if (figure.hidden) return;
  const [low, high] = variable.range;
  byId("legend-title").textContent = variable.title;
  byId("legend-unit").textContent = unit(variable.unit);
  byId("ramp").style.background = `linear-gradient(to right, ${colours.join(", ")})`;
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
