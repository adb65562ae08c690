import { parse as parseToml, TomlError } from 'smol-toml'
import { z } from 'zod'
import { messageOf } from '#core/fault.ts'
import { isObject, normalizeDefinition, type Json } from './fly-toml-legacy.ts'
import { locateKey, type KeyPath } from './fly-toml-locate.ts'
import { complaintsOf, type Complaint } from './fly-toml-rules.ts'
import { flyConfigSchema, type FlyConfig } from './fly-toml-schema.ts'
import { warningsOf } from './fly-toml-warnings.ts'

export type { FlyConfig, FlyFile, FlyMount } from './fly-toml-schema.ts'
export { locateKey } from './fly-toml-locate.ts'
export { writeFlyToml } from './fly-toml-write.ts'
export { inlineFiles, withoutFileContents } from './fly-toml-files.ts'

export interface FlyTomlError {
  /** From 1. */
  line?: number
  column?: number
  /** Such as `http_service.internal_port`; empty when the text as a whole is wrong. */
  key: string
  /** The whole sentence, with file and line: print it as it is. */
  message: string
}

export type FlyTomlResult =
  | {
      ok: true
      config: FlyConfig
      /** The document as it was written, as JSON: what the server stores and gives back (TOML-3). */
      definition: Json
      /** Plain sentences, without the word Warning. */
      warnings: string[]
      /** TOML-4: keys that nobody knows; they pass, and `--strict` reports them. */
      unknownKeys: { key: string; line?: number }[]
    }
  | { ok: false; errors: FlyTomlError[] }

/**
 * Reads a fly.toml, or a fly.json when the file's name says so. Every complaint names the line and the key (TOML-8);
 * nothing is thrown.
 */
export function parseFlyToml(text: string, { file }: { file: string }): FlyTomlResult {
  const json = file.endsWith('.json')
  const read = json ? readJson(text, file) : readToml(text, file)
  if ('error' in read) return { ok: false, errors: [read.error] }
  return check(read.definition, { file, ...(json ? {} : { toml: text }) })
}

/** The same rules for a definition that comes as JSON: the server's side. */
export function parseDefinition(definition: unknown): FlyTomlResult {
  if (!isObject(definition)) {
    return { ok: false, errors: [{ key: '', message: 'the definition must be a JSON object' }] }
  }
  return check(definition, {})
}

type Read = { definition: Json } | { error: FlyTomlError }

function readToml(text: string, file: string): Read {
  try {
    // Dates become strings and what JSON cannot hold becomes null: a definition is JSON everywhere after this.
    return { definition: JSON.parse(JSON.stringify(parseToml(text))) as Json }
  } catch (error) {
    if (!(error instanceof TomlError)) {
      return { error: { key: '', message: `${file}: ${messageOf(error)}` } }
    }
    const { line, column } = error
    const reason = (error.message.split('\n')[0] ?? '').replace(/^Invalid TOML document: /, '')
    return {
      error: {
        line,
        column,
        key: '',
        message: `${file}:${line}:${column}: this is not TOML: ${reason}`,
      },
    }
  }
}

function readJson(text: string, file: string): Read {
  try {
    const definition: unknown = JSON.parse(text)
    if (isObject(definition)) return { definition }
    return { error: { key: '', message: `${file}: must hold one JSON object` } }
  } catch (error) {
    const place = /line (\d+) column (\d+)/.exec(messageOf(error))
    const at = place ? { line: Number(place[1]), column: Number(place[2]) } : {}
    const prefix = place ? `${file}:${place[1]}:${place[2]}` : file
    return {
      error: { ...at, key: '', message: `${prefix}: this is not JSON: ${messageOf(error)}` },
    }
  }
}

function check(definition: Json, source: { file?: string; toml?: string }): FlyTomlResult {
  const document = normalizeDefinition(definition)
  const parsed = flyConfigSchema.safeParse(document)
  const complaints = parsed.success
    ? complaintsOf(parsed.data)
    : parsed.error.issues.map((issue) => ({
        path: issue.path as KeyPath,
        message: issue.message,
      }))
  if (parsed.success && complaints.length === 0) {
    return {
      ok: true,
      config: parsed.data,
      definition,
      warnings: warningsOf(parsed.data),
      unknownKeys: unknownPaths(flyConfigSchema, document, []).map((path) => ({
        key: keyText(path, document),
        ...lineOf(path, source),
      })),
    }
  }
  return { ok: false, errors: complaints.map((one) => explain(one, document, source)) }
}

function explain(
  { path, message }: Complaint,
  document: Json,
  source: { file?: string; toml?: string },
): FlyTomlError {
  const key = keyText(path, document)
  const line = lineOf(path, source)
  const place = source.file ? `${source.file}:${line.line ? `${line.line}:` : ''} ` : ''
  return { ...line, key, message: `${place}${key} ${message}` }
}

function lineOf(path: KeyPath, source: { toml?: string }): { line?: number } {
  const line = source.toml === undefined ? undefined : locateKey(source.toml, path)
  return line === undefined ? {} : { line }
}

/** A path as people write it; the index of an only section is left out. */
function keyText(path: KeyPath, document: unknown): string {
  let text = ''
  let value: unknown = document
  for (const step of path) {
    const only = Array.isArray(value) && value.length === 1
    if (typeof step === 'number') text += only ? '' : `[${step}]`
    else text += `${text === '' ? '' : '.'}${step}`
    value = (value as Record<string | number, unknown> | undefined)?.[step]
  }
  return text
}

/** Paths of keys that no schema knows. TOML-4. */
function unknownPaths(schema: unknown, value: unknown, path: KeyPath): KeyPath[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault) {
    return unknownPaths(schema.unwrap(), value, path)
  }
  if (schema instanceof z.ZodArray && Array.isArray(value)) {
    return value.flatMap((item, index) => unknownPaths(schema.element, item, [...path, index]))
  }
  if (!isObject(value)) return []
  if (schema instanceof z.ZodRecord) {
    return Object.entries(value).flatMap(([key, item]) =>
      unknownPaths(schema.valueType, item, [...path, key]),
    )
  }
  if (!(schema instanceof z.ZodObject)) return []
  const shape: Record<string, unknown> = schema.shape
  return Object.entries(value).flatMap(([key, item]) =>
    Object.hasOwn(shape, key) ? unknownPaths(shape[key], item, [...path, key]) : [[...path, key]],
  )
}
