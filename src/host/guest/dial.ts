import { connect, type Socket } from 'node:net'
import { Fault } from '#core/fault.ts'

const connectTimeoutMs = 2_000
const answerBytesMax = 64

/** The way to the guest for QEMU's chardev socket and for a container's. */
export function dialUnix(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    const fail = (why: string) => {
      socket.destroy()
      reject(new Fault('native_failed', `cannot reach the guest at ${path}: ${why}`))
    }
    const timer = setTimeout(
      () => fail(`no answer within ${connectTimeoutMs} ms`),
      connectTimeoutMs,
    )
    socket.once('error', (error) => {
      clearTimeout(timer)
      fail(error.message)
    })
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.removeAllListeners('error')
      resolve(socket)
    })
  })
}

/** Firecracker's vsock: a unix socket that wants the port in a line of its own, and answers with one. */
export async function dialVsock(path: string, port: number): Promise<Socket> {
  const socket = await dialUnix(path)
  socket.write(`CONNECT ${port}\n`)
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0)
    const finish = (why?: string) => {
      clearTimeout(timer)
      socket.removeAllListeners()
      if (why === undefined) return resolve(socket)
      socket.destroy()
      reject(
        new Fault(
          'native_failed',
          `nobody answers on port ${port} of the guest at ${path}: ${why}`,
        ),
      )
    }
    const timer = setTimeout(
      () => finish(`no answer within ${connectTimeoutMs} ms`),
      connectTimeoutMs,
    )
    socket.on('error', (error) => finish(error.message))
    socket.on('close', () => finish('the connection was closed'))
    socket.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk])
      const end = answer.indexOf('\n')
      if (end === -1 && answer.length < answerBytesMax) return
      const isOk = end !== -1 && answer.toString('latin1', 0, end).startsWith('OK ')
      if (isOk && end + 1 < answer.length) socket.unshift(answer.subarray(end + 1))
      socket.pause()
      finish(isOk ? undefined : 'the answer was not understood')
    })
  })
}
