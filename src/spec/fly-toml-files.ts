import { isObject, type Json } from './fly-toml-legacy.ts'

/**
 * TOML-35, TOML-36: reads every `local_path` of `[[files]]` into the definition, so that whoever gets it needs no
 * access to the client's disk. `readBase64` gets the path as written (relative to the config file) and gives the
 * content in base64; what it throws passes through. The definition given is left as it is.
 */
export function inlineFiles(definition: Json, readBase64: (localPath: string) => string): Json {
  return mapFiles(definition, (file) =>
    typeof file['local_path'] === 'string' && file['local_path'] !== ''
      ? { ...file, raw_base64: readBase64(file['local_path']) }
      : file,
  )
}

/** The definition without the contents that `inlineFiles` added: what is stored and shown (TOML-3). */
export function withoutFileContents(definition: Json): Json {
  return mapFiles(definition, ({ raw_base64: _content, ...file }) => file)
}

function mapFiles(definition: Json, change: (file: Json) => Json): Json {
  const files = definition['files']
  if (isObject(files)) return { ...definition, files: change(files) }
  if (!Array.isArray(files)) return definition
  const changed = files.map((file: unknown) => (isObject(file) ? change(file) : file))
  return { ...definition, files: changed }
}
