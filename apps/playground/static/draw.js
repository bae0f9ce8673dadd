// Draws values into the page. Nothing here asks or decides.

import { at, goesStrong, percent, steps, usd } from "./session.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 184, LEFT = 44, TOP = 12, BOTTOM = 158, MARGIN = 10;
const NARROWEST = 240;

const byId = (id) => document.getElementById(id);

/** The gauge at a win probability (null: none) and an alpha. An alpha above 1 means "never strong". */
export function gauge(win, alpha) {
  const meter = byId("gauge");
  meter.dataset.known = win === null ? "no" : "yes";
  meter.setAttribute("aria-valuenow", String(win ?? 0));
  meter.setAttribute("aria-valuetext", win === null ? "no prediction" : win.toFixed(3));
  meter.parentElement.style.setProperty("--win", String(win ?? 0));
  meter.parentElement.style.setProperty("--alpha", String(Math.min(alpha, 1)));
  byId("gauge-value").textContent = win === null ? "none" : win.toFixed(3);
  byId("alpha-value").textContent = alpha > 1 ? "never strong" : alpha.toFixed(3);
}

/** The decision, as a sentence. */
export function decision(found) {
  const line = byId("decision");
  line.dataset.tier = found.tier;
  line.replaceChildren(strong(`${found.model} (${found.tier})`), ` would answer: ${found.why}.`);
  byId("candidates").replaceChildren(...found.candidates.map(({ model, words }) => tag("li", {}, strong(model), `: ${words}`)));
}

/** The session's curves, their values at alpha, and the table that says the same. */
export function session(rows, alpha) {
  const here = at(rows, alpha);
  byId("share").textContent =
    here.share === null ? "no prompts yet" : `${percent(here.share)} (${here.strong} of ${here.prompts})`;
  byId("saving").textContent =
    here.saving === null ? "no answers yet" : `${percent(here.saving)} (${usd(here.saved)}, ${here.priced} answered)`;
  const place = byId("chart");
  place.replaceChildren(chart(rows, alpha, here, Math.max(place.clientWidth, NARROWEST)));
  byId("rows").replaceChildren(...rows.map((row) => tableRow(row, alpha)));
}

/** The budget's windows. */
export function budget(windows) {
  byId("windows").replaceChildren(...windows.map(windowOf));
}

/** A pane for an answer to come: its parts, to be filled as they arrive. */
export function pane(title) {
  const element = tag("article", { class: "pane", "aria-busy": "true" });
  const heading = tag("h3", {}, title);
  const taken = tag("p", { class: "small" });
  const text = tag("p", { class: "text" });
  const cost = tag("p", { class: "cost", hidden: "" });
  const why = tag("details", { hidden: "" }, tag("summary", {}, "Why this model?"), tag("p", { class: "small" }));
  const stages = tag("ol", { class: "small" });
  element.append(heading, taken, text, cost, stages, why);
  return { element, heading, taken, text, cost, stages, why };
}

/** No answer is being written any more. */
export function settle() {
  for (const element of document.querySelectorAll(".pane")) {
    element.setAttribute("aria-busy", "false");
    if (!element.dataset.tier) element.querySelector("h3").textContent = "No answer";
  }
}

/** Name the model that writes in the pane and, once they are known, the costs. */
export function answeredBy(pane, found) {
  pane.element.dataset.tier = found.tier;
  pane.heading.textContent = `${found.model} (${found.tier})`;
  if (found.cost === null) return;
  pane.cost.textContent = costs(found);
  pane.cost.hidden = false;
  pane.stages.replaceChildren(...found.stages.map(stage));
}

/** Another model's answer begins: what came until now counts no more. */
export function takeBack(pane) {
  pane.taken.textContent = `${pane.heading.textContent} answered first, and that was taken back.`;
  pane.text.textContent = "";
}

function stage({ model, words, cost, given }) {
  return tag("li", {}, strong(model), `: ${words}, ${usd(cost)}${given ? "; this is its answer" : ""}`);
}

function costs(found) {
  const about = found.cost_source === "estimated" ? " (estimated)" : "";
  if (found.tier === "strong") {
    return `Cost ${usd(found.cost)}${about}. The weak model would have cost about ${usd(found.weak_cost)}.`;
  }
  const saved = found.strong_cost - found.cost;
  const share = found.strong_cost > 0 ? `, so ${percent(saved / found.strong_cost)} was saved` : "";
  return `Cost ${usd(found.cost)}${about}. The strong model would have cost about ${usd(found.strong_cost)}${share}.`;
}

function chart(rows, alpha, here, width) {
  const right = width - MARGIN;
  const x = (value) => LEFT + Math.min(value, 1) * (right - LEFT);
  const y = (fraction) => BOTTOM - fraction * (BOTTOM - TOP);
  const described = here.share === null
    ? "No prompts in this session yet."
    : `Strong-call share and savings over α. At α ${Math.min(alpha, 1).toFixed(3)}: ${percent(here.share)} strong` +
      (here.saving === null ? "." : `, ${percent(here.saving)} saved.`);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": described });
  for (const level of [0, 0.5, 1]) {
    picture.append(svg("path", { class: "grid", d: `M${LEFT} ${y(level)}H${right}` }));
    picture.append(svg("text", { x: LEFT - 6, y: y(level) + 4, "text-anchor": "end" }, percent(level)));
  }
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    const label = value === 0.5 ? "α = 0.5" : String(value);
    picture.append(svg("text", { x: x(value), y: BOTTOM + 18, "text-anchor": "middle" }, label));
  }
  picture.append(svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${BOTTOM}H${right}` }));
  const found = steps(rows);
  for (const curve of ["saving", "share"]) {
    const known = found.filter((step) => step[curve] !== null);
    if (!known.length) continue;
    const rest = known.map((step) => `V${y(step[curve])}H${x(step.to)}`).join("");
    picture.append(svg("path", { class: curve, d: `M${LEFT} ${y(known[0][curve])}${rest}` }));
  }
  picture.append(svg("path", { class: "alpha", d: `M${x(alpha)} ${TOP}V${BOTTOM}` }));
  return picture;
}

function tableRow(row, alpha) {
  const cells = [
    row.prompt,
    row.win === null ? "none" : row.win.toFixed(3),
    row.win === null ? "–" : goesStrong(row, alpha) ? "strong" : "weak",
    row.weak === null ? "–" : usd(row.weak),
    row.strong === null ? "–" : usd(row.strong),
  ];
  return tag("tr", {}, ...cells.map((text) => tag("td", {}, text)));
}

function windowOf(account) {
  const ends = new Date(account.ends).toLocaleString();
  const spent = `$${account.spent} spent` + (Number(account.reserved) ? `, $${account.reserved} put aside` : "");
  const of = account.limit === null ? "no limit" : `$${account.left} left of $${account.limit}`;
  const name = `Per ${account.period}`;
  const element = tag("div", { class: "window" }, tag("p", {}, strong(name), `: ${spent}; ${of}`));
  if (account.limit !== null) {
    // Text says the amounts exactly; only the bar's width is a float.
    const used = Math.min(1 - Number(account.left) / Number(account.limit), 1);
    const bar = tag("div", {
      class: "bar", role: "meter", "aria-label": `${name}: part of the limit that is used`,
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(used * 100)),
      "aria-valuetext": `${percent(used)} used`,
    }, tag("i", {}));
    bar.style.setProperty("--used", String(Math.max(used, 0)));
    element.append(bar);
  }
  element.append(tag("p", { class: "small" }, `until ${ends}`));
  return element;
}

function strong(text) {
  return tag("strong", {}, text);
}

function tag(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
