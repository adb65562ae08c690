import { Duplex, Readable, Writable } from 'node:stream'
import { Fault } from '#core/fault.ts'
import { encodeFrame, encodeMessage, flagStderr, frameTypes, type Frame } from './frames.ts'
import {
  decodeStreamExit,
  encodeOpen,
  terminalSize,
  uint32,
  type GuestOpen,
  type StreamExit,
  type TerminalSize,
} from './messages.ts'

/** Output on its way in one stream, before anybody here has read it. */
export const streamCreditBytes = 256 * 1024
const chunkBytes = 16 * 1024
const apiStreamsMax = 16
const ofGuest = 0x80000000

/** A program that runs inside the machine. */
export interface GuestProcess {
  stdin: Writable
  stdout: Readable
  stderr: Readable
  /** Its end; rejects when the connection breaks first or it could not begin. All output has been pushed by then. */
  exited: Promise<StreamExit>
  signal(number: number): void
  resize(size: TerminalSize): void
  /** Gives up: the program and its session are killed. */
  close(): void
}

export interface StreamsOptions {
  name: string
  send(parts: readonly Buffer[]): boolean
  /** The guest broke the rules: the connection cannot be trusted. */
  onViolation(why: string): void
  onApi(connection: Duplex): void
}

/** What both kinds of stream do with credit. */
class Flow {
  readonly #send: (type: number, data?: Buffer) => void
  #mayTake = streamCreditBytes
  #owed = 0
  #maySend = 0
  #waiting: (() => void) | undefined

  constructor(send: (type: number, data?: Buffer) => void) {
    this.#send = send
  }

  /** False when the guest sent more than it had credit for. */
  arrived(bytes: number): boolean {
    this.#mayTake -= bytes
    this.#owed += bytes
    return this.#mayTake >= 0
  }

  /** What arrived has been read: the guest may send as much again. */
  drained(): void {
    if (this.#owed === 0) return
    this.#send(frameTypes.credit, uint32(this.#owed))
    this.#mayTake += this.#owed
    this.#owed = 0
  }

  granted(bytes: number): void {
    this.#maySend += bytes
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  /** Sends as credit allows, and calls back when all is sent. */
  write(data: Buffer, done: () => void): void {
    let at = 0
    while (at < data.length && this.#maySend > 0) {
      const part = data.subarray(at, at + Math.min(chunkBytes, this.#maySend))
      this.#send(frameTypes.data, part)
      this.#maySend -= part.length
      at += part.length
    }
    if (at === data.length) return done()
    this.#waiting = () => this.write(data.subarray(at), done)
  }
}

interface OpenStream {
  take(frame: Frame): void
  lost(error: Error): void
}

/** All streams of one connection. */
export class GuestStreams {
  readonly #options: StreamsOptions
  readonly #open = new Map<number, OpenStream>()
  #nextId = 1

  constructor(options: StreamsOptions) {
    this.#options = options
  }

  /** The connection broke: nothing that ran is known any more, and the guest ends it. */
  lost(error: Error): void {
    const all = [...this.#open.values()]
    this.#open.clear()
    for (const stream of all) stream.lost(error)
  }

  /** Ends the connections to /.fly/api. What has been written to them is sent before. */
  endApi(): void {
    for (const [id, stream] of this.#open) {
      if (id >= ofGuest) stream.lost(new Fault('conflict', 'the machine is being suspended'))
    }
  }

  take(frame: Frame): void {
    if (frame.type === frameTypes.apiOpen) {
      this.#takeApi(frame.stream)
      return
    }
    this.#open.get(frame.stream)?.take(frame)
  }

  #sender(id: number) {
    return (type: number, data?: Buffer) => {
      this.#options.send([encodeFrame({ type, stream: id, ...(data ? { data } : {}) })])
    }
  }

  open(request: Omit<GuestOpen, 'credit'>): GuestProcess {
    const id = this.#nextId
    this.#nextId = (this.#nextId % (ofGuest - 1)) + 1
    const send = this.#sender(id)
    const flow = new Flow(send)
    const message = encodeOpen({ ...request, credit: streamCreditBytes })
    const ended = Promise.withResolvers<StreamExit>()
    ended.promise.catch(() => {}) // Whoever waits hears it; a caller may only read.
    const readable = () => new Readable({ read: () => flow.drained(), highWaterMark: 64 * 1024 })
    const outputs = { stdout: readable(), stderr: readable() }
    const stdin = new Writable({
      write: (chunk: Buffer, _encoding, done) => flow.write(chunk, done),
      final: (done) => {
        send(frameTypes.eof)
        done()
      },
      decodeStrings: true,
    })
    stdin.on('error', () => {}) // It ended before it had read all: its exit says enough.
    const finish = (exit: StreamExit | undefined, error: Error | undefined) => {
      this.#open.delete(id)
      for (const output of [outputs.stdout, outputs.stderr]) output.push(null)
      stdin.destroy()
      if (exit) ended.resolve(exit)
      else ended.reject(error)
    }
    this.#open.set(id, {
      lost: (error) => finish(undefined, error),
      take: (frame) => {
        if (frame.type === frameTypes.data) {
          if (!flow.arrived(frame.data.length)) this.#options.onViolation('output without credit')
          const output = frame.flags & flagStderr ? outputs.stderr : outputs.stdout
          if (output.destroyed || output.push(frame.data)) flow.drained()
        } else if (frame.type === frameTypes.credit && frame.data.length === 4) {
          flow.granted(frame.data.readUInt32LE(0))
        } else if (frame.type === frameTypes.streamExit) {
          const exit = decodeStreamExit(frame.data)
          if (exit?.words) finish(undefined, this.#notBegun(exit.words))
          else if (exit) finish(exit, undefined)
        }
      },
    })
    if (!this.#options.send(encodeMessage(frameTypes.open, id, message))) {
      finish(undefined, this.#notBegun('the machine cannot be reached now; try again'))
    }
    return {
      stdin,
      ...outputs,
      exited: ended.promise,
      signal: (number) => send(frameTypes.streamSignal, uint32(number)),
      resize: (size) => send(frameTypes.windowSize, terminalSize(size)),
      close: () => {
        if (!this.#open.has(id)) return
        send(frameTypes.close)
        finish(
          undefined,
          new Fault('timeout', `a program in machine ${this.#options.name} was given up`),
        )
      },
    }
  }

  #notBegun(words: string): Fault {
    return new Fault('conflict', `nothing was run in machine ${this.#options.name}: ${words}`)
  }

  /** A program of the machine has connected to /.fly/api. */
  #takeApi(id: number): void {
    const send = this.#sender(id)
    const open = [...this.#open.keys()].filter((other) => other >= ofGuest).length
    if (id < ofGuest || this.#open.has(id) || open >= apiStreamsMax) {
      send(frameTypes.close)
      return
    }
    const flow = new Flow(send)
    send(frameTypes.credit, uint32(streamCreditBytes))
    const connection = new Duplex({
      allowHalfOpen: true,
      read: () => flow.drained(),
      write: (chunk: Buffer, _encoding, done) => flow.write(chunk, done),
      final: (done) => {
        send(frameTypes.eof)
        done()
      },
      destroy: (error, done) => {
        if (this.#open.delete(id)) send(frameTypes.close)
        done(error)
      },
    })
    connection.on('error', () => {}) // The guest hears of it by the close.
    this.#open.set(id, {
      lost: (error) => connection.destroy(error),
      take: (frame) => {
        if (frame.type === frameTypes.data) {
          if (!flow.arrived(frame.data.length)) this.#options.onViolation('data without credit')
          if (connection.push(frame.data)) flow.drained()
        } else if (frame.type === frameTypes.credit && frame.data.length === 4) {
          flow.granted(frame.data.readUInt32LE(0))
        } else if (frame.type === frameTypes.eof) {
          connection.push(null)
        }
      },
    })
    this.#options.onApi(connection)
  }
}
