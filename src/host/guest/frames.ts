import { crc32 } from 'node:zlib'
import { Fault } from '#core/fault.ts'

/** docs/guest-protocol.md is the whole of it; guest/frames.h has the same numbers. */
export const protocolVersion = 1
export const frameHeaderBytes = 16
export const frameDataBytesMax = 32 * 1024
export const frameBytesMax = frameHeaderBytes + frameDataBytesMax

export const frameTypes = {
  hello: 1,
  ping: 2,
  run: 3,
  outputAck: 4,
  signal: 5,
  stop: 6,
  exitAck: 7,
  resumed: 8,
  open: 9,
  streamSignal: 10,
  windowSize: 11,
  close: 12,
  data: 32,
  eof: 33,
  credit: 34,
  welcome: 64,
  pong: 65,
  started: 66,
  failed: 67,
  output: 68,
  exit: 69,
  streamExit: 70,
  apiOpen: 71,
  note: 72,
} as const

/** The message goes on in the next frame of the same type and stream. */
export const flagMore = 1
/** Of `data` from the guest: standard error, not standard output. */
export const flagStderr = 2

const magic = 0x4748

export interface Frame {
  type: number
  flags: number
  /** 0 is the machine itself. */
  stream: number
  data: Buffer
}

const nothing = Buffer.alloc(0)

export function encodeFrame(frame: {
  type: number
  flags?: number
  stream?: number
  data?: Buffer
}): Buffer {
  const data = frame.data ?? nothing
  if (data.length > frameDataBytesMax) {
    throw new Fault(
      'internal',
      `a frame of ${data.length} bytes is longer than the protocol allows`,
    )
  }
  const out = Buffer.allocUnsafe(frameHeaderBytes + data.length)
  out.writeUInt16LE(magic, 0)
  out.writeUInt8(frame.type, 2)
  out.writeUInt8(frame.flags ?? 0, 3)
  out.writeUInt32LE(frame.stream ?? 0, 4)
  out.writeUInt32LE(data.length, 8)
  out.writeUInt32LE(sumOf(out, data), 12)
  data.copy(out, frameHeaderBytes)
  return out
}

function sumOf(header: Buffer, data: Buffer): number {
  return crc32(data, crc32(header.subarray(0, 12)))
}

/** A message as frames: more than one when it is long. */
export function encodeMessage(type: number, stream: number, message: Buffer): Buffer[] {
  const frames: Buffer[] = []
  let at = 0
  do {
    const data = message.subarray(at, at + frameDataBytesMax)
    at += data.length
    frames.push(encodeFrame({ type, stream, flags: at < message.length ? flagMore : 0, data }))
  } while (at < message.length)
  return frames
}

/**
 * Takes bytes cut anywhere and gives whole frames. Bytes that belong to none are skipped, so that a stream taken over in
 * the middle is understood again. Holds one frame and one chunk at most.
 */
export class FrameReader {
  /** Bytes that belonged to no whole frame. */
  skipped = 0
  #held: Buffer = nothing

  push(chunk: Buffer): Frame[] {
    const bytes = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : chunk
    const frames: Frame[] = []
    let at = 0
    while (bytes.length - at >= frameHeaderBytes) {
      const found = readFrame(bytes, at)
      if (found === 'more') break
      if (found === undefined) {
        const next = nextStart(bytes, at + 1)
        this.skipped += next - at
        at = next
        continue
      }
      frames.push(found)
      at += frameHeaderBytes + found.data.length
    }
    // A copy: what is kept must not hold a large chunk in memory.
    this.#held = Buffer.from(bytes.subarray(at))
    return frames
  }
}

/** Where the next frame may begin. */
function nextStart(bytes: Buffer, from: number): number {
  const next = bytes.indexOf(magic & 0xff, from)
  return next === -1 ? bytes.length : next
}

function readFrame(bytes: Buffer, at: number): Frame | 'more' | undefined {
  const length = bytes.readUInt32LE(at + 8)
  if (bytes.readUInt16LE(at) !== magic || length > frameDataBytesMax) return undefined
  const end = at + frameHeaderBytes + length
  if (end > bytes.length) return 'more'
  const data = bytes.subarray(at + frameHeaderBytes, end)
  if (bytes.readUInt32LE(at + 12) !== sumOf(bytes.subarray(at, at + 12), data)) return undefined
  return {
    type: bytes.readUInt8(at + 2),
    flags: bytes.readUInt8(at + 3),
    stream: bytes.readUInt32LE(at + 4),
    data,
  }
}
