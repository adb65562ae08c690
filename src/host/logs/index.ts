export { LogReader, type LogQuery } from './log-reader.ts'
export { LogSpool } from './spool.ts'
export { RunLog, type RunOutput } from './run-log.ts'
