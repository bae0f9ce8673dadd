// Calls of the page's own server. A call that fails throws a Problem, whose message is a sentence for people.

export class Problem extends Error {}

/** The JSON answer of a GET. */
export async function get(path) {
  return (await send(path, {})).json();
}

/** The JSON answer of a POST. */
export async function post(path, body) {
  return (await send(path, posting(body))).json();
}

/** The lines of JSON of a POST, as they come. `signal` ends it. */
export async function* lines(path, body, signal) {
  const response = await send(path, { ...posting(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw signal.aborted ? error : new Problem("The connection to this page's server broke off. Try again.");
    }
    if (piece.done) return;
    const complete = (rest + piece.value).split("\n");
    rest = complete.pop();
    for (const line of complete) yield JSON.parse(line);
  }
}

function posting(body) {
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem("This page's server does not answer. Start it again with make playground, then reload.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Problem(said.problem ?? `This page's server failed (HTTP ${response.status}). Its terminal says why.`);
}
