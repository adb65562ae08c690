import { Fault } from '#core/fault.ts'
import type { MachineFile as ConfigFile } from '#spec/machine-config.ts'
import type { Hook } from './hook.ts'

const modeDefault = 0o644
const base64 = /^[A-Za-z0-9+/\-_\s]*={0,2}$/

/** CONF-4: decoded exactly once. @throws Fault `invalid` for text that is not base64 (TOML-36, LIM-6) */
export function decodeFile(text: string, what: string): Buffer {
  // The end is trimmed first: a pattern with blanks in two places would try every division of a long run of them.
  if (!base64.test(text.trimEnd())) {
    throw new Fault(
      'invalid',
      `${what} is not base64; encode it first, for example with: base64 -w0`,
    )
  }
  return Buffer.from(text, 'base64')
}

function contentOf(file: ConfigFile, secrets: Record<string, string>): Buffer {
  if (file.secret_name) {
    const value = secrets[file.secret_name]
    if (value === undefined) {
      throw new Fault(
        'invalid',
        `the file ${file.guest_path} needs the secret ${file.secret_name}, which the app does not have; set it and start the machine again`,
      )
    }
    return decodeFile(value, `the secret ${file.secret_name}`)
  }
  return decodeFile(file.raw_value ?? '', `raw_value of ${file.guest_path}`)
}

/** TOML-35: files are in place before the command starts. */
export const filesHook: Hook = {
  name: 'files',
  async prestart(launch) {
    launch.files = (launch.record.config.files ?? []).map((file) => ({
      path: file.guest_path,
      content: contentOf(file, launch.secrets),
      mode: file.mode ?? modeDefault,
    }))
  },
}
