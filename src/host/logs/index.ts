export { LogReader, type LogQuery } from './log-reader.ts'
export { LogSpool } from './spool.ts'
