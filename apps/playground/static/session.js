// The session's prompts and what a threshold does to them. Pure: values in, values out.
//
// A row is one prompt: { prompt, win, weak, strong }. `win` is the highest alpha at which it goes strong, its win
// probability where there are two models; null where there was no prediction.
// `weak` and `strong` are what each model's answer costs in integer nano-USD, null until the prompt was answered.

/** The rows with `found` put in: one row for each prompt, later costs in place of earlier ones. */
export function withPrompt(rows, found) {
  const known = rows.find((row) => row.prompt === found.prompt);
  if (!known) return [...rows, found];
  const merged = { ...known, win: found.win ?? known.win, weak: found.weak ?? known.weak, strong: found.strong ?? known.strong };
  return rows.map((row) => (row === known ? merged : row));
}

/** True if a prompt goes strong at alpha: a tie does. */
export function goesStrong(row, alpha) {
  return row.win >= alpha;
}

/** What alpha makes of the rows that have a prediction: counts, and costs of those that have prices. */
export function at(rows, alpha) {
  const predicted = rows.filter((row) => row.win !== null);
  const priced = predicted.filter((row) => row.strong !== null && row.weak !== null);
  const cost = sum(priced.map((row) => (goesStrong(row, alpha) ? row.strong : row.weak)));
  const allStrong = sum(priced.map((row) => row.strong));
  const strong = predicted.filter((row) => goesStrong(row, alpha)).length;
  return {
    prompts: predicted.length,
    strong,
    share: predicted.length ? strong / predicted.length : null,
    priced: priced.length,
    saved: allStrong - cost,
    saving: allStrong ? (allStrong - cost) / allStrong : null,
  };
}

/** The steps of `at` from 0 to 1: [{ from, to, share, saving }]. Both are constant in (from, to]. */
export function steps(rows) {
  const wins = rows.filter((row) => row.win !== null).map((row) => row.win);
  const edges = [...new Set([0, ...wins, 1])].sort((one, other) => one - other);
  return edges.slice(1).map((to, index) => {
    const { share, saving } = at(rows, to);
    return { from: edges[index], to, share, saving };
  });
}

/** Integer nano-USD as dollars with six decimals, rounded half up to a millionth. */
export function usd(nano) {
  const micro = Math.floor((Math.abs(nano) + 500) / 1000);
  const text = `$${Math.floor(micro / 1e6)}.${String(micro % 1e6).padStart(6, "0")}`;
  return nano < 0 ? `-${text}` : text;
}

/** A fraction as a whole percent. */
export function percent(fraction) {
  return `${Math.round(fraction * 100)}%`;
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
