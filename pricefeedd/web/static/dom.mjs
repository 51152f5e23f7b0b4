/**
 * Elements. What venues and the daemon say is put in as text and as attributes only, so nothing of it is ever markup.
 */

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make an element of HTML: `h("p", { class: "quiet" }, "text", other)`. */
export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** Make an element of SVG. */
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Set the text of an element, if it is another one: most of what is drawn again has not changed. */
export function put(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set an attribute, if it is another one; null takes it away. */
export function mark(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** A state by shape, colour and word. */
export function stateOf(word, { quiet = false } = {}) {
  return h("span", { class: `state is-${word}` }, h("i", { class: "shape", "aria-hidden": "true" }), quiet ? null : h("b", {}, word));
}

/** Make a state say another word. */
export function setState(element, word, told = word) {
  mark(element, "class", `state is-${word}`); // an element that is a state is nothing else: wrap it to place it
  put(element.lastChild, told);
}

/**
 * Keep the children of an element in step with a list: one is made for each new key, and goes with it.
 * @param make gives an element for an item; @param update draws it again
 */
export function keyed(parent, items, keyOf, make, update) {
  const known = (parent.made ??= new Map());
  const seen = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let child = known.get(key);
    if (child === undefined) known.set(key, (child = make(item)));
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const [key, child] of known) {
    if (seen.has(key)) continue;
    child.remove();
    known.delete(key);
  }
}
