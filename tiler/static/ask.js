/* Requests to the service; whatever goes wrong becomes one sentence for a person. */

export const root = document.documentElement.dataset.root ?? "";

/** The service said no, or did not answer; the message is a sentence. */
export class Refusal extends Error {}

/** Address of a route of the service, with its query. */
export function address(path, query = {}) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const text = search.toString();
  return `${root}${path}${text ? `?${text}` : ""}`;
}

/** The JSON document at an address. */
export async function ask(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal, headers: { accept: "application/json, */*;q=0.1" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service did not answer; is the connection up?");
  }
  if (!response.ok) throw new Refusal(await sentence(response));
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service answered with something that is not JSON.");
  }
}

/** What an error answer says, as a sentence. */
export async function sentence(response) {
  const text = await response.text().catch(() => "");
  try {
    const said = JSON.parse(text);
    const words = said.detail ?? said.description ?? said.message ?? said.title;
    if (typeof words === "string" && words) return capital(words);
  } catch {
    // Not JSON: a proxy in between may have answered with a page of its own.
  }
  return `The service answered ${response.status} ${response.statusText}`.trim() + ".";
}

function capital(words) {
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
