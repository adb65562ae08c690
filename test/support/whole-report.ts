/**
 * Loaded into each test process before its tests. With `--test-force-exit` Node ends a test file while verdicts still wait
 * in the pipe to the process that counts them, which then counts fewer tests than ran and says nothing (nodejs/node#64833).
 * A pipe that blocks has been written when `write` returns. It has no public name.
 */
const { _handle: pipe } = process.stdout as unknown as {
  _handle?: { setBlocking?(blocking: boolean): void }
}
pipe?.setBlocking?.(true)
