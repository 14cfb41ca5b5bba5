/* Units and numbers, as people write them. */

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const NAMED = { 1: "", "1e-6": "ppm", "1e-9": "ppb", degC: "°C", deg_C: "°C", degrees_C: "°C", celsius: "°C", percent: "%" };

/** A UDUNITS string in type: `g m-2 s-1` is g m⁻² s⁻¹, `1e-6` is ppm, `1` is nothing. */
export function unit(text) {
  if (text in NAMED) return NAMED[text];
  return text.replace(/([A-Za-z°µ%])\^?(-?\d+)(?![\w.])/g, (_, symbol, power) => symbol + [...power].map((c) => RAISED[c]).join(""));
}

/** Decimal places that show every value of a list, at most six significant digits. */
export function places(values) {
  let most = 0;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    const [, fraction = "", exponent = "0"] = /^-?\d+(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(Number(value.toPrecision(6)))) ?? [];
    most = Math.max(most, fraction.length - Number(exponent));
  }
  return Math.min(Math.max(most, 0), 12);
}

/** A number with that many decimals; very small ones as powers of ten. */
export function number(value, decimals) {
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e7)) return power(value);
  return value.toFixed(Math.min(decimals, 6)).replace(/^-(?=0(?:\.0*)?$)/, "").replace("-", "−");
}

function power(value) {
  const [digits, exponent] = value.toExponential(2).split("e");
  const raised = [...String(Number(exponent))].map((c) => RAISED[c]).join("");
  return `${Number(digits)}×10${raised}`.replace("-", "−");
}

/** About `count` round numbers between two. */
export function rounds(low, high, count) {
  const rough = (high - low) / count;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * magnitude).find((s) => s >= rough * 0.999);
  const found = [];
  const slack = step * 1e-6;
  for (let i = Math.ceil((low - slack) / step); i * step <= high + slack; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** A position in words: 12.34° N, 56.78° W. */
export function place({ lon, lat }) {
  const part = (value, plus, minus) => `${Math.abs(value).toFixed(3)}° ${value < 0 ? minus : plus}`;
  return `${part(lat, "N", "S")}, ${part(lon, "E", "W")}`;
}

/** A typed position: `lat, lon` in degrees, with or without N S E W; null if it is none. */
export function readPlace(text) {
  const match = /^\s*([-+−]?\d+(?:\.\d+)?)\s*°?\s*([NS])?\s*[,; ]\s*([-+−]?\d+(?:\.\d+)?)\s*°?\s*([EW])?\s*$/i.exec(text);
  if (!match) return null;
  const value = (digits, side, minus) => Number(digits.replace("−", "-")) * (side?.toUpperCase() === minus ? -1 : 1);
  const lat = value(match[1], match[2], "S");
  const lon = value(match[3], match[4], "W");
  if (Math.abs(lat) > 90 || Math.abs(lon) > 360) return null;
  return { lon: wrapped(lon), lat };
}

/** A longitude in -180..180. */
export function wrapped(lon) {
  return lon >= -180 && lon <= 180 ? lon : ((((lon + 180) % 360) + 360) % 360) - 180;
}
