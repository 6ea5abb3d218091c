/** How many turns of its own the event loop has while something is done: of work that is done in one turn, none. */
export async function turnsOf(work: () => Promise<unknown>): Promise<number> {
  let count = 0;
  const countTurn = () => {
    count++;
    next = setImmediate(countTurn);
  };
  let next = setImmediate(countTurn);
  try {
    await work();
  } finally {
    clearImmediate(next);
  }
  return count;
}
