const tails = new Map<string, Promise<unknown>>()

/** Runs the tasks of one key one after the other, in the order they came; other keys go on beside them. */
export async function oneAtATime<T>(key: string, task: () => Promise<T>): Promise<T> {
  const before = tails.get(key) ?? Promise.resolve()
  const mine = before.then(task, task)
  tails.set(key, mine)
  try {
    return await mine
  } finally {
    if (tails.get(key) === mine) tails.delete(key)
  }
}
