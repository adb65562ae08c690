export { runHost } from './host.ts'
