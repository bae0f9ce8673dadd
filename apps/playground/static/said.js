// What is said to people: one complaint at a time, in sight and read out at once, and news for those who listen.

import { Problem } from "./api.js";

let subject = null;

/** Show what went wrong with `about`. An error that is no Problem is a fault of the page: the console has it. */
export function complain(error, about) {
  if (!(error instanceof Problem)) console.error(error);
  subject = about;
  byId("problem").textContent = error instanceof Problem ? error.message : "The page itself failed. Reload it.";
}

/** What was wrong with `about` is well again. Other complaints stay. */
export function calm(about) {
  if (subject === about) byId("problem").textContent = "";
}

/** Read out, out of sight. */
export function tell(text) {
  byId("news").textContent = text;
}

function byId(id) {
  return document.getElementById(id);
}
