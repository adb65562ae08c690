/** The texts that HAProxy answers with by itself. In a log-format file `%` starts an expression. */

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222}code{background:#eee;padding:.1em .3em;border-radius:3px}h1{font-size:1.4em}'

export const unknownHtml = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>No such app</title><style>${style.replaceAll('%', '%%')}</style></head>
<body><h1>No app named <code>%[var(txn.app)]</code> answers here</h1>
<p>The name <code>%[var(txn.shown)]</code> reached this cloud, but no app with a machine and an HTTP service on this port has it.</p>
<p>See what is there with <code>hangar apps list</code>; bring yours up with <code>hangar deploy</code>.</p></body></html>
`

export const unknownJson = `{"error":"no app named \\"%[var(txn.app)]\\" answers at %[var(txn.shown)]: see what is there with: hangar apps list; bring it up with: hangar deploy","status":"not_found"}
`

/** Sent when a slot has neither a machine nor a waker: the edge itself is down or overloaded. */
export const brokenHttp = `HTTP/1.1 503 Service Unavailable\r
Content-Type: application/json\r
Cache-Control: no-cache\r
Retry-After: 2\r
Connection: close\r
\r
{"error":"no machine of this app could take the request in time: see: hangar status and hangar logs; the edge is working on it, try again in a moment","status":"internal"}
`
