import type { Socket } from 'node:net'
import { dialUnix } from '#host/guest/index.ts'

const keptBytes = 16 * 1024
const bytesPerTick = 64 * 1024
const tickMs = 250

/**
 * The last words on a machine's console, where its kernel says why it dies. Read no faster than anybody needs: a guest
 * that floods it waits, and nothing of it is written anywhere.
 */
export class ConsoleTail {
  #kept: Buffer = Buffer.alloc(0)
  #socket: Socket | undefined
  #closed = false

  constructor(path: string) {
    void this.#read(path)
  }

  get words(): string {
    return this.#kept
      .toString('utf8')
      .replaceAll(/[^\n\x20-\x7e]/g, '')
      .trim()
  }

  async #read(path: string): Promise<void> {
    for (let tries = 0; tries < 100 && !this.#closed && !this.#socket; tries++) {
      this.#socket = await dialUnix(path).catch(() => undefined)
      if (!this.#socket) await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const socket = this.#socket
    if (!socket) return
    if (this.#closed) return void socket.destroy()
    let taken = 0
    const timer = setInterval(() => {
      taken = 0
      socket.resume()
    }, tickMs)
    timer.unref()
    socket.on('error', () => {})
    socket.on('close', () => clearInterval(timer))
    socket.on('data', (chunk: Buffer) => {
      this.#kept = Buffer.concat([this.#kept, chunk]).subarray(-keptBytes)
      taken += chunk.length
      if (taken > bytesPerTick) socket.pause()
    })
  }

  close(): void {
    this.#closed = true
    this.#socket?.destroy()
  }
}
