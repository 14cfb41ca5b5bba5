/* Descriptions are CommonMark; of it the page shows paragraphs, lists, emphasis, code and links, as nodes and never as markup. */

import { element, link } from "./element.js";

const INLINE = /\*\*(.+?)\*\*|__(.+?)__|\*(\S.*?)\*|`([^`]+)`|\[([^\]]+)\]\(([^()\s]+)\)|<(https?:[^<>\s]+)>/g;

/** The blocks of a text as elements. */
export function prose(text) {
  const blocks = text.trim().split(/\n\s*\n/).filter(Boolean);
  return blocks.map((block) => {
    const lines = block.split("\n").map((line) => line.trim());
    if (lines.every((line) => /^[-*+] /.test(line))) return element("ul", {}, ...lines.map((line) => element("li", {}, ...inline(line.slice(2)))));
    return element("p", {}, ...inline(lines.join(" ").replace(/^#+\s*/, "")));
  });
}

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, strong, also, emphasis, code, words, href, bare] = match;
    nodes.push(text.slice(end, match.index));
    end = match.index + whole.length;
    if (strong ?? also) nodes.push(element("strong", {}, strong ?? also));
    else if (emphasis) nodes.push(element("em", {}, emphasis));
    else if (code) nodes.push(element("code", {}, code));
    else nodes.push(link(href ?? bare, words ?? bare));
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}
