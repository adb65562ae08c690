import { createHash } from 'node:crypto'
import { html, raw } from 'hono/html'
import type { Login } from '#control/auth/index.ts'

/** The pages on which a person allows a login: no script, no asset, nothing of another origin. */

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0; padding: 2rem 1rem }
main { max-width: 34rem; margin: 0 auto }
h1 { font-size: 1.4rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem }
dt { color: GrayText }
dd { margin: 0; overflow-wrap: anywhere }
label { display: block; font-weight: 600 }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .5rem; margin: .25rem 0 }
button { font: inherit; padding: .5rem 1rem; margin: .75rem .5rem 0 0 }
pre { overflow: auto; max-height: 20rem; padding: .75rem; border: 1px solid GrayText }
output { display: block; font: 1.1rem/1.5 ui-monospace, monospace; padding: .75rem; border: 1px solid GrayText; user-select: all; overflow-wrap: anywhere }
.wrong { border-left: .25rem solid #c33; padding-left: .75rem }
.note { color: GrayText; font-size: .9rem }
`

// Whole in one piece: a space more, and the hash is another one.
const styleElement = `<style>${style}</style>`
const styleHash = createHash('sha256').update(style).digest('base64')

/** A form may be sent to us, and the answer may lead to the program on the person's machine, and nowhere else. */
function securityHeaders(redirectPort: number | null): Record<string, string> {
  const loopback = redirectPort === null ? '' : ` http://127.0.0.1:${redirectPort}`
  return {
    'content-security-policy': `default-src 'none'; style-src 'sha256-${styleHash}'; form-action 'self'${loopback}; base-uri 'none'; frame-ancestors 'none'`,
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    // Stricter ones would make browsers hide the form's origin from us.
    'referrer-policy': 'same-origin',
    'cache-control': 'no-store',
  }
}

type Html = ReturnType<typeof html>

async function page(
  options: { title: string; status: number; redirectPort?: number | null },
  content: Html,
): Promise<Response> {
  const { title, status, redirectPort = null } = options
  const text = await html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${title} · Hangar</title>
        ${raw(styleElement)}
      </head>
      <body>
        <main>
          <h1>${title}</h1>
          ${content}
        </main>
      </body>
    </html> `
  return new Response(String(text), {
    status,
    headers: { 'content-type': 'text/html; charset=utf-8', ...securityHeaders(redirectPort) },
  })
}

/** What asks, for what, and the form that allows it. `wrong` says why the last try was refused. */
export function askPage(
  login: Login,
  options: { cloud: string; wrong?: string; status?: number },
): Promise<Response> {
  const { status = 200, wrong } = options
  const launch = login.target === 'launch'
  return page(
    {
      title: launch ? 'Go on with this launch?' : 'Allow this login?',
      status,
      redirectPort: login.redirectPort,
    },
    html`${wrong === undefined ? '' : html`<p class="wrong" role="alert">${wrong}</p>`}
      <dl>
        <dt>Asked by</dt>
        <dd>${login.name || 'a computer that gave no name'}</dd>
        <dt>Cloud</dt>
        <dd>${options.cloud}</dd>
        ${locksOf(login).map(
          ([what, which]) =>
            html`<dt>${what}</dt>
              <dd>${which}</dd>`,
        )}
      </dl>
      ${launch ? launchForm(login) : tokenForm(login)}`,
  )
}

function locksOf({ target, metadata }: Login): [string, string][] {
  if (target === 'launch') return []
  const locks = [
    ['Only organization', metadata.lock_organization],
    ['Only app', metadata.lock_app],
    ['Only machine', metadata.lock_instance],
  ] as const
  return locks.flatMap(([what, which]) => (which ? [[what, which]] : []))
}

function tokenForm(login: Login): Html {
  const warning = login.pkce
    ? ''
    : html`<p class="wrong">
        Whoever started this login gets the token. Go on only if that was you, just now.
      </p>`
  return html`<p>
      The program gets a token of its own, good for 30 days, that may do what yours
      may${locksOf(login).length > 0 ? ', within the limits above' : ''}. Yours is not handed on.
    </p>
    ${warning}
    <form method="post">
      <label for="token">A token of this cloud</label>
      <input
        id="token"
        name="token"
        type="password"
        required
        autocomplete="off"
        spellcheck="false"
        autofocus
      />
      <p class="note">
        There are no accounts yet. The operator's token is in the file <code>token</code> of
        HANGAR_HOME.
      </p>
      <button name="way" value="redirect">Allow</button>
      ${
        login.redirectPort === null
          ? ''
          : html`<button name="way" value="code">Allow and show a code to paste</button>
              <p class="note">
                Take the code if the terminal is on another machine than this browser.
              </p>`
      }
    </form>`
}

function launchForm(login: Login): Html {
  return html`<p>
      The plan can only be looked at here. To change it, answer in the terminal or edit fly.toml
      afterwards.
    </p>
    <pre>${JSON.stringify(login.metadata, null, 2)}</pre>
    <form method="post">
      <button>Go on with it</button>
    </form>`
}

/** What a person sees who must carry the code to the terminal. */
export function codePage(code: string): Promise<Response> {
  return page(
    { title: 'Paste this code', status: 200 },
    html`<p>Paste it into the terminal that waits for it. It is good once, for a few minutes.</p>
      <output>${code}</output>`,
  )
}

export function donePage(): Promise<Response> {
  return page(
    { title: 'Done', status: 200 },
    html`<p>You can close this page and go back to the terminal.</p>`,
  )
}

/** A login that cannot go on. */
export function endPage(status: number, message: string): Promise<Response> {
  return page({ title: 'This cannot go on', status }, html`<p class="wrong">${message}</p>`)
}
