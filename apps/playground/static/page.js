// Wires the page: what people do, to calls, to what is drawn.

import { Problem, get, lines, post } from "./api.js";
import * as draw from "./draw.js";
import { usd, withPrompt } from "./session.js";

const byId = (id) => document.getElementById(id);
const form = byId("form"), prompt = byId("prompt"), pick = byId("pick"), slider = byId("alpha"), own = byId("own-alpha");
const answerButton = byId("answer"), compareButton = byId("compare"), stopButton = byId("stop");

// Alphas of side by side: everything goes strong at 0, and nothing but certainty does at 1.
const ALPHA_OF = { weak: 1, strong: 0 };
const TYPING_PAUSE = 300;
const NO_OVERRIDE = "This tenant's policy allows no α of your own (allow_alpha_override), so α and both models stay with it.";

let rows = [];
let shown = null;     // the decision on display, null before the first
let wanted = null;    // the latest question for a decision that nobody has asked yet
let routing = false;
let asking = null;    // the AbortController of the answers that are being written
let compared = null;  // { chosen, requests } of the pair that a vote is about

// ---- decisions -----------------------------------------------------------------------------------------------------

/** The alpha that calls carry; null leaves it to the tenant. */
function chosenAlpha() {
  return own.checked ? null : Number(slider.value);
}

/** The alpha that is in force, as far as it is known. */
function alphaNow() {
  return own.checked ? (shown?.alpha ?? Number(slider.value)) : Number(slider.value);
}

/** Ask for the decision as things stand; `since` is when the slider moved. While a call is out, the latest one waits. */
function reroute(since = null) {
  wanted = { prompt: prompt.value, alpha: chosenAlpha(), since };
  if (!routing) askForDecisions();
}

async function askForDecisions() {
  routing = true;
  while (wanted) {
    const question = wanted;
    wanted = null;
    if (!question.prompt.trim()) continue;
    try {
      showDecision(await post("/api/route", { prompt: question.prompt, alpha: question.alpha }), question);
    } catch (error) {
      complain(error);
    }
  }
  routing = false;
}

function showDecision(found, question) {
  calm();
  if (shown?.model !== found.model || shown?.prompt !== question.prompt) {
    tell(`${found.model}, the ${found.tier} model, would answer.`);
  }
  shown = { ...found, prompt: question.prompt };
  if (own.checked && found.alpha !== null) slider.value = String(found.alpha);
  slider.setAttribute("aria-valuetext", `${Number(slider.value).toFixed(3)}, ${found.tier} model`);
  draw.decision(found);
  redraw();
  if (question.since !== null) {
    // After the frame in which it stands there: what `python -m benchmarks.playground` reads.
    requestAnimationFrame(() => setTimeout(() => performance.measure("slider to decision", { start: question.since })));
  }
}

/** What follows from what is known already, without asking anyone. */
function redraw() {
  draw.gauge(shown?.win_probability ?? null, alphaNow());
  draw.session(rows, alphaNow());
}

slider.addEventListener("input", (event) => {
  own.checked = false;
  redraw();
  reroute(event.timeStamp);
});
own.addEventListener("change", () => reroute());
addEventListener("resize", redraw);
pick.addEventListener("change", () => {
  if (!pick.value) return;
  prompt.value = pick.value;
  reroute();
});
let typing;
prompt.addEventListener("input", () => {
  pick.value = "";
  clearTimeout(typing);
  typing = setTimeout(() => reroute(), TYPING_PAUSE);
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

// ---- answers -------------------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(async (signal) => {
    const pane = draw.pane("Waiting for a model …");
    byId("panes").replaceChildren(pane.element);
    const found = await writeInto(pane, chosenAlpha(), "answer", signal);
    remember(found.decision, found.decision.weak_cost, found.decision.strong_cost);
    tell(`The answer of ${found.decision.model} is complete. It cost ${usd(found.decision.cost)}.`);
  });
});

compareButton.addEventListener("click", () => {
  if (compareButton.ariaDisabled === "true" || !form.reportValidity()) return;
  ask(async (signal) => {
    // A vote is about the answer that the router would have chosen: its request carries it.
    const routed = await post("/api/route", { prompt: prompt.value, alpha: chosenAlpha() });
    const panes = { weak: draw.pane("Weak model …"), strong: draw.pane("Strong model …") };
    byId("panes").replaceChildren(panes.weak.element, panes.strong.element);
    const [weak, strong] = await Promise.all(
      ["weak", "strong"].map((tier) => writeInto(panes[tier], ALPHA_OF[tier], "side by side", signal)),
    );
    if (weak.decision.tier === strong.decision.tier) {
      throw new Problem(`Both answers are ${weak.decision.model}'s: ${strong.decision.why}.`);
    }
    remember(routed, weak.decision.cost, strong.decision.cost);
    panes[routed.tier]?.heading.append(" – the router's choice");
    offerVote({ chosen: routed.tier, requests: { weak: weak.request_id, strong: strong.request_id } });
    tell("Both answers are complete. Which one was worth it?");
  });
});

stopButton.addEventListener("click", () => asking?.abort());

/** Run `work` unless something is being asked already; whatever becomes of it is told. */
async function ask(work) {
  if (asking) return;
  asking = new AbortController();
  calm();
  offerVote(null);
  setAsking(true);
  try {
    await work(asking.signal);
  } catch (error) {
    if (asking.signal.aborted) tell("Stopped. What was written until then is paid for.");
    else complain(error);
  } finally {
    // One of two answers may have failed: the other one is not written to its end for nobody.
    asking.abort();
    asking = null;
    draw.settle();
    setAsking(false);
    await refreshBudget();
  }
}

function setAsking(busy) {
  // aria-disabled, since a button that is disabled under the keyboard's focus would lose it.
  for (const button of [answerButton, compareButton]) {
    button.ariaDisabled = String(busy || (button === compareButton && slider.disabled));
  }
  if (!busy && document.activeElement === stopButton) answerButton.focus();
  stopButton.disabled = !busy;
}

/** Stream an answer into its pane; returns { decision, request_id } with the costs. */
async function writeInto(pane, alpha, label, signal) {
  const body = { prompt: prompt.value, alpha, max_tokens: Number(byId("max-tokens").value), label };
  let request_id;
  for await (const event of lines("/api/answer", body, signal)) {
    if (event.decision) {
      pane.element.dataset.tier = event.decision.tier;
      pane.heading.textContent = `${event.decision.model} (${event.decision.tier})`;
    }
    if (event.request_id) request_id = event.request_id;
    if (event.text) pane.text.append(event.text);
    if (event.decision && event.decision.cost !== null) {
      pane.cost.textContent = draw.costs(event.decision);
      pane.cost.hidden = false;
    }
    if (event.failed) throw new Problem(event.failed);
    if (event.finished) {
      pane.element.setAttribute("aria-busy", "false");
      explainOnDemand(pane.why, request_id);
      return { decision: event.decision, request_id };
    }
  }
  throw new Problem("The answer broke off. Try again.");
}

function explainOnDemand(details, request_id) {
  details.hidden = false;
  details.addEventListener("toggle", async () => {
    const place = details.querySelector("p");
    if (!details.open || place.textContent) return;
    try {
      place.textContent = (await post("/api/explanation", { request_id })).text;
    } catch (error) {
      complain(error);
    }
  });
}

function remember(decision, weak, strong) {
  rows = withPrompt(rows, { prompt: prompt.value, win: decision.win_probability, weak, strong });
  redraw();
}

// ---- votes ---------------------------------------------------------------------------------------------------------

function offerVote(pair) {
  compared = pair;
  byId("vote").hidden = pair === null;
  byId("voted").textContent = "";
  for (const button of byId("vote").querySelectorAll("button")) button.ariaPressed = "false";
}

byId("vote").addEventListener("click", async (event) => {
  const better = event.target.dataset?.better;
  if (!better || !compared) return;
  const pair = compared;
  const preference = better === "tie" ? "tie" : better === pair.chosen ? "chosen" : "other";
  try {
    await post("/api/vote", { request_id: pair.requests[pair.chosen], preference });
  } catch (error) {
    complain(error);
    return;
  }
  if (pair !== compared) return;
  for (const button of byId("vote").querySelectorAll("button")) button.ariaPressed = String(button === event.target);
  byId("voted").textContent = `Noted beside request ${pair.requests[pair.chosen]}. Your latest vote counts.`;
  tell("Your vote is noted.");
});

// ---- session and budget --------------------------------------------------------------------------------------------

byId("sample").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    const samples = [...pick.options].map((option) => option.value).filter(Boolean);
    for (const text of samples) {
      const found = await post("/api/route", { prompt: text, alpha: chosenAlpha() });
      rows = withPrompt(rows, { prompt: text, win: found.win_probability, weak: null, strong: null });
      redraw();
    }
    tell(`${samples.length} sample prompts are in the session.`);
  } catch (error) {
    complain(error);
  }
  button.ariaDisabled = "false";
});

async function refreshBudget() {
  try {
    draw.budget(await get("/api/budget"));
  } catch (error) {
    complain(error);
  }
}

// ---- what is said --------------------------------------------------------------------------------------------------

function complain(error) {
  if (!(error instanceof Problem)) console.error(error);
  byId("problem").textContent = error instanceof Problem ? error.message : "The page itself failed. Reload it.";
}

function calm() {
  byId("problem").textContent = "";
}

function tell(text) {
  byId("news").textContent = text;
}

async function begin() {
  const about = await get("/api/about");
  const tenant = about.policy ? ` as tenant ${about.policy.tenant}` : "";
  byId("about").textContent = `Which model should answer? This page calls the dispatcher at ${about.dispatcher}${tenant}.`;
  byId("notice").textContent = about.notice;
  byId("notice").hidden = !about.notice;
  for (const text of about.prompts) {
    const short = text.length > 70 ? `${text.slice(0, 70)}…` : text;
    pick.append(new Option(short, text));
  }
  if (about.policy && !about.policy.may_override_alpha) {
    slider.disabled = own.disabled = true;
    byId("compare-help").textContent = byId("alpha-help").textContent = NO_OVERRIDE;
  }
  setAsking(false);
  pick.selectedIndex = 1;
  prompt.value = pick.value;
  if (about.problem) complain(new Problem(about.problem));
  else await Promise.all([reroute(), refreshBudget()]);
}

redraw();
begin().catch(complain);
