// Wires the page: the decision that follows prompt and slider, the session, the budget. Answers are in answering.js.

import { Problem, get, post } from "./api.js";
import { allowBoth, letAsk } from "./answering.js";
import * as draw from "./draw.js";
import { calm, complain, tell } from "./said.js";
import { percent, withPrompt } from "./session.js";

const byId = (id) => document.getElementById(id);
const prompt = byId("prompt"), pick = byId("pick"), slider = byId("alpha"), own = byId("own-alpha"), sample = byId("sample");

const TYPING_PAUSE = 300;
const NO_OVERRIDE = "This tenant's policy allows no α of your own (allow_alpha_override), so α and both models stay with it.";

let rows = [];
let shown = null;     // the decision on display and its prompt, null before the first
let wanted = null;    // the latest question for a decision that nobody has asked yet
let routing = false;

// ---- the decision --------------------------------------------------------------------------------------------------

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
      complain(error, "decision");
    }
  }
  routing = false;
}

function showDecision(found, question) {
  calm("decision");
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
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) prompt.form.requestSubmit();
});
addEventListener("resize", redraw);

// ---- session and budget --------------------------------------------------------------------------------------------

function remember(asked, decision, weak, strong) {
  rows = withPrompt(rows, { prompt: asked, win: decision.strong_until, weak, strong });
  redraw();
}

sample.addEventListener("click", async () => {
  if (sample.ariaDisabled === "true") return;
  sample.ariaDisabled = "true";
  const samples = [...pick.options].map((option) => option.value).filter(Boolean);
  try {
    for (const text of samples) {
      remember(text, await post("/api/route", { prompt: text, alpha: chosenAlpha() }), null, null);
    }
    calm("sample");
    tell(`${samples.length} sample prompts are in the session.`);
  } catch (error) {
    complain(error, "sample");
  }
  sample.ariaDisabled = "false";
});

async function refreshBudget() {
  try {
    draw.budget(await get("/api/budget"));
    calm("budget");
  } catch (error) {
    complain(error, "budget");
  }
}

// ---- the beginning -------------------------------------------------------------------------------------------------

async function begin() {
  const about = await get("/api/about");
  const tenant = about.policy ? ` as tenant ${about.policy.tenant}` : "";
  byId("about").textContent = `Which model should answer? This page calls the dispatcher at ${about.dispatcher}${tenant}.`;
  byId("notice").textContent = about.notice;
  byId("notice").hidden = !about.notice;
  for (const text of about.prompts) {
    pick.append(new Option(text.length > 70 ? `${text.slice(0, 70)}…` : text, text));
  }
  // Without the policy, the calls themselves will tell.
  const overrides = about.policy?.may_override_alpha ?? true;
  slider.disabled = own.disabled = !overrides;
  byId("policy").textContent = dial(about.policy);
  if (!overrides) byId("compare-help").textContent = byId("alpha-help").textContent = NO_OVERRIDE;
  allowBoth(overrides);
  if (!prompt.value) {
    pick.selectedIndex = 1;
    prompt.value = pick.value;
  }
  if (about.problem) complain(new Problem(about.problem), "page");
  else await refresh();
}

/** What the tenant's policy asks for, as the end of a label. */
function dial(policy) {
  if (policy?.strong_call_share != null) return ` (${percent(policy.strong_call_share)} of calls strong)`;
  return policy?.alpha != null ? ` (α ${policy.alpha})` : "";
}

async function refresh() {
  reroute();  // A tenant's own alpha moves with its calls.
  await refreshBudget();
}

letAsk({ alpha: chosenAlpha, remember, after: refresh });
redraw();
begin().catch((error) => complain(error, "page"));
