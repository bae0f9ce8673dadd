// Answers and votes: one model's answer, or both side by side, and which of those was worth it.

import { Problem, lines, post } from "./api.js";
import * as draw from "./draw.js";
import { calm, complain, tell } from "./said.js";
import { usd } from "./session.js";

const byId = (id) => document.getElementById(id);
const form = byId("form"), prompt = byId("prompt"), vote = byId("vote"), voted = byId("voted");
const answerButton = byId("answer"), compareButton = byId("compare"), stopButton = byId("stop");
const voteButtons = [...vote.querySelectorAll("button")];

// Alphas of side by side: everything goes strong at 0, and nothing but certainty does at 1.
const ALPHA_OF = { weak: 1, strong: 0 };

let asking = null;    // the AbortController of the answers that are being written
let compared = null;  // { chosen, requests } of the pair that a vote is about
let mayCompare = true;

/**
 * Let people ask. `alpha()` is what calls carry, null for the tenant's own; `remember(prompt, decision, weak, strong)`
 * takes what both models' answers cost; `after()` is awaited when nothing is being written any more.
 */
export function letAsk({ alpha, remember, after }) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask((signal) => askOne(alpha(), remember, signal), after);
  });
  compareButton.addEventListener("click", () => {
    if (mayCompare && form.reportValidity()) ask((signal) => askBoth(alpha(), remember, signal), after);
  });
  stopButton.addEventListener("click", () => asking?.abort());
  vote.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) castVote(button);
  });
  setBusy(false);
}

/** Whether people may ask both models: that needs alphas of one's own. */
export function allowBoth(allowed) {
  mayCompare = allowed;
  setBusy(asking !== null);
}

/** Run `work` unless something is being asked already; whatever becomes of it is told. */
async function ask(work, after) {
  if (asking) return;
  asking = new AbortController();
  calm("answer");
  offerVote(null);
  setBusy(true);
  try {
    await work(asking.signal);
  } catch (error) {
    if (asking.signal.aborted) tell("Stopped. What was written until then is paid for.");
    else complain(error, "answer");
  } finally {
    // One of two answers may have failed: the other one is not written to its end for nobody.
    asking.abort();
    asking = null;
    draw.settle();
    setBusy(false);
    await after();
  }
}

async function askOne(alpha, remember, signal) {
  const asked = prompt.value;
  const pane = draw.pane("Waiting for a model …");
  byId("panes").replaceChildren(pane.element);
  const { decision } = await writeInto(pane, { prompt: asked, alpha, label: "answer" }, signal);
  remember(asked, decision, decision.weak_cost, decision.strong_cost);
  tell(`The answer of ${decision.model} is complete. It cost ${usd(decision.cost)}.`);
}

async function askBoth(alpha, remember, signal) {
  const asked = prompt.value;
  // A vote is about the answer that the router would have chosen: its request carries it.
  const routed = await post("/api/route", { prompt: asked, alpha });
  const panes = { weak: draw.pane("Weak model …"), strong: draw.pane("Strong model …") };
  byId("panes").replaceChildren(panes.weak.element, panes.strong.element);
  const write = (tier) => writeInto(panes[tier], { prompt: asked, alpha: ALPHA_OF[tier], label: "side by side" }, signal);
  const [weak, strong] = await Promise.all([write("weak"), write("strong")]);
  if (weak.decision.tier === strong.decision.tier) {
    throw new Problem(`Both answers are ${weak.decision.model}'s: ${strong.decision.why}.`);
  }
  remember(asked, routed, weak.decision.cost, strong.decision.cost);
  panes[routed.tier]?.heading.append(" – the router's choice");
  offerVote({ chosen: routed.tier, requests: { weak: weak.request_id, strong: strong.request_id } });
  tell("Both answers are complete. Which one was worth it?");
}

/** Stream an answer into its pane; returns { decision, request_id }, the decision with its costs. */
async function writeInto(pane, question, signal) {
  let request_id;
  for await (const event of lines("/api/answer", { ...question, max_tokens: Number(byId("max-tokens").value) }, signal)) {
    request_id ??= event.request_id;
    if (event.replaced) draw.takeBack(pane);
    if (event.decision) draw.answeredBy(pane, event.decision);
    if (event.text) pane.text.append(event.text);
    if (event.failed) throw new Problem(event.failed);
    if (event.finished) {
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
      complain(error, "answer");
    }
  });
}

function setBusy(busy) {
  // aria-disabled, since a button that is disabled under the keyboard's focus would lose it.
  answerButton.ariaDisabled = String(busy);
  compareButton.ariaDisabled = String(busy || !mayCompare);
  if (!busy && document.activeElement === stopButton) answerButton.focus();
  stopButton.disabled = !busy;
}

function offerVote(pair) {
  compared = pair;
  vote.hidden = pair === null;
  voted.textContent = "";
  for (const button of voteButtons) button.ariaPressed = "false";
}

async function castVote(button) {
  const pair = compared;
  const better = button.dataset.better;
  const request_id = pair.requests[pair.chosen];
  const preference = better === "tie" ? "tie" : better === pair.chosen ? "chosen" : "other";
  try {
    await post("/api/vote", { request_id, preference });
  } catch (error) {
    complain(error, "vote");
    return;
  }
  calm("vote");
  if (pair !== compared) return;
  for (const each of voteButtons) each.ariaPressed = String(each === button);
  voted.textContent = `Noted beside request ${request_id}. Your latest vote counts.`;
  tell("Your vote is noted.");
}
