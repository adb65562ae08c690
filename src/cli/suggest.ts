/** How many single-character edits lead from one word to the other; past `max` the answer is only "more". */
export function editDistance(a: string, b: string, max: number): number {
  if (Math.abs(a.length - b.length) > max) return max + 1
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min(replace, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1))
    }
    previous = row
  }
  return previous[b.length] ?? 0
}

/** The known words that a person may have meant, nearest first. */
export function suggestions(word: string, known: readonly string[]): string[] {
  const max = word.length <= 3 ? 1 : 2
  return known
    .map((candidate) => ({
      candidate,
      distance: candidate.startsWith(word) ? 1 : editDistance(word, candidate, max),
    }))
    .filter(({ distance }) => distance <= max)
    .sort((a, b) => a.distance - b.distance)
    .map(({ candidate }) => candidate)
}
