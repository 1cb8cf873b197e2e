// Elements, made and changed without ever reading text as markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An HTML element. Attributes whose value is null or false are left out; children are nodes or text. */
export function element(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element; see `element`. */
export function drawn(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) put(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set an attribute if it differs; null or false removes it. */
export function put(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Set an element's text if it differs. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
