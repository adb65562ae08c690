const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

/** flyctl's relative time: `just now`, `12s ago`, `3m4s ago`, `5h6m ago`, then the date in UTC. */
export function relativeTime(at: string | number | Date, now: number): string {
  const date = new Date(at)
  const seconds = Math.floor((now - date.getTime()) / 1000)
  if (Number.isNaN(seconds)) return ''
  if (seconds < 1) return 'just now'
  if (seconds < 60) return `${seconds}s ago`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes}m${seconds % 60}s ago`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return `${hours}h${minutes % 60}m ago`
  const two = (n: number) => String(n).padStart(2, '0')
  return `${months[date.getUTCMonth()]} ${date.getUTCDate()} ${date.getUTCFullYear()} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`
}

/** Bytes for people: `512 B`, `1.2 kB`, `34 MB`. */
export function humanBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}
