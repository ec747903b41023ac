// Elements, texts and figures.

import { strings } from "./strings.js";

export const find = (selector, root = document) => root.querySelector(selector);

// Languages -----------------------------------------------------------------------------------------------------------
let language = remembered("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in strings)) language = "en";

export function t(key, values = {}) {
  const text = strings[language][key] ?? strings.en[key] ?? key;
  if (typeof text === "function") return text(values);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export const hasText = (key) => key in strings.en;

/** Switch to the other language; the caller draws everything anew. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  remember("language", language);
}

/** Fill the texts of elements that were in the page from the start. */
export function fillTexts(root = document) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-icon]:not(:has(.icon))")) element.prepend(icon(element.dataset.icon));
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
    if (!element.matches("section, div, input")) element.title = t(element.dataset.label);
  }
}

// Elements ------------------------------------------------------------------------------------------------------------
/** An element. Properties that begin with "on" are listeners; "class" and others are attributes; false and null are absent. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon alone; its name is for screen readers and the tooltip. */
export const iconButton = (name, label, onclick, extra = {}) =>
  h("button", { type: "button", class: "quiet square", "aria-label": label, title: label, onclick, ...extra }, icon(name));

/** Set a text only if it differs, so that nothing is drawn or read out anew. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell screen readers. */
export function announce(text) {
  const place = find("#announcer");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}

/** A line at the bottom that can be dismissed, and goes away by itself when it has been read: an error after a long time, one
 * with `more` lines, which are folded away, never. */
export function toast(text, kind = "note", more = []) {
  const rest = more.length ? h("details", {}, h("summary", {}, t("more_rows", { n: more.length })), h("ul", {}, more.map((one) => h("li", {}, one)))) : "";
  const line = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" }, h("div", {}, h("span", {}, text), rest));
  line.append(iconButton("close", t("dismiss"), () => line.remove()));
  find("#toasts").append(line);
  if (!more.length) setTimeout(() => line.remove(), kind === "error" ? 20_000 : Math.max(5_000, 80 * text.length));
  return line;
}

// Figures -------------------------------------------------------------------------------------------------------------
const number = (value, digits = 0) => value.toLocaleString(language, { maximumFractionDigits: digits });

export const percent = (share) => `${Math.floor(share * 100)} %`;

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value, value < 10 && unit > 1 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 10) return `${number(Math.max(seconds, 0.1), 1)} s`;
  if (seconds < 90) return `${number(seconds)} s`;
  if (seconds < 5400) return `${number(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}.${Math.floor((seconds % 1) * 10)}`;

export const size = (of) => `${of.width} × ${of.height}`;
export const decimal = number;

// What this browser remembers: choices only; files and jobs are the server's -------------------------------------------
export function remembered(name) {
  try {
    return JSON.parse(localStorage.getItem(`upframe.${name}`)) ?? undefined;
  } catch {
    return undefined;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`upframe.${name}`, JSON.stringify(value));
  } catch {
    // private windows may have no storage; the choice then lasts as long as the page
  }
}
